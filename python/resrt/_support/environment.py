"""The environment variables that several modules read."""

from __future__ import annotations

import math
import os
from os import PathLike
from pathlib import Path

from resrt.errors import FileError, InputError


def cache_folder(given: str | PathLike[str] | None = None) -> Path:
    """Return the folder of downloads and built engines: `given`, or what the environment says.

    Raises FileError if that is below the home folder of a user who has none.
    """
    folder = given or os.environ.get("RESRT_CACHE")
    try:
        if folder:
            return Path(folder).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "resrt"
    except RuntimeError:
        raise FileError(
            "there is no folder for the cache, because the user has no home folder; name one in "
            "RESRT_CACHE"
        ) from None


def cache_limit() -> float:
    """Return the maximum size of the built engines, in bytes. Raises InputError."""
    return _number("RESRT_CACHE_GB", default=5, example="gigabytes, such as 2.5") * 1e9


def tuning_seconds() -> float:
    """Return how long to measure kernels when an engine is built. Raises InputError."""
    return _number("RESRT_TUNE", default=10, example="seconds, such as 30")


def max_pixels() -> float:
    """Return the maximum number of pixels of an image file. Raises InputError."""
    return _number("RESRT_MAX_PIXELS", default=150_000_000, example="pixels, such as 500000000")


def is_offline() -> bool:
    """Return whether the environment forbids downloads."""
    # HF_HUB_OFFLINE is commonly set on machines that have no network at all.
    values = (os.environ.get(name, "") for name in ("RESRT_OFFLINE", "HF_HUB_OFFLINE"))
    return any(value.lower() not in ("", "0", "false", "no", "off") for value in values)


def _number(name: str, *, default: float, example: str) -> float:
    text = os.environ.get(name) or default
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not number >= 0:
        raise InputError(f"{name} must be a number of {example}, not {text!r}")
    return number
