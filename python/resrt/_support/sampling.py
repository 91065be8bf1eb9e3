"""Samples of lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from resrt._support.arguments import whole

T = TypeVar("T")


def evenly(listed: Sequence[T], limit: int | None) -> list[T]:
    """Return at most `limit` items, sampled evenly because lists are often sorted by class."""
    if limit is None or whole("limit", limit) >= len(listed):
        return list(listed)
    return [listed[i * len(listed) // limit] for i in range(limit)]
