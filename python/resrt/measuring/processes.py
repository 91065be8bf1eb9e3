"""Functions in a process of their own, so that one that crashes affects no other.

The two processes exchange pickles over pipes, to which nobody else has access: a function and its
arguments go to the child; whether it succeeded, and its result or the reason, come back.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import IO, Any, TypeVar

from resrt.errors import Error

Result = TypeVar("Result")

# The child imports the same modules as this process, wherever they come from.
_START = (
    "import sys; sys.path[:] = sys.argv[1:]; from resrt.measuring.processes import serve; serve()"
)


class Failed(Exception):
    """A process or its function failed; the text is the reason."""


class Process:
    """A process that runs functions on request.

    It has its own session. When it is closed, everything that it has started ends with it.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )

    def call(
        self, function: Callable[..., Result], *arguments: object, timeout: float | None = None
    ) -> Result:
        """Return what a function of a module returns in the process.

        Raises Failed if it raises an exception, the process ends, or `timeout` seconds pass; in the
        last two cases the process can only be closed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            _send((function, arguments), self._process.stdin)
            if not select.select([self._process.stdout], [], [], timeout)[0]:
                raise Failed(f"no result within {timeout:.0f} s")
            succeeded, answer = pickle.load(self._process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):  # the last if the answer is cut off
            raise Failed(self._last_words()) from None
        if not succeeded:
            raise Failed(answer)
        result: Result = answer
        return result

    def close(self) -> None:
        """End the process and everything that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.communicate()
        self._stderr.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _last_words(self) -> str:
        status = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        return f"its process ended {how}{f': {said[:200]}' if said else ''}"


def serve() -> None:
    """Run functions for the parent process until it closes its end of the pipe."""
    requests = os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    # Libraries print to stdout; only answers may go where the parent reads them.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    while requests.peek():
        try:
            function, arguments = pickle.load(requests)
            answer = True, function(*arguments)
        except Exception as error:
            answer = False, sentence(error)
        _send(answer, answers)


def sentence(error: Exception) -> str:
    """Return an exception as one sentence: its first line, with its type unless it is resrt's."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0][:300] if lines else ""
    return text if isinstance(error, (Error, Failed)) else f"{type(error).__name__}: {text}"


def _send(message: object, stream: IO[bytes]) -> None:
    _Pickler(stream, protocol=5).dump(message)
    stream.flush()


class _Pickler(pickle.Pickler):
    """Sends the core's objects as plain ones with the same attributes."""

    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        is_of_core = kind.__module__ == "resrt._core" and not isinstance(value, type)
        if not is_of_core or "__reduce__" in vars(kind):  # which layer definitions have
            return NotImplemented
        properties = [name for name, member in vars(kind).items() if isinstance(member, property)]
        return SimpleNamespace, (), {name: getattr(value, name) for name in properties}
