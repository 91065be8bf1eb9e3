"""What every reader of weights files returns, raises, and checks."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from resrt import _core
from resrt.errors import WeightsError

Array: TypeAlias = npt.NDArray[np.generic]

_LONGEST_SHOWN = 200  # several times a parameter's name


@dataclass(frozen=True)
class Checkpoint:
    """The arrays and the metadata of a weights file, under the file's own names.

    `flat` is true if the format stores no shapes, so that every array has one dimension. `fit`
    exists for formats that describe the network: it returns the arrays of a graph's parameters
    under the graph's names, or raises WeightsError. `trained` are the numbers of classes and input
    channels that such a format describes, None if they are not known. `contents` are the bytes that
    were read: the file's, and those of external tensors; none for arrays without a file.
    `left_aside` are names in the file that do not belong to a network. `file` is the file's name
    without its folder, and `folder` is where it and its configurations are.
    """

    format: str
    arrays: Mapping[str, Array]
    metadata: Mapping[str, str] = field(default_factory=dict)
    flat: bool = False
    fit: Callable[[_core.Graph], Mapping[str, Array]] | None = None
    trained: tuple[int | None, int | None] = (None, None)
    contents: tuple[memoryview, ...] = field(default=(), repr=False)
    left_aside: tuple[str, ...] = ()
    file: str = ""
    folder: str = ""

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the bytes that were read, in hexadecimal."""
        digest = hashlib.sha256()
        for content in self.contents:
            digest.update(content)
        return digest.hexdigest()


class Malformed(Exception):
    """A file violates its format. The message says how; `reported` adds the file's name."""


class Refused(Exception):
    """A pickle asks for something that is not on the reader's list.

    `is_object` is true if that is the class of an object, as in a network that was saved whole.
    """

    def __init__(self, what: str, is_object: bool = False) -> None:
        super().__init__(what)
        self.is_object = is_object


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


def shown(name: str) -> str:
    """Return a name from a file as an error may show it: quoted if it is unprintable or long."""
    return name if name.isprintable() and len(name) <= _LONGEST_SHOWN else shorten(name)


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
