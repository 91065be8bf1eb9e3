"""One competitor in a process of its own, which runs when it is its turn."""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from resrt.measuring import rounds
from resrt.measuring.processes import Process
from resrt.operations.compare.competitors import Competitor, Ready, Task

# After a run, idle threads of a library spin for some milliseconds, up to 0.2 s, in case it runs
# again. They would take processor time from the next contender.
_LONGEST_SPIN = 1.0
_SPINNING = 0.05  # of one processor's time


@dataclass(frozen=True)
class Report:
    """What a prepared competitor reports about itself, and its logits, float32 (N, classes)."""

    version: str
    precision: str
    settings: str
    logits: npt.NDArray[np.float32]


class Contender:
    """A competitor that is prepared in its own process. Raises Failed, here and at each turn."""

    def __init__(self, competitor: Competitor, task: Task) -> None:
        threads = str(task.threads)
        self.competitor = competitor
        self._process = Process({"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads})
        try:
            self.report = self._process.call(prepare, competitor, task)
        except BaseException:
            self.close()
            raise

    def turn(self) -> float:
        """Return the seconds of one timed run."""
        return self._process.call(take_turn)

    def close(self) -> None:
        """End the process."""
        self._process.close()


# In the competitor's process: what `prepare` prepared.
_ready: list[Ready] = []


def prepare(competitor: Competitor, task: Task) -> Report:
    """In the competitor's process, prepare it and run it once."""
    ready: Ready = importlib.import_module(competitor.module).prepare(task, competitor.name)
    _ready[:] = [ready]
    ready.run()
    logits = np.array(ready.logits(), np.float32)
    return Report(ready.version, ready.precision, ready.settings, logits)


def take_turn() -> float:
    """In the competitor's process, take a turn. Returns when its threads have gone to sleep."""
    seconds = rounds.turn(_ready[0].run)
    _settle()
    return seconds


def _settle() -> None:
    end = time.monotonic() + _LONGEST_SPIN
    while time.monotonic() < end:
        wall, processor = time.monotonic(), time.process_time()
        time.sleep(0.005)
        if time.process_time() - processor < _SPINNING * (time.monotonic() - wall):
            return
