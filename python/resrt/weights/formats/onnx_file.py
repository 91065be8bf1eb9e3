"""ONNX files (https://onnx.ai) of these networks, whoever exported them.

Where an exporter kept the parameters' names they are taken by name. Where it folded batch
normalisation or renamed everything, they are found by following the graph (`onnx_match`).
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path, PurePosixPath

from resrt import _core
from resrt.errors import FileError, WeightsError
from resrt.weights.formats import onnx_match, onnx_model
from resrt.weights.formats.checkpoint import Array, Checkpoint, map_descriptor
from resrt.weights.formats.onnx_model import Location, Model
from resrt.weights.formats.protobuf import Malformed

FORMAT = "ONNX"

# The first byte of a ModelProto, ir_version, and what may follow it: each of the other fields.
_IR_VERSION = 0x08
_NEXT = (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42, 0x72, 0xA2, 0xCA)

_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")


def recognises(content: memoryview) -> bool:
    """Whether it begins as a ModelProto does: its version, then another of its fields."""
    return (
        len(content) > 2
        and content[0] == _IR_VERSION
        and 0 < content[1] < 0x80
        and content[2] in _NEXT
    )


def read(content: memoryview, path: str) -> Checkpoint:
    """Every array that a node reads by its name, a view of the content; and how to fit a graph.

    What `resrt.export` wrote has labels and preprocessing in its metadata, as converted weights do.
    Tensors that lie in a file beside this one are read as well, if that file is in this one's
    folder. bfloat16 is widened to float32. Raises WeightsError, and FileError where a file of
    tensors cannot be read.
    """
    try:
        model = onnx_model.decode(content, _Beside(path).fetch)
    except Malformed as error:
        raise WeightsError(
            f"'{path}' is no sound ONNX file ({error}); copy, download or export it again"
        ) from None
    _refuse_other_models(model, path)

    def fit(graph: _core.Graph) -> dict[str, Array]:
        return onnx_match.parameters(model, graph, origin=f"'{path}'")

    # What no node reads may be left from before a folding. A number without dimensions is part of
    # the arithmetic, and no parameter.
    in_use = {name for node in model.nodes for name in node.inputs} & model.initialisers
    arrays = {
        name: array for name, array in model.constants.items() if name in in_use and array.ndim > 0
    }
    return Checkpoint(FORMAT, arrays, model.metadata, fit=fit)


def _refuse_other_models(model: Model, path: str) -> None:
    """Raise WeightsError for models whose weights are not those that were trained."""
    for node in model.nodes:
        what = f"its node {node.name!r} is of type {node.op}"
        if (
            node.op in _QUANTISED
            or node.op.startswith("QLinear")
            or node.op.endswith("Integer")
            or (node.domain == "com.microsoft" and node.op.startswith(("Q", "DynamicQuantize")))
        ):
            raise WeightsError(
                f"'{path}' is a quantised model ({what}); resrt takes the weights in floating "
                "point: export the network from before its quantisation"
            )
        if node.domain == "com.microsoft.nchwc":
            raise WeightsError(
                f"'{path}' was rewritten by ONNX Runtime for one processor ({what} in "
                f"{node.domain}); give the file from before, or save it with "
                "GraphOptimizationLevel.ORT_ENABLE_EXTENDED at most"
            )
        if node.op in model.functions:
            raise WeightsError(
                f"'{path}' is built of functions of its own ({what}); write them out with "
                "onnx.inliner.inline_local_functions first"
            )


class _Beside:
    """The files of tensors in an ONNX file's own folder, mapped into memory once each."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._maps: dict[str, memoryview] = {}

    def fetch(self, location: Location) -> memoryview:
        if location.file not in self._maps:
            self._maps[location.file] = self._map(location.file)
        content = self._maps[location.file]
        length = len(content) - location.offset if location.length is None else location.length
        if not 0 <= location.offset <= location.offset + length <= len(content):
            raise WeightsError(
                f"'{self._path}' keeps {length} bytes from byte {location.offset} of "
                f"'{location.file}', which has {len(content)}; copy or download both again"
            )
        return content[location.offset : location.offset + length]

    def _map(self, file: str) -> memoryview:
        where = PurePosixPath(file)
        if not where.parts or where.is_absolute() or ".." in where.parts or not file.isprintable():
            raise WeightsError(
                f"'{self._path}' keeps tensors in {file!r}, which is not in its own folder; "
                "resrt does not read elsewhere"
            )
        # Step by step, because a symbolic link anywhere could lead out of the folder.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
        opened: list[int] = []
        try:
            folder = Path(self._path).parent
            opened.append(os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY))
            for part in where.parts[:-1]:
                opened.append(os.open(part, flags | os.O_DIRECTORY, dir_fd=opened[-1]))
            opened.append(os.open(where.name, flags, dir_fd=opened[-1]))
            return map_descriptor(opened[-1], file)
        except FileError:
            raise
        except OSError as error:
            raise FileError(
                f"cannot read '{file}', where '{self._path}' keeps tensors: {error.strerror}; the "
                "file must lie beside it, and be no symbolic link"
            ) from None
        finally:
            for descriptor in opened:
                with suppress(OSError):
                    os.close(descriptor)
