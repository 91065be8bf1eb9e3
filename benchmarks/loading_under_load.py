"""Measure how long an engine takes to load while threads keep another engine busy, and while idle.

    python benchmarks/loading_under_load.py ResNet18 --callers 8

Idle and busy loads take turns in one process. The ratios are taken within rounds. The inferences
per second of the other engine during the busy loads show what loading costs its callers.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from time import perf_counter

import numpy as np

import resrt
from resrt.measuring.rounds import Spread, order
from resrt.operations import demo
from shared import parser, report

DEMO = "demo"


class Callers:
    """Threads that call `infer` in a loop while they are not paused."""

    def __init__(self, engine: resrt.Engine, count: int) -> None:
        self.inferences = 0
        self._running = threading.Event()
        self._engine = engine
        for _ in range(count):
            threading.Thread(target=self._call, daemon=True).start()

    def run(self) -> None:
        self._running.set()

    def pause(self) -> None:
        self._running.clear()

    def _call(self) -> None:
        image = np.zeros((1, *self._engine.info.input_shape), np.float32)
        while True:
            self._running.wait()
            self._engine.infer(image)
            self.inferences += 1


def main() -> None:
    arguments = parser(__doc__, rounds=10)
    arguments.add_argument("network", help=f"a network, or '{DEMO}' for that of `resrt demo`")
    arguments.add_argument("--callers", type=int, default=8, help="default: %(default)s")
    arguments.add_argument("--threads", type=int, help="threads per inference")
    arguments.add_argument(
        "--busy", type=int, default=0, help="other processes that keep a core busy"
    )
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "engine"
        if options.network == DEMO:
            demo.build_engine().save(file)
        else:
            resrt.build(options.network, "random").save(file)
        loop = [sys.executable, "-c", "while True: pass"]
        others = [subprocess.Popen(loop) for _ in range(options.busy)]
        try:
            measure(file, options)
        finally:
            for other in others:
                other.kill()


def measure(file: Path, options: argparse.Namespace) -> None:
    callers = Callers(resrt.load(file, threads=options.threads), options.callers)
    seconds: dict[str, list[float]] = {"idle": [], "busy": []}
    rates = []

    def load(name: str) -> None:
        if name == "busy":
            callers.run()
            time.sleep(0.3)
        before, start = callers.inferences, perf_counter()
        resrt.load(file, threads=options.threads)
        seconds[name].append(perf_counter() - start)
        if name == "busy":
            rates.append((callers.inferences - before) / seconds[name][-1])
        callers.pause()
        time.sleep(0.3)

    load("idle")
    seconds["idle"].clear()
    for number in range(options.rounds):
        for name in order(list(seconds), number):
            load(name)
    ratios = np.array(seconds["busy"]) / np.array(seconds["idle"])
    report(
        options,
        f"{options.network}, {options.callers} callers",
        {
            "load, idle (s)": Spread.of(seconds["idle"]),
            "load, busy (s)": Spread.of(seconds["busy"]),
            "busy / idle": Spread.of(ratios),
            "inferences per second during a busy load": Spread.of(rates),
        },
    )
    print(f"slowest busy load: {max(seconds['busy']):.2f} s; largest ratio: {ratios.max():.1f}")


if __name__ == "__main__":
    main()
