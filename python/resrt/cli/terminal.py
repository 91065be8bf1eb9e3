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
    with _bar() as bar:
        task = bar.add_task(description, total=total, completed=done)
        yield lambda: bar.advance(task)


@contextmanager
def stages(*, quiet: bool) -> Iterator[Callable[[int, int, str], None] | None]:
    """Show a bar as `progress` does; yield what is told of each stage: done, total, what follows.

    Yields None where nothing is shown.
    """
    if quiet or not sys.stderr.isatty():
        yield None
        return
    with _bar() as bar:
        task = bar.add_task("", total=None)

        def show(done: int, total: int, following: str) -> None:
            bar.update(task, completed=done, total=total, description=following)

        yield show


@contextmanager
def waiting(description: str, *, quiet: bool) -> Iterator[None]:
    """Show on standard error, where that is a terminal, that something takes its time."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(description):
        yield


def _bar() -> Progress:
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
    return Progress(*columns, console=Console(stderr=True), redirect_stdout=False)
