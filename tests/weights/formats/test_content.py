"""Files that other processes change while they are read, and files that are not read at all."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import resrt
from resrt import weights
from resrt.weights.formats import content
from support.samples import bounded_memory

READ_IN_A_LOOP = """
import collections, sys, time
import resrt

outcomes = collections.Counter()
end = time.monotonic() + 2
while time.monotonic() < end:
    try:
        arrays = resrt.weights.read(sys.argv[1]).arrays
    except resrt.Error as error:
        outcomes[type(error).__name__] += 1
        continue
    correct = all((array == 1).all() and array.size == 1_000_000 for array in arrays.values())
    outcomes["correct" if correct and len(arrays) == 4 else "wrong"] += 1
print(*outcomes)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_file({name: np.ones(1_000_000, np.float32) for name in "abcd"}, path)
    return path


def test_a_file_that_is_truncated_and_restored_while_it_is_read(path: Path) -> None:
    whole = path.read_bytes()
    reader = subprocess.Popen(
        [sys.executable, "-c", READ_IN_A_LOOP, path], stdout=subprocess.PIPE, text=True
    )
    with path.open("r+b", buffering=0) as file:
        for count in range(100_000):
            if reader.poll() is not None:
                break
            size = (12345, len(whole) // 2, len(whole) - 1)[count % 3]
            file.truncate(size)
            time.sleep(0.001 * (count % 5))
            os.pwrite(file.fileno(), whole[size:], size)
            time.sleep(0.01 * (count % 5))
    output, _ = reader.communicate(timeout=60)
    assert reader.returncode == 0
    assert "correct" in output.split()
    assert set(output.split()) <= {"correct", "FileError", "WeightsError"}


def test_arrays_outlive_the_file(path: Path) -> None:
    arrays = weights.read(path).arrays
    path.write_bytes(b"")
    assert all((array == 1).all() for array in arrays.values())


def test_a_file_that_shrinks(path: Path) -> None:
    with content.opened(str(path)) as file:
        os.truncate(path, 1000)
        with pytest.raises(resrt.FileError, match=r"the file changed while it was read"):
            file.read(0, file.size)


def test_a_file_that_is_overwritten(path: Path) -> None:
    for _ in range(20):
        with content.opened(str(path)) as file, path.open("r+b") as other:
            other.write(b"x")
            other.flush()
            with pytest.raises(resrt.FileError, match=r"the file changed while it was read"):
                file.read(0, file.size)


def test_a_file_that_grows_is_read_up_to_its_first_size(path: Path) -> None:
    whole = path.read_bytes()
    with content.opened(str(path)) as file, path.open("ab") as other:
        other.write(b"more")
        other.flush()
        assert file.read(0, file.size) == whole


def test_a_file_that_is_replaced_by_another(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes()
    with content.opened(str(path)) as file:
        (tmp_path / "new").write_bytes(b"new")
        (tmp_path / "new").rename(path)
        assert file.read(0, file.size) == whole


def test_the_checksum_is_that_of_the_bytes_that_were_read(path: Path) -> None:
    whole = path.read_bytes()
    checkpoint = weights.read(path)
    path.write_bytes(b"something else")
    assert checkpoint.sha256 == hashlib.sha256(whole).hexdigest()


def test_large_files_of_unknown_formats_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 8 << 30)
    with bounded_memory(1 << 20), pytest.raises(resrt.WeightsError, match="unsupported weights"):
        weights.read(path)


def test_a_file_is_read_into_memory_once(path: Path) -> None:
    with bounded_memory(path.stat().st_size + (1 << 20)):
        arrays = weights.read(path).arrays
    assert not any(array.flags.owndata or array.flags.writeable for array in arrays.values())


def test_a_file_that_does_not_fit_into_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(size: int, dtype: type) -> np.ndarray:
        raise MemoryError

    with content.opened(str(path)) as file, monkeypatch.context() as patch:
        patch.setattr(content.np, "empty", no_memory)
        with pytest.raises(resrt.FileError, match=r"16\d{6} bytes do not fit into memory"):
            file.read(0, file.size)


def test_a_file_without_permission_to_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(content.os, "open", forbid)
    with pytest.raises(resrt.FileError, match=r"weights.safetensors': Permission denied$"):
        weights.read(path)


@pytest.mark.parametrize("path", ["/proc/self/mem", "/proc/self/maps"])
def test_files_of_the_system_without_a_size(path: str) -> None:
    with pytest.raises(resrt.WeightsError, match="unsupported weights format"):
        weights.read(path)


@pytest.mark.parametrize("size", [1 << 33, 16_000_100])
def test_a_safetensors_file_of_another_size_is_refused_by_its_header(path: Path, size: int) -> None:
    """8 GiB of nothing behind the arrays would not fit into the memory that the test has."""
    os.truncate(path, size)
    with bounded_memory(1 << 28), pytest.raises(resrt.WeightsError, match="follow its header"):
        resrt.weights.read(path)


def test_a_safetensors_header_longer_than_any_is_refused(path: Path) -> None:
    content = (7 << 30).to_bytes(8, "little") + path.read_bytes()[8:]
    path.write_bytes(content)
    os.truncate(path, 8 << 30)
    with bounded_memory(1 << 28), pytest.raises(resrt.WeightsError, match="has a header of"):
        resrt.weights.read(path)
