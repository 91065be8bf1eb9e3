"""Standard output and error: control characters, failures, and progress on a terminal."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from resrt._core import backend_names
from resrt.errors import FileError

if TYPE_CHECKING:
    from rich.progress import Progress

# Control characters of ASCII and Unicode, and the bytes of a file name that are not UTF-8.
_CONTROLS = {
    first + code: f"\\x{code:02x}"
    for first, codes in ((0, [*range(0x20), *range(0x7F, 0xA0)]), (0xDC00, range(0x80, 0x100)))
    for code in codes
}
_CONTROLS_IN_LINE = {code: text for code, text in _CONTROLS.items() if chr(code) not in "\t\n"}


def visible(text: str) -> str:
    """Return a name without control characters, which could act on a terminal."""
    return text.translate(_CONTROLS)


def report_error(message: str) -> None:
    """Report an error, which may have several lines, on standard error."""
    print(f"resrt: {message.translate(_CONTROLS_IN_LINE)}", file=sys.stderr)


@contextmanager
def warnings_shown(*, quiet: bool) -> Iterator[None]:
    """Show the warnings that resrt logs on standard error, each once.

    Those of the inference libraries are for developers, and stay in `logging`. Those of Pillow are
    about details of a file that they do not name.
    """
    logger = logging.getLogger("resrt")
    # Without a handler, Python itself would print warnings.
    handler = logging.NullHandler() if quiet else _Warnings(logging.WARNING)
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    finally:
        logger.removeHandler(handler)


class _Warnings(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._shown: set[str] = set()
        self._libraries = {f"resrt.{name}" for name in backend_names()}

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.name not in self._libraries and message not in self._shown:
            self._shown.add(message)
            report_error(f"warning: {visible(message)}")


class Output:
    """Standard output. A failure raises FileError, or BrokenPipeError if its reader is gone.

    The control characters of a file name or label do not reach a terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._failure: OSError | None = None
        self._replaced = _CONTROLS_IN_LINE if stream.isatty() else {}

    def write(self, text: str) -> int:
        """Write a text."""
        self._try(self._stream.write, text.translate(self._replaced))
        return len(text)

    def flush(self) -> None:
        """Hand everything to the operating system. Raises an earlier failure again."""
        if self._failure is not None:  # argparse ignores it
            raise self._failure
        self._try(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, method: Callable[..., object], *arguments: str) -> None:
        try:
            method(*arguments)
        except OSError as error:
            # Python writes the rest at exit, which must not fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            self._failure = error
            if not isinstance(error, BrokenPipeError):
                reason = f"cannot write to standard output: {error.strerror}"
                self._failure = FileError(reason)
            raise self._failure from None


def report_skipped(error: str) -> None:
    """Report a skipped image on standard error."""
    report_error(f"skipped: {visible(error)}")


def report_number_skipped(skipped: int, total: int) -> None:
    """Report on standard error how many of all images were skipped, if there are any."""
    if skipped:
        report_error(f"skipped {skipped} of {total} images")


@contextmanager
def progress(
    description: str, total: int | None, *, quiet: bool, done: int = 0
) -> Iterator[Callable[[], None]]:
    """Show a progress bar if standard error is a terminal; yield a function that advances it.

    `done` of the `total` steps were already done.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda: None
        return
    with _bar(auto_refresh=True) as bar:
        task = bar.add_task(description, total=total, completed=done)
        yield lambda: bar.advance(task)


@contextmanager
def waiting(description: str, *, quiet: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """Show a status line if standard error is a terminal; yield a function that adds a phase to it.

    The function takes the name of a phase, the number of its steps that are done, and how many it
    has, 0 if unknown.
    """
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.text import Text

    description = visible(description)
    with Console(stderr=True).status(Text(description)) as status:

        def show(phase: str, done: int, steps: int) -> None:
            of = f" of {steps}" if steps else ""
            status.update(Text(f"{description}: {phase} {done}{of}"))

        yield show


@contextmanager
def steps(*, quiet: bool) -> Iterator[Callable[[str], None] | None]:
    """Yield a function that shows a step of a measurement; None if there is no terminal.

    Unlike above, no thread redraws the line: it would disturb the measurement.
    """
    if quiet or not sys.stderr.isatty():
        yield None
        return
    clear = "\r\033[K"
    try:
        yield lambda step: print(f"{clear}measuring: {step} …", end="", file=sys.stderr, flush=True)
    finally:
        print(clear, end="", file=sys.stderr, flush=True)


@contextmanager
def stages(*, quiet: bool) -> Iterator[Callable[[int, int, str], None] | None]:
    """Yield a function that shows the progress of a long measurement; None without a terminal.

    The function takes the number of steps that are done, their total, and the next one's name. As
    for `steps`, no thread redraws the bar.
    """
    if quiet or not sys.stderr.isatty():
        yield None
        return
    with _bar(auto_refresh=False) as bar:
        task = bar.add_task("", total=None)

        def show(done: int, total: int, following: str) -> None:
            bar.update(task, completed=done, total=total, description=following, refresh=True)

        yield show


def _bar(*, auto_refresh: bool) -> Progress:
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        redirect_stdout=False,  # it may be a file
        auto_refresh=auto_refresh,
    )
