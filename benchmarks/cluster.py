"""Compare the processor time of classifying on a Ray cluster with that of `resrt.classify`.

    python benchmarks/cluster.py ResNet50 --count 500

The cluster has one node, of all processors of this machine, and is started before. In each round,
in changing order, both classify the same photographs of 1152x864 pixels. The processor time of the
cluster is that of all its processes and of the driver. Some of it is for starting workers, whatever
the number of photographs, so a quarter of them is classified too: the difference is the cost of the
others alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

import resrt
from classify import make_photos
from resrt.measuring.rounds import Spread, order
from resrt.system import machine
from shared import parser, report

_TICKS = os.sysconf("SC_CLK_TCK")


class Meter(threading.Thread):
    """Follows the processor time of this process and its descendants, until they end.

    Ray's workers end with a dataset, and their time is then no longer known to their parent.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._first: dict[int, float] = {}
        self._last: dict[int, float] = {}
        self._ended = threading.Event()
        self._first = self._sample()

    def run(self) -> None:
        while not self._ended.wait(0.25):
            self._last |= self._sample()

    def seconds(self) -> float:
        """Stop, and return the processor seconds since it was created."""
        self._ended.set()
        self.join()
        self._last |= self._sample()
        return sum(last - self._first.get(number, 0) for number, last in self._last.items())

    def _sample(self) -> dict[int, float]:
        parents: dict[int, int] = {}
        times: dict[int, float] = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
                times[int(entry.name)] = sum(map(int, fields[11:13])) / _TICKS
        return {number: time for number, time in times.items() if self._is_ours(number, parents)}

    def _is_ours(self, number: int, parents: dict[int, int]) -> bool:
        while number not in (0, os.getpid()):
            number = parents.get(number, 0)
        return number != 0


def used_by(run: Callable[[], object]) -> float:
    meter = Meter()
    meter.start()
    run()
    return meter.seconds()


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
        runs: dict[str, Callable[[], object]] = {}
        for name, some in (("all", files), ("quarter", files[: count // 4])):
            runs[f"local, {name}"] = lambda some=some: list(resrt.classify(engine, some))
            runs[f"cluster, {name}"] = lambda some=some: resrt.classify_on_cluster(
                file, some, output, overwrite=True
            )
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
    spent = {name: np.array(seconds) for name, seconds in found.items()}
    further = {
        where: spent[f"{where}, all"] - spent[f"{where}, quarter"] for where in ("local", "cluster")
    }
    return {
        **{f"{name}, processor seconds": Spread.of(seconds) for name, seconds in spent.items()},
        "cluster / local": Spread.of(spent["cluster, all"] / spent["local, all"]),
        "cluster / local, of further photographs": Spread.of(further["cluster"] / further["local"]),
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
