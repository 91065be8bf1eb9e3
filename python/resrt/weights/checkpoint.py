"""What every reader of a weights file makes, and what it is given."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from resrt import _core
from resrt.errors import FileError

Array: TypeAlias = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Checkpoint:
    """The arrays of a weights file under its own names, and what free text it carries.

    `fit`, where the format has more to go by than names, finds the arrays of a graph's parameters
    and returns them under the graph's names; it raises WeightsError.
    """

    format: str
    arrays: Mapping[str, Array]
    metadata: Mapping[str, str] = field(default_factory=dict)
    fit: Callable[[_core.Graph], Mapping[str, Array]] | None = None


def map_file(path: str) -> memoryview:
    """Map a file into memory, read-only: nothing is read before it is looked at.

    Raises FileError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return map_descriptor(descriptor, path)
        finally:
            os.close(descriptor)
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"cannot read the weights '{path}': {error.strerror}") from None


def map_descriptor(descriptor: int, path: str) -> memoryview:
    """Map an open file, which errors call `path`; it can be closed then.

    Raises FileError and OSError.
    """
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise FileError(f"cannot read the weights '{path}': it is no regular file")
    if status.st_size == 0:
        return memoryview(b"")
    return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))


def widen_bfloat16(bits: Array) -> npt.NDArray[np.float32]:
    """float32 from the bits of bfloat16, which are its upper half."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
