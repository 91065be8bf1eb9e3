"""PaddlePaddle's .pdparams: a pickle of a dict of NumPy arrays, by paddle.save.

A pickle is a program. This one is run by an unpickler that knows nothing to call but what makes
containers, and stand-ins for NumPy's arrays and dtypes that check what they are given: a name
outside that list ends the reading.
"""

from __future__ import annotations

import io
import math
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np

from resrt.errors import WeightsError
from resrt.weights.checkpoint import Array, Checkpoint, widen_bfloat16

FORMAT = "PaddleClas's .pdparams"

# paddle.save's table of parameter names, beside the parameters.
_NAME_TABLE = "StructuredToParameterName@@"
_DTYPES = {"f8", "f4", "f2", "i8", "i4", "i2", "i1", "u2", "u1", "b1"}


def recognises(content: memoryview) -> bool:
    """Whether it begins as a binary pickle does."""
    return len(content) > 2 and content[0] == 0x80 and 2 <= content[1] <= 5


def read(content: memoryview, path: str) -> Checkpoint:
    """Every array by its name; bfloat16 is widened to float32. Raises WeightsError."""
    try:
        state = _Unpickler(io.BytesIO(content)).load()
    except _Refused as error:
        raise WeightsError(
            f"'{path}' is a pickle that asks for {error}, which weights do not need; it was not "
            "executed. Do not trust this file"
        ) from None
    except Exception as error:
        # A malformed pickle fails in whatever way its bytes make it fail.
        raise WeightsError(
            f"'{path}' is no sound .pdparams file ({type(error).__name__}: {error}); "
            "copy or download it again"
        ) from None
    if not isinstance(state, dict):
        raise WeightsError(
            f"'{path}' holds a {type(state).__name__}, not a dict of parameters; save it with "
            "paddle.save(network.state_dict(), path)"
        )
    arrays: dict[str, Array] = {}
    for name, value in state.items():
        if name == _NAME_TABLE:
            continue
        array = _to_array(value)
        if not isinstance(name, str) or array is None:
            raise WeightsError(
                f"'{path}' has an entry {name!r} that is no array of a named parameter but a "
                f"{type(value).__name__}; save the network's state_dict alone"
            )
        # Paddle keeps bfloat16 in NumPy's uint16.
        arrays[name] = widen_bfloat16(array) if array.dtype == np.uint16 else array
    return Checkpoint(FORMAT, arrays)


def _to_array(value: object) -> Array | None:
    if isinstance(value, tuple) and len(value) == 2:  # (parameter's name, array), in some versions
        value = value[1]
    return value.array if isinstance(value, _Array) else None


class _Refused(Exception):
    """A pickle that asks for something outside the list."""


class _Dtype:
    """Stands in for numpy.dtype: the plain numbers, little-endian."""

    def __init__(self, code: object, *_: object) -> None:
        if code not in _DTYPES:
            raise _Refused(f"an array of dtype {code!r}")
        self.dtype = np.dtype(str(code))

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", "|", "="):
            raise _Refused(f"an array of byte order {state[1]!r}")


class _Array:
    """Stands in for numpy.ndarray, and checks that its bytes are as many as its shape says."""

    array: Array

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, data = state
        self.fill(data, dtype, shape, "F" if is_fortran else "C")

    def fill(self, data: object, dtype: object, shape: object, order: str) -> None:
        if not isinstance(dtype, _Dtype) or not isinstance(data, (bytes, bytearray)):
            raise _Refused("an array that is not made of bytes")
        if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise ValueError(f"an array has the shape {shape!r}")
        if math.prod(shape) * dtype.dtype.itemsize != len(data):
            raise ValueError(f"an array of shape {shape} has {len(data)} bytes")
        flat = np.frombuffer(data, dtype.dtype)
        self.array = flat.reshape(shape, order="F" if order == "F" else "C")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        def reconstruct(*_: object) -> _Array:
            return _Array()

        def from_buffer(data: object, dtype: object, shape: object, order: str) -> _Array:
            array = _Array()
            array.fill(data, dtype, shape, order)
            return array

        def encode(text: str, encoding: str) -> bytes:
            # How protocol 2 writes bytes.
            if encoding not in ("latin1", "latin-1"):
                raise _Refused(f"_codecs.encode to {encoding!r}")
            return text.encode("latin1")

        def no_bytes() -> bytes:
            # How protocol 2 writes b"": a call of bytes, without arguments.
            return b""

        # Made anew for each file, so that no file leaves a trace in the next one's reading.
        allowed: dict[tuple[str, str], Any] = {
            ("_codecs", "encode"): encode,
            ("collections", "OrderedDict"): OrderedDict,
            ("__builtin__", "bytes"): no_bytes,
            ("builtins", "tuple"): tuple,
            ("__builtin__", "tuple"): tuple,
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): _Dtype,
        }
        for numpy_core in ("numpy.core", "numpy._core"):
            allowed[f"{numpy_core}.multiarray", "_reconstruct"] = reconstruct
            allowed[f"{numpy_core}.numeric", "_frombuffer"] = from_buffer
        try:
            return allowed[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None
