"""Zip archives, as far as weights come in them: members that lie in the file, found and checked.

Python's zipfile trusts an archive's directory and makes objects for all of it. Here, the directory
is checked first: how many members there are, that each lies in the file, apart from the others, and
that it is the one that its own header names.

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
_MEMBERS = 20_000  # more than any network has parameters, and the states of its optimizer
_LONGEST_NAME = 512
_ENCRYPTED = 0x1
_STORED, _DEFLATED = 0, 8
_CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class Member:
    """A file in the archive: its bytes as they lie, and what they should come to."""

    name: str
    data: memoryview
    size: int
    crc: int
    compressed: bool

    def check(self, data: memoryview) -> memoryview:
        """Return the member's bytes if they are as their checksum says. Raises Malformed."""
        if zlib.crc32(data) != self.crc:
            raise Malformed(f"the bytes of its member {shorten(self.name)} are damaged")
        return data

    def read(self) -> memoryview:
        """The member's bytes, decompressed where they are compressed, and checked.

        They take `size` bytes where they are compressed, none otherwise. Raises Malformed.
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
                f"its member {shorten(self.name)} does not decompress to the {self.size} bytes "
                "that it says"
            )
        return memoryview(plain)

    def _pieces(self) -> Iterator[bytes]:
        """Decompress piece by piece, each of a bounded size, and out of a bounded piece."""
        stream = zlib.decompressobj(-zlib.MAX_WBITS)
        for start in range(0, len(self.data), _CHUNK):
            rest: memoryview | bytes = self.data[start : start + _CHUNK]
            while rest and not stream.eof:
                yield stream.decompress(rest, _CHUNK)
                rest = stream.unconsumed_tail
        yield stream.flush()


def first_name(content: memoryview) -> str | None:
    """The name of the file's first member, if the file begins as an archive does."""
    if len(content) < _LOCAL_HEADER.size or bytes(content[:4]) != _LOCAL:
        return None
    length = _LOCAL_HEADER.unpack_from(content)[9]
    return str(content[_LOCAL_HEADER.size :][: min(length, _LONGEST_NAME)], "utf-8", "replace")


def members(content: memoryview) -> dict[str, Member]:
    """The members of an archive by name. Raises Malformed."""
    count, directory, end = _directory(content)
    if count > _MEMBERS:
        raise Malformed(f"it has {count} members; resrt reads archives of up to {_MEMBERS}")
    found: dict[str, Member] = {}
    extents: list[tuple[int, int, str]] = []
    position = directory
    for _ in range(count):
        member, start, stop, position = _entry(content, position, end)
        if member.name in found:
            raise Malformed(f"it has two members {shorten(member.name)}")
        found[member.name] = member
        extents.append((start, stop, member.name))
    _check_apart(extents, directory)
    return found


def _directory(content: memoryview) -> tuple[int, int, int]:
    """How many members the directory has, and where it begins and ends."""
    tail_start = max(0, len(content) - _END.size - _LONGEST_COMMENT)
    tail = bytes(content[tail_start:])
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise Malformed("it is cut off: the directory that ends an archive is missing")
    _, disk, _, _, count, size, start, _ = _END.unpack_from(tail, at)
    end = tail_start + at
    if start == 0xFFFFFFFF or size == 0xFFFFFFFF or count == 0xFFFF:
        disk, count, size, start, end = _zip64_directory(content, end)
    if disk:
        raise Malformed("it is one part of an archive in several parts")
    if start + size > end:
        raise Malformed("its directory does not lie in the file, as where the file is cut off")
    return count, start, start + size


def _zip64_directory(content: memoryview, end: int) -> tuple[int, int, int, int, int]:
    locator = end - _ZIP64_LOCATOR.size
    if locator < 0 or bytes(content[locator : locator + 4]) != b"PK\x06\x07":
        raise Malformed("the directory of so large an archive is missing")
    at = _ZIP64_LOCATOR.unpack_from(content, locator)[2]
    if at + _ZIP64_END.size > locator or bytes(content[at : at + 4]) != b"PK\x06\x06":
        raise Malformed("the directory of so large an archive is not where it says")
    _, _, _, _, disk, _, _, count, size, start = _ZIP64_END.unpack_from(content, at)
    return disk, count, size, start, at


def _entry(content: memoryview, position: int, end: int) -> tuple[Member, int, int, int]:
    """One member of the directory, its extent in the file, and where the next one begins."""
    if (
        position + _CENTRAL_HEADER.size > end
        or bytes(content[position : position + 4]) != b"PK\x01\x02"
    ):
        raise Malformed("its directory has fewer members than it says")
    header = _CENTRAL_HEADER.unpack_from(content, position)
    flags, method, crc, packed, size = header[3], header[4], header[7], header[8], header[9]
    name_length, extra_length, comment_length, start = (
        header[10],
        header[11],
        header[12],
        header[16],
    )
    name_at = position + _CENTRAL_HEADER.size
    extra_at = name_at + name_length
    following = extra_at + extra_length + comment_length
    if name_length > _LONGEST_NAME or following > end:
        raise Malformed("its directory has a member whose name does not end")
    raw_name = content[name_at:extra_at]
    name = str(raw_name, "utf-8", "replace")
    extra = content[extra_at : extra_at + extra_length]
    size, packed, start = _zip64_sizes(extra, (size, packed, start))
    if flags & _ENCRYPTED or method not in (_STORED, _DEFLATED):
        raise Malformed(f"its member {shorten(name)} is encrypted or compressed in a rare way")
    if method == _STORED and packed != size:
        raise Malformed(f"its member {shorten(name)} has two sizes")
    data_at = _data_start(content, start, raw_name)
    if data_at + packed > len(content):
        raise Malformed(f"its member {shorten(name)} goes on behind the end of the file")
    data = content[data_at : data_at + packed]
    member = Member(name, data, size, crc, method == _DEFLATED)
    return member, start, data_at + packed, following


def _zip64_sizes(extra: memoryview, sizes: tuple[int, int, int]) -> tuple[int, int, int]:
    """The member's sizes and place, those from the extra field that 32 bits cannot hold."""
    wide = _extra_field(extra, 0x0001)
    found = []
    for size in sizes:
        if size == 0xFFFFFFFF and wide:
            size = next(wide, size)
        found.append(size)
    return found[0], found[1], found[2]


def _extra_field(extra: memoryview, wanted: int) -> Iterator[int] | None:
    """The 64-bit numbers of one of the extra fields."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        field = extra[4 : 4 + length]
        if kind == wanted:
            return iter(struct.unpack_from(f"<{len(field) // 8}Q", field))
        extra = extra[4 + length :]
    return None


def _data_start(content: memoryview, start: int, name: memoryview) -> int:
    """Where a member's bytes begin, behind its own header, which must name it too."""
    if start + _LOCAL_HEADER.size > len(content) or bytes(content[start : start + 4]) != _LOCAL:
        raise Malformed(f"its member {_shown(name)} is not where its directory says")
    header = _LOCAL_HEADER.unpack_from(content, start)
    name_at = start + _LOCAL_HEADER.size
    if content[name_at : name_at + header[9]] != name:
        raise Malformed(f"its member {_shown(name)} has another name in its own header")
    return name_at + int(header[9]) + int(header[10])


def _shown(name: memoryview) -> str:
    return shorten(str(name, "utf-8", "replace"))


def _check_apart(extents: list[tuple[int, int, str]], end: int) -> None:
    """Refuse members that share bytes: a small file could hold any number of large ones."""
    extents.sort()
    stops = [start for start, _, _ in extents[1:]] + [end]
    for (_, stop, name), following in zip(extents, stops, strict=False):
        if stop > following:
            raise Malformed(f"its member {shorten(name)} overlaps what follows it")
