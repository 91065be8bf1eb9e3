"""The exceptions of resrt: one class for each way in which a caller can respond."""

from resrt._core import BackendError as BackendError
from resrt._core import EngineFileError as EngineFileError
from resrt._core import Error as Error
from resrt._core import FileError as FileError
from resrt._core import InputError as InputError
from resrt._core import ModelError as ModelError
from resrt._core import PrecisionError as PrecisionError
from resrt._core import WeightsError as WeightsError


class DownloadError(Error, OSError):
    """Pretrained weights that could not be downloaded, or that changed since the first download."""


class PackageError(Error, ImportError):
    """An optional package that is not installed; the message says how to install it."""
