"""What takes packages that only an extra brings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from resrt.errors import PackageError


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
