"""The environment variables that several modules read."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path


def cache_folder(given: str | PathLike[str] | None = None) -> Path:
    """Return the folder of downloads and built engines: `given`, or what the environment says."""
    if folder := given or os.environ.get("RESRT_CACHE"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "resrt"


def is_offline() -> bool:
    """Return whether the environment forbids downloads."""
    # HF_HUB_OFFLINE is commonly set on machines that have no network at all.
    values = (os.environ.get(name, "") for name in ("RESRT_OFFLINE", "HF_HUB_OFFLINE"))
    return any(value.lower() not in ("", "0", "false", "no", "off") for value in values)
