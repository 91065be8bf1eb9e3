"""Reading and writing of files, as several modules need it."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

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
def replacing(destination: Path) -> Iterator[Path]:
    """Yield the path of a file to write, which then takes the destination's place, or leaves none.

    Raises FileError where it cannot be written.
    """
    temporary = destination.with_name(f"{destination.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(destination)
    except Error:
        raise
    except OSError as error:
        raise FileError(f"cannot write '{destination}': {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def sha256(file: Path) -> str:
    """The checksum of a weights file, in hexadecimal. Raises FileError."""
    digest = hashlib.sha256()
    try:
        with file.open("rb", buffering=0) as content:
            while chunk := content.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise FileError(f"cannot read the weights '{file}': {error.strerror}") from None
    return digest.hexdigest()
