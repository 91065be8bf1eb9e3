"""Inspection of this machine, of its GPUs and of what this process may use."""

from __future__ import annotations

from pathlib import Path


def read(file: Path) -> str:
    """Return the text of a file of the system, stripped, or "" if it cannot be read."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""
