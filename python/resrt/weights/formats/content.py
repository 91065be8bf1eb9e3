"""Reads weights files into memory, where nobody else can change them.

If another process truncates a file whose arrays are mapped into memory, the next access to them
ends this process with SIGBUS.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np

from resrt.errors import FileError

Version: TypeAlias = tuple[int, int, int]  # device, inode, time of modification

OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK

# Linux advances the clock for the times of modifications at least this often.
_TICK_NS = 10_000_000


class File:
    """A regular file of which `size` bytes, its size when it was opened, can be read.

    `version` differs for another file and after a change. Raises FileError, which calls the file
    `path`, if it is not a regular file.
    """

    def __init__(self, descriptor: int, path: str) -> None:
        self._descriptor, self._path = descriptor, path
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise FileError(f"cannot read the weights '{path}': not a regular file")
        self.size, self._modified = status.st_size, status.st_mtime_ns
        self.version: Version = (status.st_dev, status.st_ino, self._modified)
        age = time.time_ns() - self._modified
        if 0 <= age < _TICK_NS:
            # Another modification in the same tick would leave the time as it is.
            time.sleep((_TICK_NS - age) / 1e9)

    def read(self, offset: int, size: int) -> memoryview:
        """Return bytes within the file.

        Raises FileError if they do not fit into memory, or if the file has changed since it was
        opened, other than by growing. Raises OSError if reading fails.
        """
        try:
            content = np.empty(size, np.uint8).data
        except MemoryError:
            raise FileError(
                f"cannot read the weights '{self._path}': {size} bytes do not fit into memory"
            ) from None
        filled = 0
        while filled < size:
            count = os.preadv(self._descriptor, [content[filled:]], offset + filled)
            if not count:
                raise self.changed()
            filled += count
        status = os.fstat(self._descriptor)
        is_as_before = status.st_mtime_ns == self._modified and status.st_size == self.size
        if not is_as_before and status.st_size <= self.size:
            raise self.changed()
        return content.toreadonly()

    def changed(self) -> FileError:
        """Return the error for a file that changed after it was opened."""
        return FileError(
            f"cannot read the weights '{self._path}': the file changed while it was read; wait "
            "until it is complete, and replace a file by renaming another to its name"
        )


@contextmanager
def opened(path: str) -> Iterator[File]:
    """Open a file. Raises FileError, also for an OSError while it is open."""
    try:
        descriptor = os.open(path, OPEN_FLAGS)
        try:
            yield File(descriptor, path)
        finally:
            os.close(descriptor)
    except FileError:  # which is an OSError as well
        raise
    except OSError as error:
        raise FileError(f"cannot read the weights '{path}': {error.strerror}") from None
