"""NumPy's .npz: files that NumPy writes, and invalid ones."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

import resrt
from resrt import weights
from support.samples import assert_holds, bfloat16, bounded_memory, numbers


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.npz"


def npy(header: str, data: bytes = b"", version: int = 1) -> bytes:
    size = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes((version, 0)) + size + header.encode() + data


def described(descr: str = "'<f4'", shape: str = "(2,)", fortran: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n"


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_what_numpy_writes(save: object, path: Path) -> None:
    arrays = {
        **numbers(),
        "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        "empty": np.zeros((0, 4), np.float32),
        "scalar": np.array(3.5, np.float16),
        "integers": np.arange(3, dtype=np.int64),
        "flags": np.array([True, False]),
        "large": np.random.default_rng(1).standard_normal(600_000),
    }
    save(path, **arrays)  # type: ignore[operator]
    assert assert_holds(path, arrays).format == "NumPy's .npz"


def test_uncompressed_arrays_are_views_of_the_file(path: Path) -> None:
    np.savez(path, **numbers())
    for array in weights.read(path).arrays.values():
        assert not array.flags.owndata
        assert not array.flags.writeable


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_bfloat16(save: object, path: Path) -> None:
    """NumPy writes ml_dtypes' bfloat16 as two bytes without a type."""
    rounded = bfloat16(numbers())
    bits = {n: (a.view(np.uint32) >> 16).astype(np.uint16) for n, a in rounded.items()}
    save(path, **{name: array.view("V2") for name, array in bits.items()})  # type: ignore[operator]
    assert_holds(path, rounded)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_files_of_other_writers(version: int, path: Path) -> None:
    header = "{'descr':'<f4','fortran_order':False,'shape':(2L, 1L)}"
    path.write_bytes(archive({"x.npy": npy(header, bytes(8), version)}))
    assert weights.read(path).arrays["x"].shape == (2, 1)


@pytest.mark.parametrize("dtype", ["O", ">f4", "U5", "M8[s]", "c8", [("a", "f4")]])
def test_unsupported_dtypes(dtype: object, path: Path) -> None:
    np.savez(path, x=np.zeros(2, dtype=dtype))  # type: ignore[call-overload]
    with pytest.raises(
        resrt.WeightsError, match=r"model.npz': x has the unsupported dtype .*save plain"
    ):
        weights.read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not begin like a .npy"),
        (b"\x93NUMPY\x01\x00\xff\xff", "does not begin like a .npy|is truncated or too long"),
        (npy("x" * 5000), "an array's header is truncated or too long"),
        (npy(described())[:40], "an array's header is truncated or too long"),
        (npy("{}"), "an array's header is '{}'"),
        (npy(described(shape="1,,2"), bytes(8)), "an array's header is"),
        (npy(described(shape=f"({'1' * 3000})")), "shape contains '1111"),
        (npy(described(shape="(1 2)")), "shape contains '1 2'"),
        (npy(described(shape="(3,)"), bytes(8)), r"array of shape \(3,\) has 8 bytes"),
        (npy(described(shape="(0,999999999999999)")), "shape contains 999999999999999"),
        (npy(described(shape=f"({'1,' * 40})"), bytes(4)), "up to 16"),
        (npy(described(), bytes(7)), "has 7 bytes"),
    ],
)
def test_malformed_arrays(content: bytes, message: str, path: Path) -> None:
    path.write_bytes(archive({"x.npy": content}))
    with pytest.raises(resrt.WeightsError, match=rf"is not a valid .npz file \(.*{message}.*again"):
        weights.read(path)


def test_an_empty_array_with_a_huge_shape(path: Path) -> None:
    path.write_bytes(archive({"x.npy": npy(described(shape="(0,99999999999999)"))}))
    assert weights.read(path).arrays["x"].size == 0


def test_other_members(path: Path) -> None:
    path.write_bytes(archive({"x.npy": npy(described(), bytes(8)), "readme": b""}))
    with pytest.raises(resrt.WeightsError, match="its member 'readme' is not a .npy file"):
        weights.read(path)


def test_a_compressed_bomb(path: Path) -> None:
    """It is rejected because of its stated size, before memory is allocated."""
    zeros = npy(described(shape="(25000000,)"), bytes(100_000_000))
    path.write_bytes(archive({"x.npy": zeros}, zipfile.ZIP_DEFLATED))
    with bounded_memory(4 << 20), pytest.raises(resrt.WeightsError, match="unpacks to more than"):
        weights.read(path)
    many = npy(described(shape="(2500000,)"), bytes(10_000_000))
    path.write_bytes(archive({f"{n}.npy": many for n in range(20)}, zipfile.ZIP_DEFLATED))
    with bounded_memory(64 << 20), pytest.raises(resrt.WeightsError, match="unpacks to more than"):
        weights.read(path)


@pytest.mark.parametrize("stated", [136 - 1, 136 + 1, 10_000_000])
def test_a_compressed_member_with_a_wrong_size(stated: int, path: Path) -> None:
    plain = npy(described(shape="(16,)"), bytes(64))
    content = archive({"x.npy": plain}, zipfile.ZIP_DEFLATED)
    at = content.rfind(b"PK\x01\x02") + 24
    stated += len(plain) - 136
    path.write_bytes(content[:at] + struct.pack("<I", stated) + content[at + 4 :])
    with pytest.raises(resrt.WeightsError, match=f"does not decompress to {stated} bytes"):
        weights.read(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_truncated_files(save: object, path: Path) -> None:
    save(path, **numbers())  # type: ignore[operator]
    whole = path.read_bytes()
    for size in range(60, len(whole), 13):
        path.write_bytes(whole[:size])
        with pytest.raises(
            resrt.WeightsError, match=r"is not a valid .npz file .*truncated.*again"
        ):
            weights.read(path)


def test_damaged_files(path: Path) -> None:
    for save in (np.savez, np.savez_compressed):
        save(path, x=np.random.default_rng(0).standard_normal(1000))
        content = bytearray(path.read_bytes())
        content[4000] ^= 1
        path.write_bytes(content)
        with pytest.raises(resrt.WeightsError, match="damaged|does not decompress"):
            weights.read(path)
