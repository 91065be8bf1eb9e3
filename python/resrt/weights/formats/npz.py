"""NumPy's .npz: a zip archive of .npy files, which may be compressed.

The .npy format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import re

import numpy as np

from resrt.errors import WeightsError
from resrt.weights.formats import zip_archive
from resrt.weights.formats.checkpoint import (
    Array,
    Checkpoint,
    Malformed,
    reported,
    shaped,
    shorten,
    shown,
    widen_bfloat16,
)

FORMAT = "NumPy's .npz"

# Arrays that are not views of the file may take this, in addition to twice the file's size.
_SLACK = 48 << 20
_LONGEST_HEADER = 4096
_MAGIC = b"\x93NUMPY"
_HEADER = re.compile(
    r"\{\s*'descr':\s*(?P<descr>'[^']*'|\[.*\]),\s*'fortran_order':\s*(?P<fortran>True|False),"
    r"\s*'shape':\s*\((?P<shape>[\dL,\s]*)\),?\s*\}\s*"
)
_DTYPE = re.compile(r"'[<|=]?(f8|f4|f2|i8|i4|i2|i1|u8|u4|u2|u1|b1|V2)'")


def recognises(content: memoryview) -> bool:
    """Return whether this is a zip archive whose first member is a .npy file."""
    name = zip_archive.first_name(content)
    return name is not None and name.endswith(".npy")


def read(content: memoryview, path: str) -> Checkpoint:
    """Return the arrays, views of the content if they are not compressed. Raises WeightsError.

    NumPy saves ml_dtypes' bfloat16 as two bytes without a type. It is widened to float32.
    """
    with reported(path, ".npz file"):
        left = 2 * len(content) + _SLACK
        arrays: dict[str, Array] = {}
        for name, member in zip_archive.members(content).items():
            array, size = _read_member(member, left, path)
            arrays[name.removesuffix(".npy")] = array
            left -= size
    return Checkpoint(FORMAT, arrays)


def _read_member(member: zip_archive.Member, left: int, path: str) -> tuple[Array, int]:
    """Return an array and the memory that it takes in addition to the file, at most `left`."""
    if not member.name.endswith(".npy"):
        raise Malformed(f"its member {shorten(member.name)} is not a .npy file")
    unpacked = member.size if member.compressed else 0
    _check_left(unpacked, left, path)
    array = _read_npy(member.read(), f"'{path}': {shown(member.name.removesuffix('.npy'))}")
    if array.dtype.kind == "V":
        _check_left(unpacked + 2 * array.nbytes, left, path)
        unpacked = 2 * array.nbytes
        array = widen_bfloat16(array.view(np.uint16))
    return array, unpacked


def _check_left(size: int, left: int, path: str) -> None:
    """Raise WeightsError, before memory is allocated, for a file that unpacks to far more."""
    if size > left:
        raise WeightsError(
            f"'{path}' unpacks to more than twice its size plus {_SLACK >> 20} MB, which weights "
            "never do; if it is valid, load it with numpy.load and write it with numpy.savez"
        )


def _read_npy(content: memoryview, what: str) -> Array:
    """Return the array of a .npy file as a view."""
    if bytes(content[:6]) != _MAGIC or len(content) < 12 or not 1 <= content[6] <= 3:
        raise Malformed(f"its member {shorten(what)} does not begin like a .npy file")
    start = 10 if content[6] == 1 else 12
    end = start + int.from_bytes(content[8:start], "little")
    if end > min(len(content), _LONGEST_HEADER):
        raise Malformed("an array's header is truncated or too long")
    header = str(content[start:end], "latin1")
    match = _HEADER.fullmatch(header)
    if match is None:
        raise Malformed(f"an array's header is {shorten(header)}")
    dtype = _DTYPE.fullmatch(match["descr"])
    if dtype is None:
        raise WeightsError(
            f"{what} has the unsupported dtype {shown(match['descr'][:40])}; resrt reads "
            "little-endian numbers, but no pickled objects: save plain arrays"
        )
    shape = [_size(size) for size in match["shape"].split(",") if size.strip()]
    itemsize = np.dtype(dtype[1]).itemsize
    if (len(content) - end) % itemsize:
        raise Malformed(f"an array of {dtype[1]} has {len(content) - end} bytes")
    flat = np.frombuffer(content[end:], np.dtype(dtype[1]).newbyteorder("<"))
    return shaped(flat, shape, fortran=match["fortran"] == "True")


def _size(text: str) -> int:
    digits = text.strip().removesuffix("L")  # Python 2's long integers
    if not digits.isdecimal() or len(digits) > 18:
        raise Malformed(f"an array's shape contains {shorten(text)}")
    return int(digits)
