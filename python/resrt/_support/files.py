"""Reading and writing files: whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import IO, TextIO

from resrt.errors import Error, FileError, InputError

# The paths of this process's own streams. Writing to one continues where the stream is.
_OWN_STREAM = re.compile(r"/dev/(?:std(in|out|err)|fd/(\d{1,6}))|/proc/self/fd/(\d{1,6})")

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


def is_folder(path: str | PathLike[str]) -> bool:
    """Return whether a path is a folder. Unlike `Path.is_dir`, this never raises."""
    return file_kind(path) == stat.S_IFDIR


def is_regular(path: str | PathLike[str]) -> bool:
    """Return whether a path is a regular file. Unlike `Path.is_file`, this never raises."""
    return file_kind(path) == stat.S_IFREG


def current_folder() -> Path:
    """Return the current folder. Raises FileError if it does not exist any more."""
    try:
        return Path.cwd()
    except OSError as error:
        raise FileError(f"the current folder cannot be used: {error.strerror}") from None


def check_unchanged(path: Path, images: Iterable[str], since_ns: int) -> None:
    """Raise InputError if an image was changed later than a file that has its result.

    Also by being replaced with an older file, which changes the time of its status.

    Args:
        path: the file that is to be resumed.
        images: the paths of the images in it. Those that no longer exist are not changed.
        since_ns: when the last result was written, as in `st_mtime_ns`.
    """
    for image in images:
        status = _status_or_none(image)
        if status is not None and max(status.st_mtime_ns, status.st_ctime_ns) > since_ns:
            raise InputError(
                f"cannot resume '{path}': '{image}' was changed after it; name another file, or "
                "replace it with --overwrite"
            )


def file_version(image: str) -> tuple[int | None, int | None]:
    """Return the size in bytes and the modification time in ns; None if there is no such file."""
    status = _status_or_none(image)
    return (None, None) if status is None else (status.st_size, status.st_mtime_ns)


def _status_or_none(path: str) -> os.stat_result | None:
    try:
        return Path(path).stat()
    except (OSError, ValueError):
        return None


def is_stream(path: Path) -> bool:
    """Return whether writing to a path cannot replace anything, as for a device or a pipe.

    So it is for /dev/stdout, also if that is redirected to a file. Raises OSError.
    """
    if _OWN_STREAM.fullmatch(str(path)):
        return True
    status = _status(path)
    return status is not None and not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode))


def open_stream(path: Path) -> IO[bytes]:
    """Open a path for which `is_stream` is true, for writing without a buffer. Raises OSError."""
    if match := _OWN_STREAM.fullmatch(str(path)):
        name, *digits = match.groups()
        own = {"in": 0, "out": 1, "err": 2}[name] if name else int(digits[0] or digits[1])
        return os.fdopen(os.dup(own), "wb", buffering=0)
    return path.open("wb", buffering=0)


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
        streams = is_stream(path)
        if not streams:  # a link such as /dev/stdout may point to a pipe, which has no path
            target = Path(os.path.realpath(path))
        folder = Path(tempfile.gettempdir()) if streams else target.parent
        status = None if streams else status
        mode = None if status is None else stat.S_IMODE(status.st_mode)
        temporary = _create(folder, target.name, mode)
        yield temporary
        if streams:
            with temporary.open("rb") as content, open_stream(target) as stream:
                shutil.copyfileobj(content, stream)
        else:
            if status is not None:
                _copy_owner_and_mode(status, temporary)
            sync(temporary)
            temporary.replace(target)
            _sync_folder(target.parent)
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
    sync(source)
    source.replace(target)
    _sync_folder(target.parent)


@contextlib.contextmanager
def writing_whole(path: Path) -> Iterator[TextIO]:
    """Open a text file that replaces `path` at the end, unless something fails before.

    Raises FileError if `path` cannot be written, before the block runs if a folder is the reason.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        yield file


def read_text(path: str | PathLike[str], most_bytes: int = 64 << 20) -> str:
    """Return a text file, which may be a pipe. Raises OSError.

    Raises ValueError if it is not UTF-8, or longer than `most_bytes`, of which no more is read.
    """
    with Path(path).open("rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"it has more than {most_bytes >> 20} MiB")
    return content.decode("utf-8")


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


def _create(folder: Path, name: str, mode: int | None) -> Path:
    """Create an empty file under a name that nobody else uses, for a file with these permissions.

    None: those of a new file.
    """
    begin = os.fsencode(name)[:100].decode("utf-8", "ignore")  # a file system counts bytes
    temporary = folder / f".{begin}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
    # Less what the umask forbids. Nobody else may read meanwhile what is secret, but we must write.
    temporary.touch(mode=0o666 if mode is None else mode & 0o666 | 0o600, exist_ok=False)
    return temporary


def _copy_owner_and_mode(status: os.stat_result, path: Path) -> None:
    """Give a file the owner, as far as this process may, and the permissions of another."""
    for user, group in ((-1, status.st_gid), (status.st_uid, -1)):
        with contextlib.suppress(PermissionError):
            os.chown(path, user, group)
    path.chmod(stat.S_IMODE(status.st_mode))  # afterwards, because chown clears some of them


def _sync_folder(folder: Path) -> None:
    """Make a renaming durable.

    Some file systems cannot do so for a folder, and a folder may be writable but not readable; the
    file is there all the same.
    """
    try:
        sync(folder)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EINVAL, errno.ENOTSUP):
            raise


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
