"""Reading and writing files: whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import TextIO

from resrt.errors import Error, FileError

# The suffix of files that are being written, each under a name of its own.
TEMPORARY_SUFFIX = ".tmp"


def file_kind(path: str | PathLike[str]) -> int | None:
    """Return a path's file type, such as stat.S_IFREG: None if it is missing, 0 if unknown."""
    try:
        return stat.S_IFMT(Path(path).stat().st_mode)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):  # such as a folder that may not be searched, or a long name
        return 0


@contextlib.contextmanager
def writing_to_cache(path: Path) -> Iterator[None]:
    """Raise FileError, with what to do, if a file of the cache cannot be written."""
    try:
        yield
    except Error:  # some are an OSError as well, and already say what to do
        raise
    except OSError as error:
        raise FileError(
            f"cannot write '{error.filename or path}': {error.strerror}; free some space, fix the "
            "folder's permissions, or name another folder in RESRT_CACHE"
        ) from None


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write to. Its file replaces `path` at the end, unless something fails.

    A symbolic link stays, and the file that it points to is replaced. A file keeps its permissions.
    Into a device or a pipe the finished content is copied. Raises FileError if `path` cannot be
    written, and then leaves nothing behind.
    """
    target = path
    temporary: Path | None = None
    try:
        status = _status(path)
        if status is not None and stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        is_stream = status is not None and not stat.S_ISREG(status.st_mode)
        if not is_stream:  # a link such as /dev/stdout may point to a pipe, which has no path
            target = Path(os.path.realpath(path))
        folder = Path(tempfile.gettempdir()) if is_stream else target.parent
        temporary = _create(folder, target.name)
        yield temporary
        if is_stream:
            with temporary.open("rb") as content, target.open("wb") as stream:
                shutil.copyfileobj(content, stream)
        else:
            if status is not None:
                temporary.chmod(stat.S_IMODE(status.st_mode))
            _sync(temporary)
            temporary.replace(target)
            _sync(target.parent)
    except Error:  # some are an OSError as well, but not about `path`
        raise
    except OSError as error:
        raise FileError(f"cannot write '{path}': {error.strerror}") from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def move(source: Path, target: Path) -> None:
    """Move a finished file within a file system, durably.

    If this fails or is interrupted, the file is still under one of the names. Raises OSError.
    """
    _sync(source)
    source.replace(target)
    _sync(target.parent)


@contextlib.contextmanager
def writing_whole(path: Path) -> Iterator[TextIO]:
    """Open a text file that replaces `path` at the end, unless something fails before.

    Raises FileError if `path` cannot be written, before the block runs if a folder is the reason.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        yield file


def sha256(file: Path) -> str:
    """Return the SHA-256 of a weights file, in hexadecimal. Raises FileError."""
    digest = hashlib.sha256()
    try:
        with file.open("rb", buffering=0) as content:
            while chunk := content.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise FileError(f"cannot read the weights '{file}': {error.strerror}") from None
    return digest.hexdigest()


def _status(target: Path) -> os.stat_result | None:
    try:
        return target.stat()
    except FileNotFoundError:
        return None


def _create(folder: Path, name: str) -> Path:
    """Create an empty file under a name that nobody else uses."""
    temporary = folder / f".{name[:100]}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
    temporary.touch(mode=0o666, exist_ok=False)  # less what the umask forbids
    return temporary


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
