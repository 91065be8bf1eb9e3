"""TensorRTx's .wts (https://github.com/wang-xinyu/tensorrtx): a text with one array per line.

The first line is the number of arrays. Every other line has a name, the number of values, and each
value as eight hexadecimal digits, the big-endian bits of a float32. Shapes are not stored.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from resrt.errors import WeightsError
from resrt.weights.formats.checkpoint import Array, Checkpoint, Malformed, reported, shorten

FORMAT = "TensorRTx's .wts"

_COUNT = re.compile(rb"(\d{1,6})\s*\n")
_START = re.compile(rb"\s*([^\s]{1,512})[ \t]+(\d{1,12})[ \t]*")
_END = re.compile(rb"[ \t\r]*(?:\n|\Z)")
_BEGINNING = re.compile(rb"\d{1,6}\s*\n[^\s]{1,512}[ \t]+\d{1,12}[ \t]+[0-9a-fA-F]{8}")
_LONGEST_START = 1024
_ARRAYS = 20_000  # more than any network has parameters
_PITCH = 9  # a number's eight digits and the space before it
_CHUNK = 1 << 16  # numbers


def recognises(content: memoryview) -> bool:
    """Return whether this begins with a number of arrays and the first array."""
    return _BEGINNING.match(bytes(content[:_LONGEST_START])) is not None


def read(content: memoryview, path: str) -> Checkpoint:
    """Return the arrays, each with one dimension. Raises WeightsError."""
    with reported(path, ".wts file"):
        count, position = _first_line(content)
        arrays: dict[str, Array] = {}
        for index in range(count):
            name, array, position = _line(content, position, f"array {index + 1} of {count}")
            if name in arrays:
                raise Malformed(f"it has two arrays named {shorten(name)}")
            arrays[name] = array
        if bytes(content[position : position + _LONGEST_START]).strip():
            raise Malformed(f"it has more content after the stated {count} arrays")
    if any(name.endswith("._mean") for name in arrays):
        raise WeightsError(
            f"'{path}' has PaddlePaddle's names, but a .wts file does not say if its matrix is "
            "transposed; use the .pdparams file that it was made from"
        )
    return Checkpoint(FORMAT, arrays, flat=True)


def _first_line(content: memoryview) -> tuple[int, int]:
    match = _COUNT.match(bytes(content[:_LONGEST_START]))
    if match is None:
        raise Malformed("its first line is not the number of its arrays")
    if int(match[1]) > _ARRAYS:
        raise Malformed(f"it has {int(match[1])} arrays; resrt reads up to {_ARRAYS}")
    return int(match[1]), match.end()


def _line(content: memoryview, position: int, what: str) -> tuple[str, Array, int]:
    """Return the name and the array on a line, and where the line ends."""
    match = _START.match(bytes(content[position : position + _LONGEST_START]))
    if match is None:
        if position + _LONGEST_START > len(content):
            raise Malformed(f"it is truncated: {what} is missing")
        raise Malformed(f"{what} does not begin with a name and the number of values")
    name, size = str(match[1], "utf-8", "replace"), int(match[2])
    # The pattern has matched the space before the first number, too.
    start = position + match.end() - (1 if size else 0)
    stop = start + size * _PITCH
    if stop > len(content):
        raise Malformed(
            f"it is truncated: {what}, {shorten(name)}, ends at byte {stop} of {len(content)}"
        )
    end = _END.match(bytes(content[stop : stop + _LONGEST_START]))
    if end is None:
        raise Malformed(f"{what}, {shorten(name)}, has more than {size} numbers of 8 digits")
    return name, _numbers(content[start:stop], size, name), stop + end.end()


def _numbers(text: memoryview, size: int, name: str) -> npt.NDArray[np.float32]:
    """Return the numbers of a line. Decoding by pieces takes little memory besides the array's."""
    array = np.empty(size, np.float32)
    for first in range(0, size, _CHUNK):
        some = text[first * _PITCH : (first + _CHUNK) * _PITCH]
        characters = np.frombuffer(some, np.uint8).reshape(-1, _PITCH)
        try:
            numbers = bytes.fromhex(characters[:, 1:].tobytes().decode("ascii"))
        except ValueError:
            numbers = b""
        # fromhex ignores spaces, so a number that contains one yields too few bytes.
        if len(numbers) != 4 * len(characters) or (characters[:, 0] != ord(" ")).any():
            raise Malformed(f"{shorten(name)} has a number that is not 8 hexadecimal digits")
        array[first : first + _CHUNK] = np.frombuffer(numbers, ">f4")
    return array
