"""Reads the members of zip archives, as far as weights files use them, as views of the file.

Python's zipfile trusts an archive's directory and creates objects for all of it. This module first
checks the number of members, that each lies within the file and overlaps no other, and that its own
header has the same name.

The format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from resrt.weights.formats.checkpoint import Malformed, shorten

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_CENTRAL_HEADER = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_ZIP64_LOCATOR = struct.Struct("<4sIQI")
_ZIP64_END = struct.Struct("<4sQ2H2I4Q")

_LOCAL = b"PK\x03\x04"
_LONGEST_COMMENT = 0xFFFF
_MEMBERS = 20_000  # more than any network has parameters and optimizer states
_LONGEST_NAME = 512
_ENCRYPTED = 0x1
_STORED, _DEFLATED = 0, 8
_CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class Member:
    """A file in the archive: its bytes as stored, and their size and checksum once decompressed."""

    name: str
    data: memoryview
    size: int
    crc: int
    compressed: bool

    def check(self, data: memoryview) -> memoryview:
        """Return the member's bytes if they match their checksum. Raises Malformed."""
        if zlib.crc32(data) != self.crc:
            raise Malformed(f"its member {shorten(self.name)} is damaged")
        return data

    def read(self) -> memoryview:
        """Return the member's bytes, decompressed and checked. Raises Malformed.

        This allocates `size` bytes if they are compressed, and nothing otherwise.
        """
        return self.check(self._decompress() if self.compressed else self.data)

    def _decompress(self) -> memoryview:
        plain = bytearray(self.size)
        filled = 0
        try:
            for piece in self._pieces():
                if filled + len(piece) <= self.size:
                    plain[filled : filled + len(piece)] = piece
                filled += len(piece)
                if filled > self.size:
                    break
        except zlib.error:
            raise Malformed(f"its member {shorten(self.name)} does not decompress") from None
        if filled != self.size:
            raise Malformed(
                f"its member {shorten(self.name)} does not decompress to {self.size} bytes"
            )
        return memoryview(plain)

    def _pieces(self) -> Iterator[bytes]:
        """Decompress piece by piece, with a limit for the size of each input and output."""
        stream = zlib.decompressobj(-zlib.MAX_WBITS)
        for start in range(0, len(self.data), _CHUNK):
            rest: memoryview | bytes = self.data[start : start + _CHUNK]
            while rest and not stream.eof:
                yield stream.decompress(rest, _CHUNK)
                rest = stream.unconsumed_tail
        yield stream.flush()


def first_name(content: memoryview) -> str | None:
    """Return the name of the first member if the file begins like an archive."""
    if len(content) < _LOCAL_HEADER.size or bytes(content[:4]) != _LOCAL:
        return None
    length = _LOCAL_HEADER.unpack_from(content)[9]
    return str(content[_LOCAL_HEADER.size :][: min(length, _LONGEST_NAME)], "utf-8", "replace")


def members(content: memoryview) -> dict[str, Member]:
    """Return the members of an archive by name. Raises Malformed."""
    count, directory, end = _directory(content)
    if count > _MEMBERS:
        raise Malformed(f"it has {count} members; resrt reads archives of up to {_MEMBERS}")
    found: dict[str, Member] = {}
    extents: list[tuple[int, int, str]] = []
    position = directory
    for _ in range(count):
        member, start, stop, position = _entry(content, position, end)
        if member.name in found:
            raise Malformed(f"it has two members named {shorten(member.name)}")
        found[member.name] = member
        extents.append((start, stop, member.name))
    _check_apart(extents, directory)
    return found


def _directory(content: memoryview) -> tuple[int, int, int]:
    """Return the number of members in the directory, and where it begins and ends."""
    tail_start = max(0, len(content) - _END.size - _LONGEST_COMMENT)
    tail = bytes(content[tail_start:])
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise Malformed("it is truncated: the directory at an archive's end is missing")
    _, disk, _, _, count, size, start, _ = _END.unpack_from(tail, at)
    end = tail_start + at
    if start == 0xFFFFFFFF or size == 0xFFFFFFFF or count == 0xFFFF:
        disk, count, size, start, end = _zip64_directory(content, end)
    if disk:
        raise Malformed("it is one of several parts of an archive")
    if start + size > end:
        raise Malformed("its directory is not within the file, which may be truncated")
    return count, start, start + size


def _zip64_directory(content: memoryview, end: int) -> tuple[int, int, int, int, int]:
    locator = end - _ZIP64_LOCATOR.size
    if locator < 0 or bytes(content[locator : locator + 4]) != b"PK\x06\x07":
        raise Malformed("its zip64 directory is missing")
    at = _ZIP64_LOCATOR.unpack_from(content, locator)[2]
    if at + _ZIP64_END.size > locator or bytes(content[at : at + 4]) != b"PK\x06\x06":
        raise Malformed("its zip64 directory is not at its stated position")
    _, _, _, _, disk, _, _, count, size, start = _ZIP64_END.unpack_from(content, at)
    return disk, count, size, start, at


def _entry(content: memoryview, position: int, end: int) -> tuple[Member, int, int, int]:
    """Return a member, its extent in the file, and where the directory's next entry begins."""
    if (
        position + _CENTRAL_HEADER.size > end
        or bytes(content[position : position + 4]) != b"PK\x01\x02"
    ):
        raise Malformed("its directory has fewer members than stated")
    header = _CENTRAL_HEADER.unpack_from(content, position)
    flags, method, crc, packed, size = header[3], header[4], header[7], header[8], header[9]
    (name_length, extra_length, comment_length), start = header[10:13], header[16]
    name_at = position + _CENTRAL_HEADER.size
    extra_at = name_at + name_length
    following = extra_at + extra_length + comment_length
    if name_length > _LONGEST_NAME or following > end:
        raise Malformed("its directory has a member with a truncated or too long name")
    raw_name = content[name_at:extra_at]
    name = str(raw_name, "utf-8", "replace")
    extra = content[extra_at : extra_at + extra_length]
    size, packed, start = _zip64_sizes(extra, (size, packed, start))
    if flags & _ENCRYPTED or method not in (_STORED, _DEFLATED):
        raise Malformed(f"its member {shorten(name)} is encrypted or its compression unsupported")
    if method == _STORED and packed != size:
        raise Malformed(f"its member {shorten(name)} has two different sizes")
    data_at = _data_start(content, start, raw_name)
    if data_at + packed > len(content):
        raise Malformed(f"its member {shorten(name)} extends beyond the end of the file")
    data = content[data_at : data_at + packed]
    member = Member(name, data, size, crc, method == _DEFLATED)
    return member, start, data_at + packed, following


def _zip64_sizes(extra: memoryview, sizes: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the sizes and the position; those beyond 32 bits are in the extra field."""
    wide = _extra_field(extra, 0x0001)
    found = []
    for size in sizes:
        if size == 0xFFFFFFFF and wide:
            size = next(wide, size)
        found.append(size)
    return found[0], found[1], found[2]


def _extra_field(extra: memoryview, wanted: int) -> Iterator[int] | None:
    """Return the 64-bit numbers of one of the extra fields."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        field = extra[4 : 4 + length]
        if kind == wanted:
            return iter(struct.unpack_from(f"<{len(field) // 8}Q", field))
        extra = extra[4 + length :]
    return None


def _data_start(content: memoryview, start: int, name: memoryview) -> int:
    """Return where a member's bytes begin: after its own header, which must have the same name."""
    if start + _LOCAL_HEADER.size > len(content) or bytes(content[start : start + 4]) != _LOCAL:
        raise Malformed(f"its member {_shown(name)} is not at the position in its directory")
    header = _LOCAL_HEADER.unpack_from(content, start)
    name_at = start + _LOCAL_HEADER.size
    if content[name_at : name_at + header[9]] != name:
        raise Malformed(f"its member {_shown(name)} has a different name in its own header")
    return name_at + int(header[9]) + int(header[10])


def _shown(name: memoryview) -> str:
    return shorten(str(name, "utf-8", "replace"))


def _check_apart(extents: list[tuple[int, int, str]], end: int) -> None:
    """Raise Malformed for members that share bytes, by which a small file could hold many."""
    extents.sort()
    stops = [start for start, _, _ in extents[1:]] + [end]
    for (_, stop, name), following in zip(extents, stops, strict=False):
        if stop > following:
            raise Malformed(f"its member {shorten(name)} overlaps what follows it")
