"""What files that are written have in common."""

from __future__ import annotations

import contextlib
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
