"""The exceptions of resrt: one class for each thing that the caller can do about it."""

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
]


class DownloadError(Error, OSError):
    """Pretrained weights that could not be fetched, or are no longer as they were first fetched."""


class PackageError(Error, ImportError):
    """A package that is only needed for this, and not installed; the message says how to."""
