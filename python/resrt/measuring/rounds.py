"""Several contenders timed in interleaved rounds, so that a drift of the machine affects all alike.

In every round each contender has one turn, and the order changes from round to round. Ratios are
taken within rounds: whatever slows down a whole round changes no ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Key = TypeVar("Key", bound=Hashable)
Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Spread:
    """The median of several rounds' values, and their quartiles `low` and `high`."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Collection[float] | npt.NDArray[np.float64]) -> Spread:
        """Return the median and quartiles of at least one value."""
        low, median, high = np.percentile(np.asarray(values, np.float64), [25, 50, 75])
        return cls(float(median), float(low), float(high))


def order(entries: Sequence[Entry], number: int) -> list[Entry]:
    """Return the order of the contenders in a round, counted from 0.

    Every second round is reversed, and after two rounds the first contender becomes the last.
    """
    start = number // 2 % len(entries) if entries else 0
    rotated = [*entries[start:], *entries[:start]]
    return rotated[::-1] if number % 2 else rotated


def turn(run: Callable[[], object], repeats: int = 1) -> float:
    """Run once untimed, to refill caches and wake threads, then `repeats` times.

    Returns the median of the timed runs in seconds.
    """
    run()
    seconds = []
    for _ in range(repeats):
        start = perf_counter()
        run()
        seconds.append(perf_counter() - start)
    return float(np.median(seconds))


def take_turns(
    turns: Mapping[Key, Callable[[], float]],
    rounds: int,
    *,
    warm_up: int = 2,
    after_round: Callable[[int], None] | None = None,
) -> tuple[dict[Key, npt.NDArray[np.float64]], dict[Key, Exception]]:
    """Let contenders take turns, and return what each turn took, one value per round.

    A contender that raises an exception takes no further turns and has no values.

    Args:
        turns: a function for each contender, which takes a turn and returns its seconds.
        rounds: the number of rounds that count.
        warm_up: rounds before these, which do not count.
        after_round: called with the number of counted rounds so far.

    Returns the seconds by contender, and the exceptions of those that failed.
    """
    seconds: dict[Key, list[float]] = {name: [] for name in turns}
    failures: dict[Key, Exception] = {}
    for number in range(warm_up + rounds):
        for name in order(list(seconds), number):
            try:
                seconds[name].append(turns[name]())
            except Exception as error:
                failures[name] = error
                del seconds[name]
        if number >= warm_up and after_round is not None:
            after_round(number - warm_up + 1)
    return {name: np.array(taken[warm_up:]) for name, taken in seconds.items()}, failures
