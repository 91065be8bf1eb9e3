"""What every reader of a weights file makes, and what it is given."""

from __future__ import annotations

import math
import mmap
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from resrt import _core
from resrt.errors import FileError, WeightsError

Array: TypeAlias = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Checkpoint:
    """The arrays of a weights file under its own names, and what free text it carries.

    `flat`: the format keeps no shapes, so that every array has one dimension.
    `fit`, where the format has more to go by than names, finds the arrays of a graph's parameters
    and returns them under the graph's names; it raises WeightsError.
    """

    format: str
    arrays: Mapping[str, Array]
    metadata: Mapping[str, str] = field(default_factory=dict)
    flat: bool = False
    fit: Callable[[_core.Graph], Mapping[str, Array]] | None = None


class Malformed(Exception):
    """A file that is not as its format has it: what is wrong, in words that follow its name."""


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


@contextmanager
def reported(path: str, kind: str) -> Iterator[None]:
    """Raise WeightsError, which names the file and what kind it should be, for Malformed."""
    try:
        yield
    except Malformed as error:
        raise WeightsError(
            f"'{path}' is no sound {kind} ({error}); copy or download it again"
        ) from None


def shorten(value: object, length: int = 60) -> str:
    """A value out of a file as an error message may show it: never long, never nested."""
    if isinstance(value, (str, bytes)):
        return repr(value[:length]) + ("..." if len(value) > length else "")
    if isinstance(value, (bool, float)) or value is None:
        return repr(value)
    if isinstance(value, int):
        return repr(value) if abs(value) < 1 << 64 else "a huge number"
    return f"a {type(value).__name__}"


def checked_sizes(sizes: object) -> tuple[int, ...]:
    """The sizes or strides of an array out of a file, if they are any. Raises Malformed."""
    if not isinstance(sizes, (tuple, list)) or len(sizes) > 16:
        raise Malformed(f"an array's shape is {shorten(sizes)}, where up to 16 numbers are due")
    for size in sizes:
        if not isinstance(size, int) or not 0 <= size < 1 << 48:
            raise Malformed(f"an array's shape has {shorten(size)} in it")
    return tuple(sizes)


def checked_shape(shape: object) -> tuple[int, ...]:
    """A shape out of a file, if it is one that NumPy can have. Raises Malformed."""
    sizes = checked_sizes(shape)
    # An empty array, too, has a size without the zeros in its shape, which must not overflow.
    if math.prod(size for size in sizes if size) >= 1 << 48:
        raise Malformed(f"an array's shape {sizes} is beyond any size")
    return sizes


def shaped(flat: Array, shape: object, *, fortran: bool = False) -> Array:
    """An array of a shape out of a file, over the elements of a flat one. Raises Malformed."""
    wanted = checked_shape(shape)
    if math.prod(wanted) != flat.size:
        raise Malformed(f"an array of shape {wanted} has {flat.nbytes} bytes")
    return flat.reshape(wanted, order="F" if fortran else "C")


def check_total(sizes: Iterable[int], content: memoryview) -> None:
    """Refuse arrays that take more bytes in the file than it has: they repeat its bytes.

    Else a small file could hold any number of large arrays, each to be converted by itself.
    Raises Malformed.
    """
    total = sum(sizes)
    if total > len(content):
        raise Malformed(f"its arrays add up to {total} bytes, but it has only {len(content)}")


def widen_bfloat16(bits: Array) -> npt.NDArray[np.float32]:
    """float32 from the bits of bfloat16, which are its upper half."""
    wide = bits.astype(np.uint32)
    wide <<= 16  # in place: the bits are all that is held beside the result
    return wide.view(np.float32)
