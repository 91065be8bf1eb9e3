"""Names of classes."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def _imagenet() -> tuple[str, ...]:
    text = resources.files("resrt").joinpath("imagenet_labels.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def imagenet() -> list[str]:
    """Return the names of ImageNet-1k's 1000 classes, in the order of their numbers."""
    return list(_imagenet())
