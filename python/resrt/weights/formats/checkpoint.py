"""What every reader of weights files returns, raises, and checks."""

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
    """The arrays and the metadata of a weights file, under the file's own names.

    `flat` is true if the format stores no shapes, so that every array has one dimension. `fit`
    exists for formats that describe the network: it returns the arrays of a graph's parameters
    under the graph's names, or raises WeightsError.
    """

    format: str
    arrays: Mapping[str, Array]
    metadata: Mapping[str, str] = field(default_factory=dict)
    flat: bool = False
    fit: Callable[[_core.Graph], Mapping[str, Array]] | None = None


class Malformed(Exception):
    """A file violates its format. The message says how; `reported` adds the file's name."""


class Refused(Exception):
    """A pickle asks for something that is not on the reader's list.

    `is_object` is true if that is the class of an object, as in a network that was saved whole.
    """

    def __init__(self, what: str, is_object: bool = False) -> None:
        super().__init__(what)
        self.is_object = is_object


def map_file(path: str) -> memoryview:
    """Map a file into memory, read-only. Raises FileError."""
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
    """Map an open file, which errors call `path` and which may be closed afterwards.

    Raises FileError and OSError.
    """
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise FileError(f"cannot read the weights '{path}': not a regular file")
    if status.st_size == 0:
        return memoryview(b"")
    return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))


@contextmanager
def reported(path: str, kind: str) -> Iterator[None]:
    """Turn Malformed and Refused into a WeightsError that names the file and its kind."""
    try:
        yield
    except Malformed as error:
        raise WeightsError(
            f"'{path}' is not a valid {kind} ({error}); copy or download it again"
        ) from None
    except Refused as error:
        raise WeightsError(
            f"'{path}' is a pickle that asks for {error}, which weights do not need; it was not "
            "executed. Do not trust this file"
        ) from None


def shorten(value: object, length: int = 60) -> str:
    """Return a value from a file as an error message may show it: never long, never nested."""
    if isinstance(value, (str, bytes)):
        return repr(value[:length]) + ("..." if len(value) > length else "")
    if isinstance(value, (bool, float)) or value is None:
        return repr(value)
    if isinstance(value, int):
        return repr(value) if abs(value) < 1 << 64 else "a huge number"
    return f"a {type(value).__name__}"


def checked_sizes(sizes: object) -> tuple[int, ...]:
    """Return the sizes or strides of an array if they are valid. Raises Malformed."""
    if not isinstance(sizes, (tuple, list)) or len(sizes) > 16:
        raise Malformed(f"an array's shape is {shorten(sizes)}, expected up to 16 integers")
    for size in sizes:
        if not isinstance(size, int) or not 0 <= size < 1 << 48:
            raise Malformed(f"an array's shape contains {shorten(size)}")
    return tuple(sizes)


def checked_shape(shape: object) -> tuple[int, ...]:
    """Return a shape if NumPy supports it. Raises Malformed."""
    sizes = checked_sizes(shape)
    # NumPy multiplies the other sizes of an empty array too, and the product must not overflow.
    if math.prod(size for size in sizes if size) >= 1 << 48:
        raise Malformed(f"an array's shape {sizes} is too large")
    return sizes


def shaped(flat: Array, shape: object, *, fortran: bool = False) -> Array:
    """Return the elements of a flat array in a shape that the file gives. Raises Malformed."""
    wanted = checked_shape(shape)
    if math.prod(wanted) != flat.size:
        raise Malformed(f"an array of shape {wanted} has {flat.nbytes} bytes")
    return flat.reshape(wanted, order="F" if fortran else "C")


def check_total(sizes: Iterable[int], content: memoryview) -> None:
    """Raise Malformed if a file's arrays have more bytes than the file: they share its bytes.

    Otherwise a small file could contain any number of large arrays, each converted on its own.
    """
    total = sum(sizes)
    if total > len(content):
        raise Malformed(f"its arrays add up to {total} bytes, but it has only {len(content)}")


def widen_bfloat16(bits: Array) -> npt.NDArray[np.float32]:
    """Return float32 values from the bits of bfloat16, which are their upper half."""
    wide = bits.astype(np.uint32)
    wide <<= 16  # in place, to allocate only the result
    return wide.view(np.float32)
