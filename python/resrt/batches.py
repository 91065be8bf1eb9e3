"""Many image files through an engine: decoded, prepared and inferred side by side."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from os import PathLike, fspath
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from resrt import images, machine
from resrt._arguments import whole
from resrt.engine import Engine, load
from resrt.errors import FileError, InputError

# A file, and its logits (classes,), or why it was skipped.
Outcome: TypeAlias = tuple[str, npt.NDArray[np.float32] | FileError | InputError]

# Of images that a worker prepares and then infers at once: few, so that all workers end together.
_MOST_AT_ONCE = 4


def ready(engine: Engine | str | PathLike[str], *, device: str | None = None) -> Engine:
    """Return the engine; that of a file runs as many inferences at once as there are cores.

    With a core for each inference none waits for another's threads, and the cores have work while
    an image is decoded. `device` is the GPU that it is loaded on, where it runs on one.
    """
    return engine if isinstance(engine, Engine) else load(engine, threads=1, device=device)


def infer_files(
    engine: Engine,
    files: Iterable[str | PathLike[str]],
    *,
    exact: bool = True,
    workers: int | None = None,
) -> Iterator[Outcome]:
    """Yield each file's logits, in order, as they come; a file that is no image is no end of it.

    Args:
        engine: best loaded with threads=1, as `ready` does.
        files: paths of images; taken a little ahead of what is yielded, so there may be any number.
        exact: False allows large JPEGs to be decoded at reduced size, see `images.preprocess`.
        workers: threads that decode and infer; None: one for each core.
    """
    count = machine.cores() if workers is None else whole("workers", workers)
    images.require_photographs(engine.info.input_shape[0])
    _keep_image_memory(2 * count)
    return _outcomes(engine, iter(files), exact, count)


def _keep_image_memory(blocks: int) -> None:
    """Have Pillow use blocks of memory, of 16 MB, again for the next image.

    Otherwise it returns each to the system, which clears it anew: a tenth of all the time.
    """
    if Image.core.get_blocks_max() < blocks:  # type: ignore[attr-defined]
        Image.core.set_blocks_max(blocks)  # type: ignore[attr-defined]


def _outcomes(
    engine: Engine, files: Iterator[str | PathLike[str]], exact: bool, workers: int
) -> Iterator[Outcome]:
    size = min(engine.info.max_batch, _MOST_AT_ONCE)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="resrt")
    running: deque[Future[list[Outcome]]] = deque()
    try:
        # Two for each worker: one that it works on, one that waits for it.
        while len(running) < 2 * workers and (some := list(itertools.islice(files, size))):
            running.append(pool.submit(_infer, engine, some, exact))
        while running:
            done = running.popleft().result()
            if some := list(itertools.islice(files, size)):
                running.append(pool.submit(_infer, engine, some, exact))
            yield from done
    finally:
        pool.shutdown(cancel_futures=True)


def _infer(engine: Engine, files: Sequence[str | PathLike[str]], exact: bool) -> list[Outcome]:
    info = engine.info
    outcomes: list[Outcome] = []
    prepared: list[npt.NDArray[np.float32]] = []
    for file in files:
        try:
            prepared.append(
                images.preprocess(file, info.preprocessing, info.input_shape, exact=exact)
            )
            outcomes.append((fspath(file), prepared[-1]))
        except (FileError, InputError) as error:
            outcomes.append((fspath(file), error))
    if not prepared:
        return outcomes
    logits = iter(engine.infer(np.stack(prepared)))
    return [
        (file, found if isinstance(found, Exception) else next(logits)) for file, found in outcomes
    ]
