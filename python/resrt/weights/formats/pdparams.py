"""PaddlePaddle's .pdparams: a pickle of a dict of NumPy arrays, written by paddle.save."""

from __future__ import annotations

import numpy as np

from resrt.errors import WeightsError
from resrt.weights.formats.checkpoint import (
    Array,
    Checkpoint,
    check_total,
    reported,
    shorten,
    widen_bfloat16,
)
from resrt.weights.formats.inert import NumpyArray, containers, numpy_arrays
from resrt.weights.formats.unpickler import Unpickler

FORMAT = "PaddleClas's .pdparams"

_LONG1 = 0x8A  # the opcode of an integer
# paddle.save adds this table of parameter names to the parameters.
_NAME_TABLE = "StructuredToParameterName@@"


def recognises(content: memoryview) -> bool:
    """Return whether this is a binary pickle, but not of a number as in PyTorch's old format."""
    return len(content) > 2 and content[0] == 0x80 and 2 <= content[1] <= 5 and content[2] != _LONG1


def read(content: memoryview, path: str) -> Checkpoint:
    """Return the arrays, views of the content where possible. Raises WeightsError.

    bfloat16 is widened to float32.
    """
    known = {**containers(), **numpy_arrays(limit=len(content))}
    with reported(path, ".pdparams file"):
        state = Unpickler(content, known).load()
        if not isinstance(state, dict):
            raise WeightsError(
                f"'{path}' contains a {type(state).__name__}, not a dict of parameters; save it "
                "with paddle.save(network.state_dict(), path)"
            )
        arrays = _arrays(state, path)
        check_total((array.nbytes for array in arrays.values()), content)
    # Paddle stores bfloat16 as NumPy's uint16.
    for name, array in arrays.items():
        if array.dtype == np.uint16:
            arrays[name] = widen_bfloat16(array)
    return Checkpoint(FORMAT, arrays)


def _arrays(state: dict[object, object], path: str) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for name, value in state.items():
        if name == _NAME_TABLE:
            continue
        if isinstance(value, tuple) and len(value) == 2:
            value = value[1]  # some versions write (parameter's name, array)
        array = value.array if isinstance(value, NumpyArray) else None
        if not isinstance(name, str) or array is None:
            raise WeightsError(
                f"'{path}' has an entry {shorten(name)} that is not a parameter's array but a "
                f"{type(value).__name__}; save only the network's state_dict"
            )
        arrays[name] = array
    return arrays
