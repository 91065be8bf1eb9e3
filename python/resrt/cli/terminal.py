"""What is shown on a terminal only: progress."""

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
    """Show a bar on standard error, where that is a terminal; yield what advances it by one.

    `done` of the `total` steps were taken earlier.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda: None
        return
    with _bar(auto_refresh=True) as bar:
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


@contextmanager
def stages(*, quiet: bool) -> Iterator[Callable[[int, int, str], None] | None]:
    """Yield what shows how far a long measurement is: what is done, of how much, what follows.

    Yields None where nobody would see it. No thread redraws the bar, as for `steps`.
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
    console = Console(stderr=True)
    return Progress(*columns, console=console, redirect_stdout=False, auto_refresh=auto_refresh)
