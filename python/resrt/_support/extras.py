"""Packages that only an extra installs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from resrt.errors import PackageError


@contextlib.contextmanager
def requires_extra(extra: str, what: str) -> Iterator[None]:
    """Raise PackageError for a package that is not installed, with the extra that installs it.

    >>> with requires_extra("onnx", "writing ONNX models"):
    ...     import onnx
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise PackageError(
            f"{what} requires '{error.name}', which is not installed: pip install 'resrt[{extra}]'"
        ) from None
