"""How long an inference takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Timing:
    """Latencies of one batch size, in milliseconds per batch, over `repeats` timed runs."""

    batch: int
    repeats: int
    min_ms: float
    median_ms: float
    p90_ms: float
    p99_ms: float

    @property
    def images_per_second(self) -> float:
        """Throughput at the median latency."""
        return 1000 * self.batch / self.median_ms

    def __str__(self) -> str:
        return (
            f"batch {self.batch}: median {self.median_ms:.2f} ms, min {self.min_ms:.2f}, "
            f"p90 {self.p90_ms:.2f}, p99 {self.p99_ms:.2f} "
            f"({self.images_per_second:.0f} images/s, {self.repeats} runs)"
        )


def measure(run: Callable[[], object], batch: int, *, repeats: int, warm_up: int = 3) -> Timing:
    """Time `run`, which processes one batch, `repeats` times after some untimed runs."""
    for _ in range(warm_up):
        run()
    milliseconds = np.empty(repeats)
    for i in range(repeats):
        start = time.perf_counter_ns()
        run()
        milliseconds[i] = (time.perf_counter_ns() - start) / 1e6
    p50, p90, p99 = np.percentile(milliseconds, [50, 90, 99])
    return Timing(batch, repeats, milliseconds.min().item(), p50.item(), p90.item(), p99.item())
