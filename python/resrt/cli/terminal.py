"""What is shown on a terminal only: progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(
    description: str, total: int | None, *, quiet: bool, done: int = 0
) -> Iterator[Callable[[], None]]:
    """Show a bar on standard error, where that is a terminal; yield what advances it by one.

    `done` of the `total` steps were taken earlier.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    # Results are left alone: standard output may be a file.
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as bar:
        task = bar.add_task(description, total=total, completed=done)
        yield lambda: bar.advance(task)


@contextmanager
def waiting(description: str, *, quiet: bool) -> Iterator[None]:
    """Show on standard error, where that is a terminal, that something takes its time."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(description):
        yield


@contextmanager
def steps(*, quiet: bool) -> Iterator[Callable[[str], None] | None]:
    """Yield what shows a step of a measurement, or None where nobody would see it.

    No thread redraws the line, as those above have one: it would disturb what is measured.
    """
    if quiet or not sys.stderr.isatty():
        yield None
        return
    clear = "\r\033[K"
    try:
        yield lambda step: print(f"{clear}measuring: {step} …", end="", file=sys.stderr, flush=True)
    finally:
        print(clear, end="", file=sys.stderr, flush=True)
