"""How long each long operation takes, and how soon an interrupt (Ctrl-C) ends it.

    python tools/interrupts.py

Each operation runs once to its end, then `--rounds` times in a process of its own that gets SIGINT
at a moment in its middle. Prints the seconds from the signal to KeyboardInterrupt, and to the end
of the process, which is the time until a shell's prompt returns. The network has random weights.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import resrt

# What a process does. It prints when it begins, when it is interrupted, and when it is done.
PROGRAM = """
import signal, sys, time
import numpy, resrt
name, folder, network = sys.argv[1:]
needs_engine = name not in ("build", "load", "report")
engine = resrt.load(f"{folder}/x.engine", threads=1) if needs_engine else None
operations = {
    "build": lambda: resrt.build(network, "random"),
    "load": lambda: resrt.load(f"{folder}/x.engine"),
    "infer": lambda: engine.infer(numpy.zeros((400, 3, 224, 224), numpy.float32)),
    "classify": lambda: list(resrt.classify(engine, [f"{folder}/0/photo.jpg"] * 400)),
    "Engine.classify": lambda: engine.classify([f"{folder}/0/photo.jpg"] * 400),
    "eval": lambda: resrt.eval(engine, [resrt.LabelledImage(f"{folder}/0/photo.jpg", 0)] * 400),
    "time": lambda: engine.time([8], repeats=100),
    "report": lambda: resrt.report(f"{folder}/page.html", networks=[network], repeats=3, rounds=1),
}
print("begin", flush=True)
try:
    operations[name]()
except KeyboardInterrupt:
    print(time.time(), flush=True)
else:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("done", flush=True)
"""
OPERATIONS = ("build", "load", "infer", "classify", "Engine.classify", "eval", "time", "report")


class Run:
    """A process that does one operation in a folder with an engine and a photograph."""

    def __init__(self, operation: str, folder: Path, network: str) -> None:
        command = [sys.executable, "-c", PROGRAM, operation, str(folder), network]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._line() == "begin"
        self.began = time.time()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def until_done(self) -> float:
        """Return the seconds that the operation takes."""
        assert self._line() == "done"
        taken = time.time() - self.began
        self.process.wait()
        return taken

    def interrupt(self, after: float) -> tuple[float, float] | None:
        """Return the seconds until KeyboardInterrupt, and until the end of the process.

        None if the operation was done before.
        """
        time.sleep(after)
        sent = time.time()
        os.kill(self.process.pid, signal.SIGINT)
        line = self._line()
        self.process.wait()
        return None if line in ("done", "") else (float(line) - sent, time.time() - sent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="ResNeSt50")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--operations", nargs="+", choices=OPERATIONS, default=OPERATIONS)
    options = parser.parse_args()
    moment = random.Random(0)
    print(f"{'':16} takes  KeyboardInterrupt after  the process ends after   (longest, seconds)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        resrt.build(options.network, "random").save(folder / "x.engine")
        (folder / "0").mkdir()
        noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
        Image.fromarray(noise).save(folder / "0" / "photo.jpg")
        for operation in options.operations:
            whole = Run(operation, folder, options.network).until_done()
            found: list[tuple[float, float]] = []
            while len(found) < options.rounds:
                run = Run(operation, folder, options.network)
                if measured := run.interrupt(moment.uniform(0.1, 0.8) * whole):
                    found.append(measured)
            raised, ended = (max(seconds) for seconds in zip(*found, strict=True))
            print(f"{operation:16} {whole:5.1f}  {raised:23.2f}  {ended:22.2f}", flush=True)


if __name__ == "__main__":
    main()
