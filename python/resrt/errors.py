"""The exceptions of resrt: one class for each thing that the caller can do about it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from resrt._core import (
    BackendError,
    EngineFileError,
    Error,
    FileError,
    InputError,
    ModelError,
    PrecisionError,
    WeightsError,
)

__all__ = [
    "BackendError",
    "DownloadError",
    "EngineFileError",
    "Error",
    "FileError",
    "InputError",
    "ModelError",
    "PackageError",
    "PrecisionError",
    "WeightsError",
    "needing_extra",
]


class DownloadError(Error, OSError):
    """Pretrained weights that could not be fetched, or are no longer as they were first fetched."""


class PackageError(Error, ImportError):
    """A package that is only needed for this, and not installed; the message says how to."""


@contextlib.contextmanager
def needing_extra(extra: str, to: str) -> Iterator[None]:
    """Tell of a package that cannot be found as PackageError, with the extra that brings it.

    >>> with needing_extra("onnx", to="write an ONNX model"):
    ...     import onnx
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise PackageError(
            f"to {to} takes {error.name}, which is not installed; install it with: "
            f"pip install 'resrt[{extra}]'"
        ) from None
