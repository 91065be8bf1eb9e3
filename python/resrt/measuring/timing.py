"""The latency of something that is run repeatedly."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter, perf_counter_ns


@dataclass(frozen=True)
class Timing:
    """Latencies of one batch size, in milliseconds per batch, over `repeats` timed runs.

    Median and percentiles are latencies of actual runs: half of the runs took at most `median_ms`,
    nine tenths at most `p90_ms`. With fewer than 100 runs, `p99_ms` is the slowest. All runs
    together took `seconds`, with `concurrency` concurrent callers, each of which waits for its own
    runs.
    """

    batch: int
    repeats: int
    min_ms: float
    median_ms: float
    p90_ms: float
    p99_ms: float
    seconds: float
    concurrency: int = 1

    @property
    def images_per_second(self) -> float:
        """Mean throughput over all timed runs."""
        return self.batch * self.repeats / self.seconds

    def __str__(self) -> str:
        return (
            f"batch {self.batch}: median {self.median_ms:.2f} ms, min {self.min_ms:.2f}, "
            f"p90 {self.p90_ms:.2f}, p99 {self.p99_ms:.2f} "
            f"({self.images_per_second:.0f} images/s, {self.repeats} runs)"
        )


def measure(
    run: Callable[[], object],
    batch: int,
    *,
    repeats: int,
    duration: float = 0.0,
    warm_up: int = 3,
    concurrency: int = 1,
) -> Timing:
    """Time `run`, which processes one batch, after some untimed runs.

    Args:
        run: the function to time. It is called from `concurrency` threads at once.
        batch: the number of images that it processes.
        repeats: the minimum number of timed runs; the exact number if there is one caller and no
            `duration`.
        duration: the minimum number of seconds.
        warm_up: untimed runs of each caller before the timed ones.
        concurrency: the number of concurrent callers.
    """
    stop = threading.Event()

    def call(least: int, until: float) -> list[float]:
        milliseconds: list[float] = []
        while (len(milliseconds) < least or perf_counter() < until) and not stop.is_set():
            start = perf_counter_ns()
            run()
            milliseconds.append((perf_counter_ns() - start) / 1e6)
        return milliseconds

    with ThreadPoolExecutor(concurrency) as callers:

        def call_concurrently(least: int, until: float) -> list[float]:
            calls = [callers.submit(call, least, until) for _ in range(concurrency)]
            return [latency for finished in calls for latency in finished.result()]

        try:
            call_concurrently(warm_up, 0.0)
            start = perf_counter()
            latencies = call_concurrently(-(-repeats // concurrency), start + duration)
            seconds = perf_counter() - start
        finally:
            stop.set()  # otherwise an interrupted measurement would continue to its end
    latencies.sort()
    return Timing(
        batch=batch,
        repeats=len(latencies),
        min_ms=latencies[0],
        median_ms=percentile(latencies, 50),
        p90_ms=percentile(latencies, 90),
        p99_ms=percentile(latencies, 99),
        seconds=seconds,
        concurrency=concurrency,
    )


def percentile(ordered: Sequence[float], percent: int) -> float:
    """Return the smallest of the values that `percent` in a hundred of them do not exceed.

    By nearest rank, so it is one of the values, as in C++ (cpp/src/engine/percentile.h).

    Args:
        ordered: at least one value, in ascending order.
        percent: from 1 to 100.
    """
    rank = -(-percent * len(ordered) // 100)  # from 1, rounded up
    return ordered[rank - 1]
