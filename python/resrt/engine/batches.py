"""Many image files through an engine: decoded, preprocessed and inferred in parallel."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.pool import AsyncResult, ThreadPool
from os import PathLike, fspath
from threading import Event
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from resrt import images
from resrt._support.arguments import whole
from resrt.engine.engine import Engine, load
from resrt.errors import FileError, InputError
from resrt.system import machine

# A file, and its logits (classes,) or why it was skipped.
Outcome: TypeAlias = tuple[str, npt.NDArray[np.float32] | FileError | InputError]

# A worker prepares up to this many images and infers them at once. Few, so that all workers finish
# at about the same time.
_LARGEST_SHARE = 4


def ready(engine: Engine | str | PathLike[str]) -> Engine:
    """Return the engine. An engine file is loaded for throughput.

    With one core per inference, none waits for another's threads, and the cores stay busy while
    images are decoded.
    """
    return engine if isinstance(engine, Engine) else load(engine, optimize_for="throughput")


def infer_files(
    engine: Engine,
    files: Iterable[str | PathLike[str]],
    *,
    exact: bool = True,
    workers: int | None = None,
) -> Iterator[Outcome]:
    """Yield each file's logits, in order, as they are computed; unreadable files yield an error.

    Args:
        engine: best loaded with optimize_for="throughput", as `ready` does.
        files: paths of images. They are read only a little ahead of the results, so there may be
            any number.
        exact: False allows large JPEGs to be decoded at reduced size; see `images.preprocess`.
        workers: threads that decode and infer; None: one per core that this process may use.
    """
    count = machine.usable_cores() if workers is None else whole("workers", workers)
    images.require_photographs(engine.info.input_shape[0])
    _keep_image_memory(2 * count)
    return _outcomes(engine, iter(files), exact, count)


def _keep_image_memory(blocks: int) -> None:
    """Let Pillow keep 16 MB blocks of memory for the next image.

    Otherwise it returns each to the system, which clears it again: a tenth of the total time.
    """
    if Image.core.get_blocks_max() < blocks:  # type: ignore[attr-defined]
        Image.core.set_blocks_max(blocks)  # type: ignore[attr-defined]


def _outcomes(
    engine: Engine, files: Iterator[str | PathLike[str]], exact: bool, workers: int
) -> Iterator[Outcome]:
    size = min(engine.info.max_batch, _LARGEST_SHARE)
    # Its threads are daemons, so an interrupt waits neither for them nor at the end of the process.
    pool = ThreadPool(workers)
    running: deque[AsyncResult[list[Outcome]]] = deque()
    stopped = Event()
    try:
        # Two shares per worker: one in progress, one waiting.
        while len(running) < 2 * workers and (some := list(itertools.islice(files, size))):
            running.append(pool.apply_async(_infer, (engine, some, exact, stopped)))
        while running:
            done = running.popleft().get()
            if some := list(itertools.islice(files, size)):
                running.append(pool.apply_async(_infer, (engine, some, exact, stopped)))
            yield from done
    finally:
        stopped.set()
        pool.terminate()


def _infer(
    engine: Engine, files: Sequence[str | PathLike[str]], exact: bool, stopped: Event
) -> list[Outcome]:
    """Return the outcomes of a few files, or nothing once it is stopped."""
    info = engine.info
    outcomes: list[Outcome] = []
    prepared: list[npt.NDArray[np.float32]] = []
    for file in files:
        if stopped.is_set():
            return []
        try:
            prepared.append(
                images.preprocess(file, info.preprocessing, info.input_shape, exact=exact)
            )
            outcomes.append((fspath(file), prepared[-1]))
        except (FileError, InputError) as error:
            outcomes.append((fspath(file), error))
    if not prepared:
        return outcomes
    logits = iter(engine.logits(np.stack(prepared)))
    return [
        (file, found if isinstance(found, Exception) else next(logits)) for file, found in outcomes
    ]
