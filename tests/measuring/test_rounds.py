"""Rounds in which contenders take turns."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from resrt.measuring import rounds
from resrt.measuring.rounds import Spread, order, take_turns, turn


@pytest.mark.parametrize("entries", ["a", "ab", "abc", "abcdefgh"])
def test_order_changes_every_round_and_is_fair(entries: str) -> None:
    several = [order(list(entries), number) for number in range(2 * len(entries))]
    assert all(sorted(one) == list(entries) for one in several)
    if len(entries) > 2:
        assert all(one != following for one, following in itertools.pairwise(several))
    # After these rounds, each has had each position equally often.
    for position in range(len(entries)):
        assert Counter(one[position] for one in several) == dict.fromkeys(entries, 2)
    assert order(list(entries), 2 * len(entries)) == order(list(entries), 0) == list(entries)


def test_order_of_no_entries() -> None:
    assert order([], 3) == []


def test_order_cancels_a_steady_drift() -> None:
    """Every second round is the reverse of the one before, and each contender comes first once."""
    assert ["".join(order("ab", number)) for number in range(4)] == ["ab", "ba", "ba", "ab"]
    assert ["".join(order("abc", number)) for number in range(6)] == [
        *("abc", "cba"),
        *("bca", "acb"),
        *("cab", "bac"),
    ]


def test_turn_is_an_untimed_run_and_the_median_of_timed_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs: list[int] = []
    clock = iter([0.0, 3.0, 10.0, 11.0, 20.0, 22.0])  # runs of 3, 1 and 2 seconds
    monkeypatch.setattr(rounds, "perf_counter", lambda: next(clock))
    assert turn(lambda: runs.append(1), 3) == 2
    assert len(runs) == 4


class Contenders:
    """Fakes whose turns take the given seconds, in order, or raise the given exception."""

    def __init__(self, **seconds: Iterable[float | Exception]) -> None:
        self.taken: list[str] = []
        self.turns = {name: self._turn(name, iter(values)) for name, values in seconds.items()}

    def _turn(self, name: str, values: Iterable[float | Exception]) -> Callable[[], float]:
        remaining = iter(values)

        def take() -> float:
            self.taken.append(name)
            value = next(remaining)
            if isinstance(value, Exception):
                raise value
            return value

        return take


def test_every_contender_has_one_turn_per_round() -> None:
    contenders = Contenders(a=range(5), b=range(5), c=range(5))
    finished: list[int] = []
    seconds, failures = take_turns(contenders.turns, 3, after_round=finished.append)
    assert "".join(contenders.taken) == "abccbabcaacbcab"
    assert failures == {}
    for name in "abc":
        np.testing.assert_array_equal(seconds[name], [2, 3, 4])  # without two to warm up
    assert finished == [1, 2, 3]


def test_number_of_warm_up_rounds() -> None:
    seconds, _ = take_turns(Contenders(a=range(4)).turns, 4, warm_up=0)
    np.testing.assert_array_equal(seconds["a"], [0, 1, 2, 3])


def test_failing_contender_takes_no_further_turns() -> None:
    error = RuntimeError("it broke")
    contenders = Contenders(a=[1.0] * 6, b=[1.0, 1.0, 1.0, error], c=[1.0] * 6)
    seconds, failures = take_turns(contenders.turns, 4)
    assert failures == {"b": error}
    assert {name: len(values) for name, values in seconds.items()} == {"a": 4, "c": 4}
    assert Counter(contenders.taken) == {"a": 6, "b": 4, "c": 6}


def test_failure_while_warming_up() -> None:
    error = RuntimeError("it broke")
    seconds, failures = take_turns(Contenders(a=[error], b=range(3)).turns, 1)
    assert failures == {"a": error}
    assert seconds.keys() == {"b"}


def test_interruption_is_not_a_failure() -> None:
    def interrupt() -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take_turns({"a": interrupt}, 1)


@pytest.mark.parametrize(
    ("values", "median", "low", "high"),
    [
        ([3.0], 3.0, 3.0, 3.0),
        ([4.0, 2.0], 3.0, 2.5, 3.5),
        ([10.0, 20.0, 30.0], 20.0, 15.0, 25.0),
        ([5.0, 1.0, 4.0, 2.0, 3.0], 3.0, 2.0, 4.0),
    ],
)
def test_spread(values: list[float], median: float, low: float, high: float) -> None:
    assert Spread.of(values) == Spread(median, low, high)
    assert Spread.of(np.array(values)) == Spread(median, low, high)
