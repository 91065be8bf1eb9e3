"""Reading and writing of files, as several modules need it."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import TextIO

from resrt.errors import Error, FileError


@contextlib.contextmanager
def writing_to_cache(path: Path) -> Iterator[None]:
    """Tell of a failure to write a file of the cache as FileError, with what can be done."""
    try:
        yield
    except Error:  # some are an OSError as well, and told of already
        raise
    except OSError as error:
        raise FileError(
            f"cannot write '{error.filename or path}': {error.strerror}; make room, correct the "
            "folder's permissions, or name another in RESRT_CACHE"
        ) from None


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield where to write a file that takes the place of `path` in the end, if nothing fails.

    Raises FileError where it cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except Error:  # some are an OSError as well, and of something else
        raise
    except OSError as error:
        raise FileError(f"cannot write '{path}': {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def writing_whole(path: Path) -> Iterator[TextIO]:
    """Open a text file that takes the place of `path` in the end, if nothing fails until then.

    Raises FileError where it cannot be written, at once where the folder is at fault.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        yield file


def cache_folder(given: str | PathLike[str] | None = None) -> Path:
    """Return the folder for what can be had again: `given`, or as the environment has it."""
    if folder := given or os.environ.get("RESRT_CACHE"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "resrt"


def sha256(file: Path) -> str:
    """Return the checksum of a weights file, in hexadecimal. Raises FileError."""
    digest = hashlib.sha256()
    try:
        with file.open("rb", buffering=0) as content:
            while chunk := content.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise FileError(f"cannot read the weights '{file}': {error.strerror}") from None
    return digest.hexdigest()
