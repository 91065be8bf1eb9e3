"""Many image files through an engine: decoded, preprocessed and inferred in parallel."""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.pool import AsyncResult, ThreadPool
from os import PathLike, fspath
from threading import Event
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from resrt import images
from resrt._support.arguments import whole
from resrt.engine.engine import Engine, load
from resrt.errors import FileError, InputError
from resrt.images import ImageLike
from resrt.system import machine

Result = TypeVar("Result")

# What the engine returned for one image, by the names of its outputs.
Outputs: TypeAlias = dict[str, npt.NDArray[np.float32]]

# What becomes of a file and its outputs, in the thread that computed them.
Finish: TypeAlias = Callable[[str, Outputs], Result]

# A file, and its result or why it was skipped.
Outcome: TypeAlias = tuple[str, Result | FileError | InputError]
LogitsOutcome: TypeAlias = Outcome[npt.NDArray[np.float32]]

# A worker prepares up to this many images and infers them at once. Few, so that all workers finish
# at about the same time.
_LARGEST_SHARE = 4

_MOST_WORKERS = 1024


def ready(engine: Engine | str | PathLike[str]) -> Engine:
    """Return the engine. An engine file is loaded for throughput.

    With one core per inference, none waits for another's threads, and the cores stay busy while
    images are decoded.
    """
    return engine if isinstance(engine, Engine) else load(engine, optimize_for="throughput")


def infer_files(
    engine: Engine,
    files: Iterable[str | PathLike[str]],
    finish: Finish[Result],
    *,
    outputs: Sequence[str] = ("logits",),
    exact: bool = True,
    workers: int | None = None,
) -> Iterator[Outcome[Result]]:
    """Yield what `finish` makes of each file, in order; unreadable files yield an error.

    Args:
        engine: best loaded with optimize_for="throughput", as `ready` does.
        files: paths of images. They are read only a little ahead of the results, so there may be
            any number.
        finish: called in many threads, with a file and its outputs. Its errors end the iteration.
        outputs: the outputs that it reads.
        exact: False allows large JPEGs to be decoded at reduced size; see `images.preprocess`.
        workers: threads that decode and infer; None: one per core that this process may use.

    Raises InputError if the engine lacks one of the outputs, or for other arguments.
    """
    count = machine.usable_cores() if workers is None else whole("workers", workers)
    if count > _MOST_WORKERS:
        raise InputError(f"workers must be an integer of at most {_MOST_WORKERS}, not {count}")
    engine.require_outputs(*outputs)
    images.require_photographs(engine.info.input_shape[0])
    keep_image_memory(2 * count)
    work = functools.partial(infer_share, engine, finish, outputs, exact)
    named = ((fspath(file), file) for file in files)
    return _outcomes(work, named, largest_share(engine), count)


def keep_image_memory(blocks: int) -> None:
    """Let Pillow keep 16 MB blocks of memory for the next image.

    Otherwise it returns each to the system, which clears it again: a tenth of the total time.
    """
    if Image.core.get_blocks_max() < blocks:  # type: ignore[attr-defined]
        Image.core.set_blocks_max(blocks)  # type: ignore[attr-defined]


def _outcomes(
    work: Callable[[Sequence[tuple[str, ImageLike]], Event], list[Outcome[Result]]],
    files: Iterator[tuple[str, ImageLike]],
    size: int,
    workers: int,
) -> Iterator[Outcome[Result]]:
    # Its threads are daemons, so an interrupt waits neither for them nor at the end of the process.
    pool = ThreadPool(workers)
    running: deque[AsyncResult[list[Outcome[Result]]]] = deque()
    stopped = Event()
    try:
        # Two shares per worker: one in progress, one waiting.
        while len(running) < 2 * workers and (some := list(itertools.islice(files, size))):
            running.append(pool.apply_async(work, (some, stopped)))
        while running:
            done = running.popleft().get()
            if some := list(itertools.islice(files, size)):
                running.append(pool.apply_async(work, (some, stopped)))
            yield from done
    finally:
        stopped.set()
        pool.terminate()


def largest_share(engine: Engine) -> int:
    """Return how many images a thread should infer at once."""
    return min(engine.info.max_batch, _LARGEST_SHARE)


def infer_share(
    engine: Engine,
    finish: Finish[Result],
    outputs: Sequence[str],
    exact: bool,
    named: Sequence[tuple[str, ImageLike]],
    stopped: Event | None = None,
) -> list[Outcome[Result]]:
    """Return the outcomes of a few images, which have names, or nothing once it is stopped."""
    info = engine.info
    prepared: dict[int, npt.NDArray[np.float32]] = {}
    errors: dict[int, FileError | InputError] = {}
    for position, (_, image) in enumerate(named):
        if stopped is not None and stopped.is_set():
            return []
        try:
            prepared[position] = images.preprocess(
                image, info.preprocessing, info.input_shape, exact=exact
            )
        except (FileError, InputError) as error:
            errors[position] = error
    inferred = engine.outputs(np.stack(list(prepared.values())), *outputs) if prepared else {}
    rows = dict(zip(prepared, range(len(prepared)), strict=True))
    found: list[Outcome[Result]] = []
    for position, (name, _) in enumerate(named):
        if position in errors:
            found.append((name, errors[position]))
        else:
            row = {output: inferred[output][rows[position]] for output in outputs}
            found.append((name, finish(name, row)))
    return found


def logits_of(_: str, outputs: Outputs) -> npt.NDArray[np.float32]:
    """Return the logits (classes,) among the outputs for an image."""
    return outputs["logits"]
