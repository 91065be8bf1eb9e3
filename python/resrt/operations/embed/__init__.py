"""`resrt.embed`: the pooled features of image files, for search, clustering and linear probes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os import PathLike

import numpy as np
import numpy.typing as npt

from resrt._support.environment import max_pixels
from resrt.engine import batches
from resrt.engine.engine import Engine


@dataclass(frozen=True, eq=False)
class Embedding:
    """An image file and its features, float32 (C,), or in `error` why it was skipped."""

    image: str
    features: npt.NDArray[np.float32] | None = None
    error: str | None = None


def embed(
    engine: Engine | str | PathLike[str],
    files: Iterable[str | PathLike[str]],
    *,
    exact: bool = False,
    workers: int | None = None,
) -> Iterator[Embedding]:
    """Compute the features of image files on all cores, and yield those of each file, in order.

    The features are what the network's classifier reads: the mean of the last stage over height and
    width. An unreadable file is yielded with its error, and the others continue.

    Args:
        engine: an engine with the output "features", or the path of its file, which is loaded for
            throughput.
        files: the paths of any number of images; `resrt.find_images` lists those in folders.
        exact: decode every JPEG at full size, as for `resrt.classify`.
        workers: threads that decode and infer; None: one per core.

    Raises what `resrt.load` raises, and InputError for an engine without features, invalid
    arguments or RESRT_MAX_PIXELS.
    """
    max_pixels()  # its errors are not those of an image
    outcomes = batches.infer_files(
        batches.ready(engine),
        files,
        lambda _, found: found["features"],
        outputs=["features"],
        exact=exact,
        workers=workers,
    )
    return _embeddings(outcomes)


def _embeddings(
    outcomes: Iterator[batches.Outcome[npt.NDArray[np.float32]]],
) -> Iterator[Embedding]:
    for file, found in outcomes:
        if isinstance(found, Exception):
            yield Embedding(file, error=str(found))
        else:
            yield Embedding(file, found)
