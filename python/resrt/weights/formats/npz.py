"""NumPy's .npz: a zip archive, compressed or not, of one .npy file for each array.

The format of .npy: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
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
    widen_bfloat16,
)

FORMAT = "NumPy's .npz"

# What arrays that do not lie in the file may take, beside twice its size.
_SLACK = 48 << 20
_LONGEST_HEADER = 4096
_MAGIC = b"\x93NUMPY"
_HEADER = re.compile(
    r"\{\s*'descr':\s*(?P<descr>'[^']*'|\[.*\]),\s*'fortran_order':\s*(?P<fortran>True|False),"
    r"\s*'shape':\s*\((?P<shape>[\dL,\s]*)\),?\s*\}\s*"
)
_DTYPE = re.compile(r"'[<|=]?(f8|f4|f2|i8|i4|i2|i1|u8|u4|u2|u1|b1|V2)'")


def recognises(content: memoryview) -> bool:
    """Whether it begins as a zip archive whose first member is an array."""
    name = zip_archive.first_name(content)
    return name is not None and name.endswith(".npy")


def read(content: memoryview, path: str) -> Checkpoint:
    """Every array by its name, a view of the content where it is not compressed.

    Two bytes of no type are bfloat16, as NumPy saves ml_dtypes' arrays; they are widened to
    float32. Raises WeightsError.
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
    """An array, and what it takes beside the file, if that is not more than what is left."""
    if not member.name.endswith(".npy"):
        raise Malformed(f"its member {shorten(member.name)} is no .npy file")
    unpacked = member.size if member.compressed else 0
    _check_left(unpacked, left, path)
    array = _read_npy(member.read(), f"'{path}': {member.name.removesuffix('.npy')}")
    if array.dtype.kind == "V":
        _check_left(unpacked + 2 * array.nbytes, left, path)
        unpacked = 2 * array.nbytes
        array = widen_bfloat16(array.view(np.uint16))
    return array, unpacked


def _check_left(size: int, left: int, path: str) -> None:
    """Refuse before memory is taken what unpacks to far more than the file has."""
    if size > left:
        raise WeightsError(
            f"'{path}' unpacks to more than twice its size and {_SLACK >> 20} MB, as no trained "
            "weights do; if it is sound, load it with numpy.load and write it with numpy.savez"
        )


def _read_npy(content: memoryview, what: str) -> Array:
    """The array of a .npy file, a view of it."""
    if bytes(content[:6]) != _MAGIC or len(content) < 12 or not 1 <= content[6] <= 3:
        raise Malformed(f"its member {shorten(what)} does not begin as a .npy file does")
    start = 10 if content[6] == 1 else 12
    end = start + int.from_bytes(content[8:start], "little")
    if end > min(len(content), _LONGEST_HEADER):
        raise Malformed("the header of an array in it does not end")
    header = str(content[start:end], "latin1")
    match = _HEADER.fullmatch(header)
    if match is None:
        raise Malformed(f"the header of an array in it is {shorten(header)}")
    dtype = _DTYPE.fullmatch(match["descr"])
    if dtype is None:
        raise WeightsError(
            f"{what} has the dtype {match['descr'][:40]}; resrt reads little-endian numbers, and "
            "nothing that is pickled: save plain arrays"
        )
    shape = [_size(size) for size in match["shape"].split(",") if size.strip()]
    itemsize = np.dtype(dtype[1]).itemsize
    if (len(content) - end) % itemsize:
        raise Malformed(f"an array of {dtype[1]} in it has {len(content) - end} bytes")
    flat = np.frombuffer(content[end:], np.dtype(dtype[1]).newbyteorder("<"))
    return shaped(flat, shape, fortran=match["fortran"] == "True")


def _size(text: str) -> int:
    digits = text.strip().removesuffix("L")  # Python 2's long integers
    if not digits.isdecimal() or len(digits) > 18:
        raise Malformed(f"an array's shape has {shorten(text)} in it")
    return int(digits)
