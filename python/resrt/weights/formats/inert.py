"""Placeholders for what pickles of weights name: containers and NumPy's arrays.

The unpickler calls these instead of what a pickle names. They check their arguments and execute
nothing.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from resrt.weights.formats.checkpoint import Array, Malformed, Refused, shaped, shorten
from resrt.weights.formats.unpickler import AllowList, LongText, Placeholder, checked_key

_DTYPES = {"f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1"}
_CHUNK = 1 << 20

Bytes: TypeAlias = "memoryview | bytes | bytearray"


class Items(dict[object, object], Placeholder):
    """A dict of some class: OrderedDict, defaultdict, Counter."""


class Inert(Placeholder):
    """An object that is not part of the weights and keeps nothing."""

    __slots__ = ()


class Settings(Placeholder):
    """An object of named values, such as the arguments of a training script."""

    __slots__ = ("values",)

    def __init__(self, *_: object) -> None:
        self.values: dict[object, object] = {}

    def build(self, state: object) -> None:
        """Receive the values."""
        if isinstance(state, dict):
            self.values = state


class Dtype(Placeholder):
    """numpy.dtype: plain little-endian numbers."""

    __slots__ = ("dtype", "refusal")

    def __init__(self, code: object, *_: object) -> None:
        self.refusal: Refused | None = None
        if not isinstance(code, str) or code not in _DTYPES:
            raise Refused(f"an array of dtype {shorten(code, 20)}")
        self.dtype: np.dtype[np.generic] = np.dtype(code)

    def refuse(self, refusal: Refused) -> None:
        """Remember it, so that the type cannot be used."""
        self.refusal = refusal

    def build(self, state: object) -> None:
        """Receive (version, byte order, ...)."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if not isinstance(order, str) or order not in ("<", "|", "="):
            raise Refused(f"an array of byte order {shorten(order, 20)}")


class NumpyArray(Placeholder):
    """numpy.ndarray: a view of its bytes in its shape."""

    __slots__ = ("array", "refusal")

    def __init__(self, *_: object) -> None:
        self.refusal: Refused | None = None
        self.array: Array | None = None

    def refuse(self, refusal: Refused) -> None:
        """Remember it: there is no array."""
        self.refusal = refusal

    def build(self, state: object) -> None:
        """Receive (version, shape, dtype, whether in Fortran's order, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise Malformed("an array's state does not have five items")
        _, shape, dtype, is_fortran, data = state
        self.fill(data, dtype, shape, fortran=is_fortran is True or is_fortran == 1)

    def fill(self, data: object, dtype: object, shape: object, *, fortran: bool) -> None:
        """Receive the array's bytes. Raises Malformed or Refused."""
        if not isinstance(dtype, Dtype) or not isinstance(data, (memoryview, bytes, bytearray)):
            raise Refused("an array that does not consist of bytes")
        if dtype.refusal is not None:
            raise dtype.refusal
        if len(data) % dtype.dtype.itemsize:
            raise Malformed(f"an array of {dtype.dtype} has {len(data)} bytes")
        self.array = shaped(np.frombuffer(data, dtype.dtype), shape, fortran=fortran)


def containers() -> AllowList:
    """Return the containers of a state dict, and what protocol 2 writes for bytes."""
    return {
        "collections.OrderedDict": _items,
        "__builtin__.bytes": _no_bytes,
        "__builtin__.tuple": same,
        "builtins.tuple": same,
    }


def numpy_arrays(limit: int) -> AllowList:
    """Return NumPy's arrays. Texts of at most `limit` bytes in total may be encoded for them."""
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
    """_codecs.encode as protocol 2 uses it: every character becomes the byte of its code."""

    def __init__(self, limit: int) -> None:
        self._left = limit

    def __call__(self, text: object, encoding: object) -> Bytes:
        if not isinstance(encoding, str) or encoding not in ("latin1", "latin-1"):
            raise Refused("a codec other than latin1")
        if not isinstance(text, (str, LongText)):
            raise Malformed("its pickle encodes something that is not a text")
        # The texts all fit into the file, unless one is encoded repeatedly.
        self._left -= len(text.utf8) if isinstance(text, LongText) else len(text)
        if self._left < 0:
            raise Malformed("its pickle encodes more text than the file has")
        if isinstance(text, LongText):
            return _encode_long(text.utf8)
        return _latin1(text)


def _encode_long(utf8: memoryview) -> bytearray:
    """Encode a text piece by piece, so that it never exists as a whole str."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    encoded = bytearray()
    try:
        for start in range(0, len(utf8), _CHUNK):
            piece = bytes(utf8[start : start + _CHUNK])
            encoded += _latin1(decoder.decode(piece, final=start + _CHUNK >= len(utf8)))
    except UnicodeDecodeError:
        raise Malformed("bytes in it are written as invalid text") from None
    return encoded


def _latin1(text: str) -> bytes:
    try:
        return text.encode("latin1")
    except UnicodeEncodeError:
        raise Malformed("bytes in it are written as text that is not latin1") from None


def _items(pairs: object = None) -> Items:
    """Replace OrderedDict, to which Python 2 passed a list of its items."""
    items = Items()
    if pairs is None:
        return items
    if not isinstance(pairs, list):
        raise Malformed("its pickle creates an OrderedDict from something other than items")
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise Malformed("its pickle creates an OrderedDict from something other than items")
        items[checked_key(pair[0])] = pair[1]
    pairs.clear()  # so that one long list cannot fill many dicts
    return items


def _no_bytes() -> bytes:
    """Replace a call of bytes without arguments, which protocol 2 writes for b""."""
    return b""


def same(value: object) -> object:
    """Replace a call that would copy its argument, such as tuple."""
    return value


def _from_buffer(data: object, dtype: object, shape: object, order: object) -> NumpyArray:
    array = NumpyArray()
    array.fill(data, dtype, shape, fortran=isinstance(order, str) and order == "F")
    return array


def inert(*_: object) -> Inert:
    """Replace a call whose result is not part of the weights."""
    return Inert()
