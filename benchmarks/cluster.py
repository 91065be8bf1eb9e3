"""Compare the processor time of classifying on a Ray cluster with that of `resrt.classify`.

    python benchmarks/cluster.py ResNet50 --count 500

The cluster has one node, of all processors of this machine, and is started before. In each round,
in changing order, both classify the same photographs of 1152x864 pixels. The processor time of the
cluster is that of all its processes and of the driver.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import resrt
from classify import make_photos
from resrt.measuring.rounds import Spread, order
from resrt.system import machine
from shared import parser, report

_TICKS = os.sysconf("SC_CLK_TCK")


def seconds_of_family() -> float:
    """Return the processor time of this process and of its descendants, also of ended ones."""
    parents: dict[int, int] = {}
    times: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            number = int(entry.name)
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            parents[number] = int(fields[1])
            times[number] = sum(map(int, fields[11:15])) / _TICKS
    total = 0.0
    for number in times:
        ancestor = number
        while ancestor not in (0, os.getpid()):
            ancestor = parents.get(ancestor, 0)
        if ancestor:
            total += times[number]
    return total


def used_by(run: Callable[[], object]) -> float:
    before = seconds_of_family()
    run()
    return seconds_of_family() - before


def measure(network: str, precision: str, count: int, rounds: int) -> dict[str, Spread]:
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": machine.usable_cores()}, connect=True
    )
    folder = Path(tempfile.mkdtemp())
    try:
        photos, file = folder / "photos", folder / "network.engine"
        photos.mkdir()
        make_photos(photos, count)
        resrt.build(network, "random", precision=precision).save(file)
        files = resrt.find_images([photos])
        engine = resrt.load(file, optimize_for="throughput")
        output = folder / "out"
        runs: dict[str, Callable[[], object]] = {
            "resrt.classify": lambda: list(resrt.classify(engine, files)),
            "on a Ray cluster": lambda: resrt.classify_on_cluster(
                file, files, output, overwrite=True
            ),
        }
        found: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(-1, rounds):  # the first round warms up
            for name in order(list(runs), max(number, 0)):
                seconds = used_by(runs[name])
                if number >= 0:
                    found[name].append(seconds)
    finally:
        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(folder)
    local, distributed = (np.array(seconds) for seconds in found.values())
    return {
        **{f"{name}, processor seconds": Spread.of(np.array(s)) for name, s in found.items()},
        "on a Ray cluster / resrt.classify": Spread.of(distributed / local),
    }


def main() -> None:
    arguments = parser(__doc__, rounds=3)
    arguments.add_argument("network")
    arguments.add_argument("--count", type=int, default=500, help="photographs")
    arguments.add_argument("--precision", default="auto", choices=resrt.PRECISIONS)
    options = arguments.parse_args()
    results = measure(options.network, options.precision, options.count, options.rounds)
    report(options, f"{options.count} photographs with {options.network}", results)


if __name__ == "__main__":
    main()
