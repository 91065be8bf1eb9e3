"""Paddle's .pdiparams: the parameters of a model that was exported for inference.

The file has their values alone, one after another in the order of their names. The names are in
the model's program, a file beside it, and are made up by Paddle, such as conv2d_0.w_0. What they
are is found by following the program, as in an ONNX file.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

from resrt import _core
from resrt._support.files import file_kind
from resrt.errors import WeightsError
from resrt.weights.formats import onnx_match, paddle_program
from resrt.weights.formats.checkpoint import (
    Array,
    Checkpoint,
    Malformed,
    checked_shape,
    reported,
    widen_bfloat16,
)
from resrt.weights.formats.content import opened
from resrt.weights.formats.protobuf import Wire, as_int, as_ints

FORMAT = "Paddle's .pdiparams"

# The suffixes of programs, of Paddle 3 and before.
PROGRAMS = (".json", ".pdmodel")

_BFLOAT16 = 22
_DTYPES: dict[int, np.dtype[np.generic]] = {  # of framework.proto's VarType.Type
    2: np.dtype("<i4"),
    3: np.dtype("<i8"),
    4: np.dtype("<f2"),
    5: np.dtype("<f4"),
    6: np.dtype("<f8"),
    _BFLOAT16: np.dtype("<u2"),
}
# The version of a tensor with its levels of detail (0), their number (0), the version of a tensor
# (0), and the size of its description.
_HEAD = struct.Struct("<IQII")
_LONGEST_DESCRIPTION = 256
_MOST_TENSORS = 50_000


def recognises(content: memoryview) -> bool:
    """Return whether this begins like a tensor without levels of detail, and its type."""
    if len(content) < _HEAD.size + 2:
        return False
    version, levels, tensor_version, size = _HEAD.unpack_from(content)
    is_tensor = version == levels == tensor_version == 0 and 2 <= size <= _LONGEST_DESCRIPTION
    return is_tensor and content[_HEAD.size] == 0x08 and content[_HEAD.size + 1] in _DTYPES


def read(content: memoryview, path: str) -> Checkpoint:
    """Return the arrays, views of the content, and how to fit them to a graph.

    bfloat16 is widened to float32. Raises WeightsError, and FileError if the program beside the
    file cannot be read.
    """
    program_file = _program_of(path)
    with (
        reported(str(program_file), "program of Paddle's"),
        opened(str(program_file)) as source,
    ):
        if source.size > paddle_program.LONGEST:
            raise Malformed(f"it has {source.size} bytes")
        described = source.read(0, source.size)
        program = paddle_program.decode(described)
    with reported(path, ".pdiparams file"):
        arrays = _named(_tensors(content), program)
    with reported(str(program_file), "program of Paddle's"):
        model = program.model(arrays)

    def fit(graph: _core.Graph) -> dict[str, Array]:
        return onnx_match.parameters(model, graph, origin=f"'{path}'")

    return Checkpoint(
        FORMAT, arrays, fit=fit, trained=onnx_match.trained(model), contents=(described,)
    )


def _program_of(path: str) -> Path:
    files = [Path(path).with_suffix(suffix) for suffix in PROGRAMS]
    found = next((file for file in files if file_kind(file) is not None), None)
    if found is None:
        raise WeightsError(
            f"'{path}' has parameters without names, which are in the program that Paddle wrote "
            f"beside it: copy '{files[0].name}' or '{files[1].name}' there, or give the .pdparams "
            "file that the model was exported from"
        )
    return found


def _tensors(content: memoryview) -> list[Array]:
    """Return the tensors of the file in its order. Raises Malformed."""
    arrays: list[Array] = []
    at = 0
    while at < len(content):
        if len(arrays) == _MOST_TENSORS:
            raise Malformed(f"it has more than {_MOST_TENSORS} tensors")
        if not recognises(content[at:]):
            raise Malformed(f"there is no tensor at byte {at}")
        *_, size = _HEAD.unpack_from(content, at)
        at += _HEAD.size
        data_type, shape = _description(content[at : at + size])
        at += size
        dtype = _DTYPES[data_type]
        length = math.prod(shape) * dtype.itemsize
        if length > len(content) - at:
            raise Malformed(f"a tensor of shape {shape} exceeds the file")
        array = np.frombuffer(content[at : at + length], dtype).reshape(shape)
        arrays.append(widen_bfloat16(array) if data_type == _BFLOAT16 else array)
        at += length
    return arrays


def _description(message: memoryview) -> tuple[int, tuple[int, ...]]:
    """Return the type and the shape of a TensorDesc."""
    data_type, shape = -1, []
    for number, value in Wire(_LONGEST_DESCRIPTION).fields(message):
        if number == 1:
            data_type = as_int(value)
        elif number == 2:
            shape += as_ints(value)
    if data_type not in _DTYPES:
        raise Malformed(f"a tensor has the unknown type {data_type}")
    return data_type, checked_shape(shape)


def _named(tensors: list[Array], program: paddle_program.Program) -> dict[str, Array]:
    """Return the tensors by the program's names, in whose order the file has them."""
    names = sorted(program.parameters)
    if len(names) != len(tensors):
        raise Malformed(
            f"it has {len(tensors)} tensors, but the program beside it {len(names)} parameters"
        )
    arrays = dict(zip(names, tensors, strict=True))
    for name, array in arrays.items():
        if array.shape != program.parameters[name]:
            raise Malformed(
                f"its tensor {name!r} has the shape {array.shape}, but that of the program beside "
                f"it {program.parameters[name]}"
            )
    return arrays
