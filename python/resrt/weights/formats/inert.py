"""What stands in for the names that pickles of weights ask for: containers, and NumPy's arrays.

An unpickler (unpickler.py) calls these in place of what a pickle names. They check what they are
given, and they run nothing.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from resrt.weights.formats.checkpoint import Array, Malformed, shaped
from resrt.weights.formats.unpickler import AllowList, LongText, Refused, StandIn, checked_key

_DTYPES = {"f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1"}
_CHUNK = 1 << 20

Bytes: TypeAlias = "memoryview | bytes | bytearray"


class Items(dict[object, object], StandIn):
    """A dict of some class: OrderedDict, defaultdict, Counter."""


class Inert(StandIn):
    """An object that is beside the weights, of which nothing is kept."""

    __slots__ = ()


class Dtype(StandIn):
    """numpy.dtype: the plain numbers, little-endian."""

    __slots__ = ("dtype",)

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or code not in _DTYPES:
            what = repr(code[:20]) if isinstance(code, str) else "none that has a name"
            raise Refused(f"an array of dtype {what}")
        self.dtype: np.dtype[np.generic] = np.dtype(code)

    def build(self, state: object) -> None:
        """Take (version, byte order, ...)."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if not isinstance(order, str) or order not in ("<", "|", "="):
            what = repr(order[:20]) if isinstance(order, str) else "none that has a name"
            raise Refused(f"an array of byte order {what}")


class NumpyArray(StandIn):
    """numpy.ndarray: its bytes, and as many as its shape says."""

    __slots__ = ("array",)

    def __init__(self, *_: object) -> None:
        self.array: Array | None = None

    def build(self, state: object) -> None:
        """Take (version, shape, dtype, whether in the order of Fortran, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise Malformed("an array's state is not five things")
        _, shape, dtype, is_fortran, data = state
        self.fill(data, dtype, shape, fortran=is_fortran is True or is_fortran == 1)

    def fill(self, data: object, dtype: object, shape: object, *, fortran: bool) -> None:
        """Take the bytes that the pickle has for the array. Raises Malformed."""
        if not isinstance(dtype, Dtype) or not isinstance(data, (memoryview, bytes, bytearray)):
            raise Refused("an array that is not made of bytes")
        if len(data) % dtype.dtype.itemsize:
            raise Malformed(f"an array of {dtype.dtype} has {len(data)} bytes")
        self.array = shaped(np.frombuffer(data, dtype.dtype), shape, fortran=fortran)


def containers() -> AllowList:
    """The containers that hold a state dict, and how protocol 2 writes bytes."""
    return {
        "collections.OrderedDict": _items,
        "__builtin__.bytes": _no_bytes,
        "__builtin__.tuple": same,
        "builtins.tuple": same,
    }


def numpy_arrays(limit: int) -> AllowList:
    """NumPy's arrays, which from texts may make bytes up to a limit."""
    known: dict[str, Callable[..., object] | None] = {
        "_codecs.encode": _Encoder(limit),
        "numpy.ndarray": NumpyArray,
        "numpy.dtype": Dtype,
    }
    for core in ("numpy.core", "numpy._core"):
        known[f"{core}.multiarray._reconstruct"] = NumpyArray
        known[f"{core}.numeric._frombuffer"] = _from_buffer
    return known


class _Encoder:
    """_codecs.encode, as protocol 2 has it: bytes from a text that has them for code points."""

    def __init__(self, limit: int) -> None:
        self._left = limit

    def __call__(self, text: object, encoding: object) -> Bytes:
        if not isinstance(encoding, str) or encoding not in ("latin1", "latin-1"):
            raise Refused("a codec other than latin1")
        if not isinstance(text, (str, LongText)):
            raise Malformed("its pickle encodes what is no text")
        # Each text is in the file once. Encoded over and over, they would not fit into it.
        self._left -= len(text.utf8) if isinstance(text, LongText) else len(text)
        if self._left < 0:
            raise Malformed("its pickle encodes more text than it has")
        if isinstance(text, LongText):
            return _encode_long(text.utf8)
        return _latin1(text)


def _encode_long(utf8: memoryview) -> bytearray:
    """Encode a text piece by piece, so that it is never held whole as a str."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    encoded = bytearray()
    try:
        for start in range(0, len(utf8), _CHUNK):
            piece = bytes(utf8[start : start + _CHUNK])
            encoded += _latin1(decoder.decode(piece, final=start + _CHUNK >= len(utf8)))
    except UnicodeDecodeError:
        raise Malformed("bytes in it are written as what is no text") from None
    return encoded


def _latin1(text: str) -> bytes:
    try:
        return text.encode("latin1")
    except UnicodeEncodeError:
        raise Malformed("bytes in it are written as a text that has none for each") from None


def _items(pairs: object = None) -> Items:
    """OrderedDict: mostly empty, to be filled; Python 2 gave it a list of its items."""
    items = Items()
    if pairs is None:
        return items
    if not isinstance(pairs, list):
        raise Malformed("its pickle makes an OrderedDict of what are no items")
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise Malformed("its pickle makes an OrderedDict of what are no items")
        items[checked_key(pair[0])] = pair[1]
    pairs.clear()  # they are moved: one long list does not fill any number of dicts
    return items


def _no_bytes() -> bytes:
    """How protocol 2 writes b"": a call of bytes, without arguments."""
    return b""


def same(value: object) -> object:
    """A call that would copy what it is given, as of tuple."""
    return value


def _from_buffer(data: object, dtype: object, shape: object, order: object) -> NumpyArray:
    array = NumpyArray()
    array.fill(data, dtype, shape, fortran=isinstance(order, str) and order == "F")
    return array


def inert(*_: object) -> Inert:
    """A call whose result is beside the weights."""
    return Inert()
