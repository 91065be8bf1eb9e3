"""Progress, which is shown only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


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

    with Console(stderr=True).status(description) as status:

        def show(phase: str, done: int, steps: int) -> None:
            of = f" of {steps}" if steps else ""
            status.update(f"{description}: {phase} {done}{of}")

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
