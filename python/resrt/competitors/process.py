"""A competitor in a process of its own, which runs when it is its turn.

The two processes speak in pickles over pipes: the task goes there, a Report or a Failure comes
back, and then seconds for each turn. Nobody else has the pipes' ends.
"""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from resrt.competitors import Competitor, Ready, Task
from resrt.errors import Error

# What another process is started with: the same modules as here, wherever they come from.
_START = (
    "import sys; sys.path[:] = sys.argv[1:]; from resrt.competitors.process import serve; serve()"
)

# Libraries' idle threads spin for some milliseconds after a run, one for 0.2 s, in case there is
# another. Whoever is next would share the processor with them.
_LONGEST_SPIN = 1.0
_SPINNING = 0.05  # of one processor's time


@dataclass(frozen=True)
class Report:
    """What a competitor that is ready says of itself, and its logits, float32 (N, classes)."""

    version: str
    precision: str
    settings: str
    logits: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Failure:
    """Why a competitor cannot go on, in a sentence."""

    reason: str


class Failed(Exception):
    """A competitor that cannot go on; the text says why."""


class Process:
    """A competitor that gets ready when this is made. Raises Failed, here and at each turn."""

    def __init__(self, competitor: Competitor, task: Task) -> None:
        self.competitor = competitor
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        threads = str(task.threads)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
        )
        try:
            self.report: Report = self._ask((competitor, task))
        except BaseException:
            self.close()
            raise

    def turn(self) -> float:
        """Run once untimed and once more, and return the latter's seconds."""
        seconds: float = self._ask(None)
        return seconds

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._stderr.close()

    def _ask(self, message: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            _send(message, self._process.stdin)
            answer = pickle.load(self._process.stdout)
        except (EOFError, OSError):
            raise Failed(self._last_words()) from None
        if isinstance(answer, Failure):
            raise Failed(answer.reason)
        return answer

    def _last_words(self) -> str:
        status = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        return f"its process ended {how}{f': {said[:200]}' if said else ''}"


def serve() -> None:
    """Be the other process: get a competitor ready, then run it whenever asked."""
    # Libraries print; only answers may go where the answers are read.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        competitor, task = pickle.load(sys.stdin.buffer)
        module = importlib.import_module(competitor.module)
        ready: Ready = module.prepare(task, competitor.name)
        _send(_report(ready), answers)
        while True:
            pickle.load(sys.stdin.buffer)
            _send(timed(ready), answers)
    except EOFError:  # the other side has what it wanted
        return
    except Exception as error:
        _send(Failure(_sentence(error)), answers)


def timed(ready: Ready) -> float:
    """Run once, so that caches and threads are this library's again, and once more, timed.

    Returns when its threads have gone to sleep.
    """
    ready.run()
    start = time.perf_counter()
    ready.run()
    seconds = time.perf_counter() - start
    _settle()
    return seconds


def _settle() -> None:
    end = time.monotonic() + _LONGEST_SPIN
    while time.monotonic() < end:
        wall, processor = time.monotonic(), time.process_time()
        time.sleep(0.005)
        if time.process_time() - processor < _SPINNING * (time.monotonic() - wall):
            return


def _report(ready: Ready) -> Report:
    ready.run()
    logits = np.array(ready.logits(), np.float32)
    return Report(ready.version, ready.precision, ready.settings, logits)


def _sentence(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0][:300] if lines else ""
    return text if isinstance(error, Error) else f"{type(error).__name__}: {text}"


def _send(message: object, stream: IO[bytes]) -> None:
    _Pickler(stream, protocol=5).dump(message)
    stream.flush()


class _Pickler(pickle.Pickler):
    """Sends the core's objects as plain ones with the same attributes."""

    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        if kind.__module__ != "resrt._core" or isinstance(value, type):
            return NotImplemented
        properties = [name for name, member in vars(kind).items() if isinstance(member, property)]
        return _namespace, ({name: getattr(value, name) for name in properties},)


def _namespace(attributes: dict[str, Any]) -> SimpleNamespace:
    return SimpleNamespace(**attributes)
