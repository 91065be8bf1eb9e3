"""Latencies of something that is run repeatedly."""

from __future__ import annotations

import itertools
import threading

import pytest

from resrt.measuring import timing


def test_runs_are_counted_without_the_warm_up() -> None:
    calls = itertools.count()
    found = timing.measure(lambda: next(calls), 5, repeats=7, warm_up=4)
    assert next(calls) == 11
    assert (found.batch, found.repeats, found.concurrency) == (5, 7, 1)
    assert found.images_per_second == pytest.approx(5 * 7 / found.seconds)


def test_duration() -> None:
    pause = threading.Event()
    found = timing.measure(lambda: pause.wait(0.002), 1, repeats=2, duration=0.1, warm_up=0)
    assert found.seconds >= 0.1
    assert 2 < found.repeats <= 0.1 / 0.002 + 1


@pytest.mark.parametrize(
    ("runs", "median", "p90", "p99"),
    [  # as in cpp/tests/engine_test.cpp
        (1, 1, 1, 1),
        (2, 1, 2, 2),
        (9, 5, 9, 9),
        (10, 5, 9, 10),
        (30, 15, 27, 30),
        (100, 50, 90, 99),
        (101, 51, 91, 100),
        (1000, 500, 900, 990),
    ],
)
def test_percentiles_are_latencies_of_actual_runs(
    runs: int, median: float, p90: float, p99: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The clock at the start and the end of runs of …, 3, 2, 1 ms.
    clock = itertools.chain.from_iterable((0, 1_000_000 * ms) for ms in range(runs, 0, -1))
    monkeypatch.setattr(timing, "perf_counter_ns", lambda: next(clock))
    found = timing.measure(lambda: None, 1, repeats=runs, warm_up=0)
    assert (found.min_ms, found.median_ms, found.p90_ms, found.p99_ms) == (1, median, p90, p99)


def test_callers_are_concurrent() -> None:
    together = threading.Barrier(3, timeout=30)  # continues when all three callers have arrived
    found = timing.measure(together.wait, 2, repeats=7, warm_up=1, concurrency=3)
    assert (found.repeats, found.concurrency) == (9, 3)


def test_a_failure_stops_every_caller() -> None:
    calls = itertools.count()

    def fail_once() -> None:
        if next(calls) == 20:
            raise ValueError("call 21")

    with pytest.raises(ValueError, match="call 21"):
        timing.measure(fail_once, 1, repeats=10, duration=3600, concurrency=2)
