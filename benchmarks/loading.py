"""Measure how long an engine takes to load, its memory, and its first and later inferences.

    python benchmarks/loading.py resnest50d --max-batch 1 8

Every load has a new process. Memory is what the process gains while it loads the engine. Inferences
are of one image.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import astuple, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

import resrt
from resrt.measuring.processes import Process
from resrt.measuring.rounds import Spread, order, turn
from shared import parser, report


@dataclass(frozen=True)
class Loaded:
    load_s: float
    memory_mb: float
    first_ms: float
    later_ms: float


def load(file: Path) -> Loaded:
    """Load an engine, in a process that has not loaded one before."""
    before, start = resident_mb(), perf_counter()
    engine = resrt.load(file)
    loaded, after = perf_counter(), resident_mb()
    image = np.zeros((1, *engine.info.input_shape), np.float32)
    first = perf_counter()
    engine.infer(image)
    first_ms = 1e3 * (perf_counter() - first)
    later_ms = 1e3 * turn(lambda: engine.infer(image), repeats=10)
    return Loaded(loaded - start, after - before, first_ms, later_ms)


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    arguments = parser(__doc__, rounds=10)
    arguments.add_argument("network")
    arguments.add_argument("--max-batch", type=int, nargs="+", default=[1, 8])
    options = arguments.parse_args()
    found: dict[int, list[Loaded]] = {size: [] for size in options.max_batch}
    with tempfile.TemporaryDirectory() as folder:
        for size in found:
            engine = resrt.build(options.network, "random", max_batch=size)
            engine.save(Path(folder) / f"{size}.engine")
        for number in range(options.rounds):
            for size in order(list(found), number):
                with Process() as process:
                    loaded = process.call(load, Path(folder) / f"{size}.engine")
                found[size].append(loaded)
    names = ("load (s)", "memory (MB)", "first inference (ms)", "later inferences (ms)")
    results = {
        f"max_batch {size}: {name}": Spread.of(values)
        for size, loads in found.items()
        for name, values in zip(names, zip(*map(astuple, loads), strict=True), strict=True)
    }
    report(options, options.network, results)


if __name__ == "__main__":
    # Imported by its name, so that other processes can import `load` too.
    import loading

    loading.main()
