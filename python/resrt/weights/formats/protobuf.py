"""Protocol Buffers' wire format (https://protobuf.dev/programming-guides/encoding/), read in place.

A message is a sequence of numbered fields. The caller knows the schema, which says what a number
means and whether its bytes are a text, an array or a message. Values are views of the content:
nothing is copied, and every length is compared with the available bytes before it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from resrt.weights.formats.checkpoint import Malformed

# A varint, or the bytes of anything else.
Value: TypeAlias = int | memoryview

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10
LONGEST_NAME = 1 << 12
_LONGEST_LIST = 1 << 16
_PIECE = 1 << 20


class Wire:
    """Reads messages with at most `most_fields` fields in total, which limits the time."""

    def __init__(self, most_fields: int) -> None:
        self._most_fields = self._left = most_fields

    def fields(self, message: Value) -> Iterator[tuple[int, Value]]:
        """Yield the numbers and the values of a message's fields."""
        content = as_bytes(message)
        at, end = 0, len(content)
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise Malformed(f"it has more than {self._most_fields} fields")
            tag, at = _varint(content, at)
            number, wire_type = tag >> 3, tag & 7
            if wire_type == _VARINT:
                value, at = _varint(content, at)
                yield number, value
                continue
            if wire_type == _BYTES:
                size, at = _varint(content, at)
            elif wire_type in (_FIXED32, _FIXED64):
                size = 4 if wire_type == _FIXED32 else 8
            else:
                raise Malformed(f"field {number} has the unsupported wire type {wire_type}")
            if size > end - at:
                raise Malformed(f"field {number} has {size} bytes, but only {end - at} are left")
            yield number, content[at : at + size]
            at += size


def as_bytes(value: Value) -> memoryview:
    """Return the bytes of a field. Raises Malformed for a varint."""
    if isinstance(value, int):
        raise Malformed("a field is a number instead of bytes")
    return value


def as_text(value: Value, longest: int = LONGEST_NAME) -> str:
    """Return the text of a field. Raises Malformed if it has more than `longest` bytes."""
    content = as_bytes(value)
    if len(content) > longest:
        raise Malformed(f"a text has {len(content)} bytes")
    return bytes(content).decode(errors="replace")


def as_int(value: Value) -> int:
    """Return the signed number of a field. Raises Malformed for anything but a varint."""
    if not isinstance(value, int):
        raise Malformed("a field is bytes instead of a number")
    return value - (1 << 64) if value >> 63 else value


def as_ints(value: Value) -> list[int]:
    """Return one number of a repeated field, or several packed ones."""
    if isinstance(value, int):
        return [as_int(value)]
    if len(value) > _LONGEST_LIST:
        raise Malformed(f"a list of numbers has {len(value)} bytes")
    return [int(number) for piece in varints(value) for number in piece]


def varints(packed: memoryview) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the numbers of a packed field in pieces, which limits the memory."""
    begin = 0
    while begin < len(packed):
        octets = np.frombuffer(packed[begin : begin + _PIECE], np.uint8)
        ends = np.flatnonzero(octets < 0x80)
        if not ends.size:
            raise Malformed("a number does not end")
        starts = np.concatenate(([0], ends[:-1] + 1))
        lengths = ends - starts + 1
        if lengths.max() > _LONGEST_VARINT:
            raise Malformed("a number has more than 64 bits")
        numbers = np.zeros(ends.size, np.uint64)
        for place in range(int(lengths.max())):
            reaches = np.flatnonzero(lengths > place)
            septets = octets[starts[reaches] + place].astype(np.uint64) & np.uint64(0x7F)
            numbers[reaches] |= septets << np.uint64(7 * place)
        yield numbers.view(np.int64)
        begin += int(ends[-1]) + 1


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    number = 0
    for place, octet in enumerate(content[at : at + _LONGEST_VARINT]):
        number |= (octet & 0x7F) << 7 * place
        if octet < 0x80:
            return number & 0xFFFF_FFFF_FFFF_FFFF, at + place + 1
    raise Malformed("a number does not end")
