"""ONNX files (https://onnx.ai) of these networks, from any exporter.

If the exporter kept the parameters' names, these identify the parameters. If it folded batch
normalisation or renamed everything, `onnx_match` finds them by following the graph.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from resrt import _core
from resrt.errors import FileError, WeightsError
from resrt.weights.formats import onnx_match, onnx_model
from resrt.weights.formats.checkpoint import Array, Checkpoint, reported, shorten
from resrt.weights.formats.content import OPEN_FLAGS, File, Version
from resrt.weights.formats.onnx_model import Location, Model

FORMAT = "ONNX"

# The first byte of a ModelProto, its field ir_version, and the first bytes of all other fields.
_IR_VERSION = 0x08
_NEXT = (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42, 0x72, 0xA2, 0xCA)

_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")


def recognises(content: memoryview) -> bool:
    """Return whether this begins like a ModelProto: its version, then another field."""
    return (
        len(content) > 2
        and content[0] == _IR_VERSION
        and 0 < content[1] < 0x80
        and content[2] in _NEXT
    )


def read(content: memoryview, path: str) -> Checkpoint:
    """Return the arrays that nodes read, views of the content, and how to fit them to a graph.

    External tensors are read from files in the same folder. bfloat16 is widened to float32. Files
    that `resrt.export` wrote have labels and preprocessing in their metadata. Raises WeightsError,
    and FileError if a file of external tensors cannot be read.
    """
    external = _ExternalFiles(path)
    with reported(path, "ONNX file"):
        model = onnx_model.decode(content, external.fetch)
    _refuse_other_models(model, path)

    def fit(graph: _core.Graph) -> dict[str, Array]:
        return onnx_match.parameters(model, graph, origin=f"'{path}'")

    # An array that no node reads may remain from before folding. A scalar is part of the
    # arithmetic and not a parameter.
    in_use = {name for node in model.nodes for name in node.inputs}
    arrays = {
        name: array for name, array in model.constants.items() if name in in_use and array.ndim > 0
    }
    return Checkpoint(
        FORMAT,
        arrays,
        model.metadata,
        fit=fit,
        trained=onnx_match.trained(model),
        contents=tuple(external.contents),
    )


def _refuse_other_models(model: Model, path: str) -> None:
    """Raise WeightsError for models that contain modified weights."""
    for node in model.nodes:
        what = f"its node {node.name!r} is of type {node.op}"
        if (
            node.op in _QUANTISED
            or node.op.startswith("QLinear")
            or node.op.endswith("Integer")
            or (node.domain == "com.microsoft" and node.op.startswith(("Q", "DynamicQuantize")))
        ):
            raise WeightsError(
                f"'{path}' is a quantised model ({what}); resrt requires weights in floating "
                "point: export the network before it is quantised"
            )
        if node.domain == "com.microsoft.nchwc":
            raise WeightsError(
                f"'{path}' was optimised by ONNX Runtime for one processor ({what} in "
                f"{node.domain}); give the original file, or save it with at most "
                "GraphOptimizationLevel.ORT_ENABLE_EXTENDED"
            )
        if node.op in model.functions:
            raise WeightsError(
                f"'{path}' contains local functions ({what}); inline them first with "
                "onnx.inliner.inline_local_functions"
            )


class _ExternalFiles:
    """The files of external tensors in an ONNX file's folder."""

    def __init__(self, path: str) -> None:
        self.contents: list[memoryview] = []
        self._path = path
        self._versions: dict[str, Version] = {}
        self._taken: Counter[Version] = Counter()

    def fetch(self, location: Location) -> memoryview:
        """Read a tensor's bytes. Raises WeightsError or FileError."""
        with self._opened(location.file) as file:
            length = file.size - location.offset if location.length is None else location.length
            if not 0 <= location.offset <= location.offset + length <= file.size:
                raise WeightsError(
                    f"'{self._path}' stores {length} bytes at byte {location.offset} of "
                    f"'{location.file}', which has {file.size}; copy or download both again"
                )
            if self._versions.setdefault(location.file, file.version) != file.version:
                raise file.changed()
            self._taken[file.version] += length
            if self._taken[file.version] > file.size:
                # Otherwise many tensors could be widened copies of the same bytes.
                raise WeightsError(
                    f"'{self._path}' stores tensors of more than {file.size} bytes in "
                    f"'{location.file}', which has no more; give each tensor its own bytes"
                )
            self.contents.append(file.read(location.offset, length))
            return self.contents[-1]

    @contextmanager
    def _opened(self, file: str) -> Iterator[File]:
        where = PurePosixPath(file)
        if not where.parts or where.is_absolute() or ".." in where.parts or not file.isprintable():
            raise WeightsError(
                f"'{self._path}' stores tensors in {shorten(file)}, which is not in its own "
                "folder; resrt reads no other files"
            )
        # Open folder by folder, because a symbolic link anywhere could lead elsewhere.
        flags = OPEN_FLAGS | os.O_NOFOLLOW
        opened: list[int] = []
        try:
            folder = Path(self._path).parent
            opened.append(os.open(folder, OPEN_FLAGS | os.O_DIRECTORY))
            for part in where.parts[:-1]:
                opened.append(os.open(part, flags | os.O_DIRECTORY, dir_fd=opened[-1]))
            opened.append(os.open(where.name, flags, dir_fd=opened[-1]))
            yield File(opened[-1], file)
        except FileError:
            raise
        except OSError as error:
            raise FileError(
                f"cannot read '{file}', where '{self._path}' stores tensors: {error.strerror}; "
                "the file must be in the same folder and not be a symbolic link"
            ) from None
        finally:
            for descriptor in opened:
                with suppress(OSError):
                    os.close(descriptor)
