"""Files that are replaced completely or not at all."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import resrt
from resrt._support.files import is_folder, is_regular, read_text, replacing, writing_whole


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


def write(path: Path, content: bytes = b"new") -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_new_file_appears_at_the_end(output: Path) -> None:
    with replacing(output) as temporary:
        temporary.write_bytes(b"new")
        assert temporary.parent == output.parent
        assert not output.exists()
    assert output.read_bytes() == b"new"
    assert names(output.parent) == ["output"]


def test_threads_with_the_same_output_never_collide(output: Path) -> None:
    together = threading.Barrier(2, timeout=60)
    contents = [b"a" * 1_000_000, b"b" * 1_000_000]

    def write(content: bytes) -> Path:
        with replacing(output) as temporary:
            together.wait()  # both have their temporary file
            with temporary.open("wb") as file:
                file.write(content[:500_000])
                together.wait()
                file.write(content[500_000:])
        return temporary

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(write, contents)
    assert first != second
    assert output.read_bytes() in contents
    assert names(output.parent) == ["output"]


def test_symbolic_link_stays_and_its_target_is_replaced(output: Path, tmp_path: Path) -> None:
    target = tmp_path / "folder" / "target"
    target.parent.mkdir()
    output.symlink_to(target)
    for content in (b"created", b"replaced"):
        write(output, content)
        assert output.is_symlink()
        assert not target.is_symlink()
        assert target.read_bytes() == content
    assert names(tmp_path) == ["folder", "output"]
    assert names(target.parent) == ["target"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_permissions_are_kept(output: Path, mode: int) -> None:
    output.write_bytes(b"old")
    output.chmod(mode)
    write(output)
    assert output.read_bytes() == b"new"
    assert stat.S_IMODE(output.stat().st_mode) == mode


def test_new_file_has_the_permissions_of_the_umask(output: Path) -> None:
    before = os.umask(0o027)
    try:
        write(output)
    finally:
        os.umask(before)
    assert stat.S_IMODE(output.stat().st_mode) == 0o640


def test_pipe_receives_the_content(output: Path) -> None:
    os.mkfifo(output)
    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(output.read_bytes)
        write(output, b"through the pipe")
        assert received.result(timeout=60) == b"through the pipe"
    assert output.is_fifo()
    assert names(output.parent) == ["output"]


def test_device_is_not_replaced(output: Path) -> None:
    try:
        # Another /dev/null: a failure of this test must not remove the machine's.
        os.mknod(output, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        output.write_bytes(b"")
    except PermissionError:
        pytest.skip("requires permission to create and open device files")
    write(output)
    assert stat.S_ISCHR(output.stat().st_mode)
    assert names(output.parent) == ["output"]


@pytest.mark.parametrize("before", [None, b"old"])
def test_failure_leaves_nothing_behind(output: Path, before: bytes | None) -> None:
    if before is not None:
        output.write_bytes(before)

    def fail(error: type[BaseException]) -> None:
        with replacing(output) as temporary:
            temporary.write_bytes(b"half")
            raise error("failed")

    for error in (ValueError, KeyboardInterrupt, resrt.InputError):
        with pytest.raises(error, match="failed"):
            fail(error)
    assert names(output.parent) == ([] if before is None else ["output"])
    assert before is None or output.read_bytes() == before


def test_errors_of_the_system_name_the_output(output: Path) -> None:
    message = f"cannot write '{output}': No space left on device"
    with pytest.raises(resrt.FileError, match=message), replacing(output):
        raise OSError(28, "No space left on device")
    with pytest.raises(resrt.FileError, match="cannot write '.*none/x': No such file"):
        write(output / "none" / "x")
    output.mkdir()
    with pytest.raises(resrt.FileError, match=f"cannot write '{output}': Is a directory"):
        write(output)
    assert names(output.parent) == ["output"]
    assert names(output) == []


def test_abandoned_temporary_file_does_not_block(output: Path) -> None:
    with replacing(output) as temporary:
        # As a process leaves it that is killed here.
        abandoned = [temporary.name, f".{output.name}.tmp"]
    for name in abandoned:
        (output.parent / name).write_bytes(b"half")
    for content in (b"new", b"newer"):
        write(output, content)
        assert output.read_bytes() == content
    assert names(output.parent) == sorted([*abandoned, "output"])


def test_long_names(tmp_path: Path) -> None:
    output = tmp_path / ("x" * 255)  # the longest that Linux allows
    write(output)
    assert names(tmp_path) == [output.name]


def test_text_is_written_in_utf_8(output: Path) -> None:
    with writing_whole(output) as file:
        file.write("größe")
    assert output.read_bytes() == "größe".encode()
    for path in (output.parent, output / "x"):
        with pytest.raises(resrt.FileError, match="cannot write"), writing_whole(path):
            pytest.fail("the block must not run")


def test_a_link_to_a_pipe_is_written_into() -> None:
    """/dev/stdout is such a link, and the pipe has no path of its own."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe:
        write(Path(f"/dev/fd/{writing}"))
        os.close(writing)
        assert pipe.read() == b"new"


def test_names_of_many_bytes(tmp_path: Path) -> None:
    """A file system counts bytes, of which each of these characters has four."""
    write(tmp_path / ("\U0001f600" * 60))
    assert names(tmp_path) == ["\U0001f600" * 60]


def test_the_temporary_file_is_as_secret_as_the_file(output: Path) -> None:
    output.touch(0o600)
    with replacing(output) as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600


def test_a_file_that_is_only_to_be_read_is_replaced(output: Path) -> None:
    """As by any rename. Root could write to it in any case."""
    output.touch(0o444)
    with replacing(output) as temporary:
        assert temporary.stat().st_mode & stat.S_IWUSR
        temporary.write_bytes(b"new")
    assert stat.S_IMODE(output.stat().st_mode) == 0o444


def test_a_folder_that_cannot_be_read_can_be_written_to(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root, permissions do not count."""
    opened = os.open

    def refuse(path: str, *arguments: int, **options: int) -> int:
        if Path(path) == output.parent:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    write(output)
    assert output.read_bytes() == b"new"


def test_standard_output_that_is_a_file_is_continued(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path\n"
        "from resrt._support.files import replacing\n"
        "with replacing(Path('/dev/stdout')) as temporary: temporary.write_bytes(b'new ')\n"
    )
    with (tmp_path / "log").open("wb", buffering=0) as log:
        log.write(b"old ")
        subprocess.run([sys.executable, "-c", script], stdout=log, check=True)
        log.write(b"newest")
    assert (tmp_path / "log").read_bytes() == b"old new newest"


def test_a_text_without_an_end_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"1234")
    assert read_text(path, 4) == "1234"
    with pytest.raises(ValueError, match="it has more than 0 MiB"):
        read_text(path, 3)
    with path.open("r+b") as file:
        file.truncate(8 << 30)  # sparse
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="it has more than 64 MiB"):
            read_text(path)
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
    finally:
        tracemalloc.stop()


def test_the_owner_is_kept(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output.touch()
    output.chmod(0o640)
    calls = []

    def chown(path: Path, user: int, group: int) -> None:
        calls.append((user, group))
        if user != -1:
            raise PermissionError  # only root may give a file away

    monkeypatch.setattr(os, "chown", chown)
    write(output)
    status = output.stat()
    assert calls == [(-1, status.st_gid), (status.st_uid, -1)]
    assert stat.S_IMODE(status.st_mode) == 0o640
    if os.getuid() == 0:
        monkeypatch.undo()
        os.chown(output, 12345, 23456)
        write(output, b"again")
        assert (output.stat().st_uid, output.stat().st_gid) == (12345, 23456)


def test_what_may_not_be_looked_up_is_neither_a_folder_nor_a_file(tmp_path: Path) -> None:
    """`Path.is_dir` and `Path.is_file` raise an error for these before Python 3.14."""
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (tmp_path / ("a" * 300), tmp_path / "file" / "x", tmp_path / "loop", "a\0b"):
        assert not is_folder(path)
        assert not is_regular(path)
    assert is_folder(tmp_path)
    assert is_regular(tmp_path / "file")
