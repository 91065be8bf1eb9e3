"""The exceptions of resrt: one class for each way in which a caller can respond."""

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
    """Pretrained weights that could not be downloaded, or that changed since the first download."""


class PackageError(Error, ImportError):
    """An optional package that is not installed; the message says how to install it."""
