"""PaddlePaddle's .pdparams: a pickle of a dict of NumPy arrays, by paddle.save."""

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
from resrt.weights.formats.unpickler import Refused, Unpickler

FORMAT = "PaddleClas's .pdparams"

_LONG1 = 0x8A  # the opcode of an integer
# paddle.save's table of parameter names, beside the parameters.
_NAME_TABLE = "StructuredToParameterName@@"


def recognises(content: memoryview) -> bool:
    """Whether it begins as a binary pickle does, but with no number, as PyTorch's did."""
    return len(content) > 2 and content[0] == 0x80 and 2 <= content[1] <= 5 and content[2] != _LONG1


def read(content: memoryview, path: str) -> Checkpoint:
    """Every array by its name, a view of the content where its bytes lie there.

    bfloat16 is widened to float32. Raises WeightsError.
    """
    known = {**containers(), **numpy_arrays(limit=len(content))}
    with reported(path, ".pdparams file"):
        try:
            state = Unpickler(content, known).load()
        except Refused as error:
            raise WeightsError(
                f"'{path}' is a pickle that asks for {error}, which weights do not need; it was "
                "not executed. Do not trust this file"
            ) from None
        if not isinstance(state, dict):
            raise WeightsError(
                f"'{path}' holds a {type(state).__name__}, not a dict of parameters; save it with "
                "paddle.save(network.state_dict(), path)"
            )
        arrays = _arrays(state, path)
        check_total((array.nbytes for array in arrays.values()), content)
    # Paddle keeps bfloat16 in NumPy's uint16.
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
            value = value[1]  # (parameter's name, array), in some versions
        array = value.array if isinstance(value, NumpyArray) else None
        if not isinstance(name, str) or array is None:
            raise WeightsError(
                f"'{path}' has an entry {shorten(name)} that is no array of a named parameter but "
                f"a {type(value).__name__}; save the network's state_dict alone"
            )
        arrays[name] = array
    return arrays
