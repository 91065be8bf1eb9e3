"""How many instances of an engine serve requests, and in which batches: what was measured."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from resrt._core import EngineInfo
from resrt.engine.backends import backends
from resrt.engine.engine import load
from resrt.measuring.timing import Timing
from resrt.system import machine

# What is within this fraction of the highest throughput is as good: it differs from run to run.
_AS_GOOD = 0.95

_LOG = logging.getLogger("resrt.triton")

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """How a model serves requests.

    `instances` are those on the CPU, or on each GPU. `batch_sizes` are preferred. The throughput,
    in images per second on this machine, is None if it was not measured.
    """

    instances: int
    batch_sizes: tuple[int, ...]
    images_per_second: float | None = None


def runs_on_gpu(info: EngineInfo) -> bool:
    """Return whether an engine runs on a GPU."""
    return any(one.name == info.backend and one.runs_on_gpu for one in backends())


def measure(
    file: Path,
    info: EngineInfo,
    *,
    instances: int | None,
    batch_sizes: Sequence[int] | None,
    device: str | None,
    progress: Progress,
) -> Settings:
    """Measure an engine with several numbers of instances; return the fewest with full throughput.

    What is given is not varied. Raises what `resrt.load` raises.
    """
    sizes = batch_sizes or _powers(info.max_batch)
    cores = machine.usable_cores()
    if busy := machine.busy(machine.load(), cores):
        _LOG.warning("%s of '%s', so its instances and batch sizes may not be the best", busy, file)
    on_gpu = runs_on_gpu(info)
    found: list[tuple[int, list[Timing]]] = []
    for count in [instances] if instances else (1, 2) if on_gpu else _powers(cores):
        progress(f"{count} instance{'s' if count > 1 else ''}")
        threads = None if on_gpu else max(1, cores // count)
        engine = load(file, threads=threads, device=device)
        found.append((count, engine.time(sizes, repeats=5, duration=0.5, concurrency=count)))
    count, timings = _fewest(found)
    most = max(timing.images_per_second for timing in timings)
    preferred = batch_sizes or [
        timing.batch for timing in timings if timing.images_per_second >= _AS_GOOD * most
    ]
    return Settings(count, tuple(preferred), most)


def _fewest(found: list[tuple[int, list[Timing]]]) -> tuple[int, list[Timing]]:
    """Return the fewest instances with full throughput. Each of them holds the weights."""

    def throughput(timings: list[Timing]) -> float:
        return max(timing.images_per_second for timing in timings)

    most = max(throughput(timings) for _, timings in found)
    return next(one for one in found if throughput(one[1]) >= _AS_GOOD * most)


def _powers(largest: int) -> list[int]:
    """Return the powers of two below a number, and the number."""
    return [2**i for i in range(largest.bit_length()) if 2**i < largest] + [largest]
