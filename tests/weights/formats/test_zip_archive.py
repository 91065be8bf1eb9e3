"""Zip archives: reading their members, and rejecting invalid ones."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile

import pytest

from resrt.weights.formats import zip_archive
from resrt.weights.formats.checkpoint import Malformed


def archive(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytearray:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as opened:
        warnings.simplefilter("ignore")  # zipfile warns of two members with the same name
        for name, content in members:
            opened.writestr(name, content)
    return bytearray(file.getvalue())


def members(content: bytearray) -> dict[str, zip_archive.Member]:
    return zip_archive.members(memoryview(bytes(content)))


AB = [("a", b"x" * 100), ("b", b"y" * 50)]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_reads_what_zipfile_writes(method: int) -> None:
    found = members(archive([*AB, ("empty", b"")], method))
    assert {name: bytes(member.read()) for name, member in found.items()} == dict(
        [*AB, ("empty", b"")]
    )


def test_64_bit_sizes() -> None:
    """PyTorch and zipfile write the sizes of large files in an extra field."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened, opened.open("a", "w", force_zip64=True) as member:
        member.write(b"x" * 100)
    content = bytearray(file.getvalue())
    end = content.rfind(b"PK\x05\x06")
    count, size, start = struct.unpack_from("<HII", content, end + 10)
    entry = content[start : start + size]
    struct.pack_into("<II", entry, 20, 0xFFFFFFFF, 0xFFFFFFFF)
    struct.pack_into("<H", entry, 30, 28)
    struct.pack_into("<I", entry, 42, 0xFFFFFFFF)
    entry += struct.pack("<2H3Q", 1, 24, 100, 100, 0)
    end64 = struct.pack(
        "<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(entry), start
    )
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, start + len(entry), 1)
    tail = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    whole = content[:start] + entry + end64 + locator + tail
    assert bytes(members(whole)["a"].read()) == b"x" * 100
    for signature in (b"PK\x06\x06", b"PK\x06\x07"):
        with pytest.raises(Malformed, match="its zip64 directory is (missing|not at its stated)"):
            members(whole.replace(signature, b"____"))


def patched(offset: int, form: str, *values: int) -> bytearray:
    """Return an archive of two members with other values in the second one's directory entry."""
    content = archive(AB)
    struct.pack_into(form, content, content.rfind(b"PK\x01\x02") + offset, *values)
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive(AB)[:-1], "truncated"),
        (archive(AB)[:100], "truncated"),
        (archive(AB)[5:], "not at the position in its directory|is not within the file"),
        (archive([("a", b""), ("a", b"")]), "two members named 'a'"),
        (patched(42, "<I", 0), "'b' has a different name in its own header"),
        (patched(42, "<I", 7), "'b' is not at the position in its directory"),
        (patched(42, "<I", 0xFFFFFFF0), "'b' is not at the position in its directory"),
        (patched(20, "<II", 51, 51), "'b' overlaps what follows it"),
        (patched(20, "<II", 1 << 30, 1 << 30), "'b' extends beyond the end of the file"),
        (patched(20, "<II", 50, 51), "'b' has two different sizes"),
        (patched(8, "<H", 1), "'b' is encrypted"),
        (patched(10, "<H", 12), "its compression unsupported"),
        (patched(28, "<H", 9999), "a truncated or too long name"),
        (patched(0, "<I", 0), "fewer members than stated"),
        (patched(16, "<I", 0), "its member 'b' is damaged"),
    ],
)
def test_invalid_archives(content: bytearray, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        assert [member.read() for member in members(content).values()]


def test_members_that_share_bytes() -> None:
    """Two entries of the directory, with names of the same length, refer to one member."""
    content = archive([("a", b"x" * 1000), ("b", b"")])
    start = content.find(b"PK\x01\x02")
    second = content.rfind(b"PK\x01\x02")
    # The second member's own header is in the data of the first.
    inner = content[content.rfind(b"PK\x03\x04", 0, start) : start]
    content[100 : 100 + len(inner)] = inner
    struct.pack_into("<I", content, second + 42, 100)
    with pytest.raises(Malformed, match="'a' overlaps"):
        members(content)


def test_more_members_than_any_network_has() -> None:
    content = archive(AB)
    end = content.rfind(b"PK\x05\x06")
    struct.pack_into("<HH", content, end + 8, 60_000, 60_000)
    with pytest.raises(Malformed, match="60000 members; resrt reads archives of up to 20000"):
        members(content)


def test_first_name() -> None:
    assert zip_archive.first_name(memoryview(bytes(archive(AB)))) == "a"
    for content in (b"", b"PK\x03\x04", b"PK\x05\x06" + bytes(100)):
        assert zip_archive.first_name(memoryview(content)) is None
