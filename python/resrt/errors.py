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
    "EngineFileError",
    "Error",
    "FileError",
    "InputError",
    "ModelError",
    "PrecisionError",
    "WeightsError",
]
