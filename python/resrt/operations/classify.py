"""`resrt.classify`: the most probable classes of image files, and `resrt.find_images`."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from PIL import Image

from resrt import images
from resrt._support.arguments import whole
from resrt.engine import batches
from resrt.engine.engine import Engine
from resrt.errors import FileError
from resrt.images import ImageLike, Prediction


@dataclass(frozen=True)
class Classification:
    """An image file and its most probable classes, or in `error` why it was skipped."""

    image: str
    predictions: list[Prediction] = field(default_factory=list)
    error: str | None = None


def classify(
    engine: Engine | str | PathLike[str],
    files: Iterable[str | PathLike[str]],
    *,
    topk: int = 5,
    exact: bool = False,
    workers: int | None = None,
) -> Iterator[Classification]:
    """Classify image files on all cores, and yield the result of each, in order, when it is known.

    An unreadable file is yielded with its error, and the others continue.

    Args:
        engine: an engine, or the path of an engine file, which is loaded for throughput. Load an
            engine of your own with threads=1 for the same.
        files: the paths of any number of images; `resrt.find_images` lists those in folders.
        topk: the number of classes of each image, at most as many as the network has.
        exact: decode every JPEG at full size. By default, one that is several times larger than
            the network needs is decoded at reduced size if the weights' own preprocessing averages
            over pixels anyway; that changes grey levels by 2 on average where there is much detail.
        workers: threads that decode and infer; None: one per core.

    Raises what `resrt.load` raises, and InputError for invalid arguments.
    """
    topk = whole("topk", topk)
    ready = batches.ready(engine)
    outcomes = batches.infer_files(ready, files, exact=exact, workers=workers)
    return _classifications(outcomes, topk, ready.info.labels)


def classify_images(
    engine: Engine, given: ImageLike | Sequence[ImageLike], topk: int = 5
) -> list[list[Prediction]]:
    """Return the most probable classes of images in memory or files; see `Engine.classify`."""
    topk, info = whole("topk", topk), engine.info
    is_sequence = isinstance(given, Sequence) and not isinstance(given, str)
    several: Sequence[Any] = given if is_sequence else [given]  # type: ignore[assignment]
    predictions: list[list[Prediction]] = []
    for start in range(0, len(several), info.max_batch):
        batch = images.preprocess_batch(
            several[start : start + info.max_batch], info.preprocessing, info.input_shape
        )
        predictions += images.top_k(engine.infer(batch), topk, info.labels)
    return predictions


def _classifications(
    outcomes: Iterator[batches.Outcome], topk: int, labels: list[str]
) -> Iterator[Classification]:
    for file, found in outcomes:
        if isinstance(found, Exception):
            yield Classification(file, error=str(found))
        else:
            (predictions,) = images.top_k(found[None], topk, labels)
            yield Classification(file, predictions)


def find_images(paths: Iterable[str | PathLike[str]]) -> list[str]:
    """List the image files that paths name: files, folders with their subfolders, and patterns.

    A folder's images are the files with the suffix of a format that Pillow reads, sorted by name;
    hidden files are omitted. A path such as ``photos/**/*.jpg`` is a pattern unless such a file
    exists. Raises FileError for a pattern without a match or a folder without images.
    """
    found: list[str] = []
    for path in paths:
        name = fspath(path)
        if Path(name).is_dir():
            found += _in_folder(name)
        elif not Path(name).exists() and glob.has_magic(name):
            found += _matching(name)
        else:
            found.append(name)  # if it is missing, classifying it reports that
    return found


def _in_folder(folder: str) -> list[str]:
    suffixes = Image.registered_extensions().keys()
    files: list[str] = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [
            str(Path(root, name))
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes
        ]
    if not files:
        raise FileError(f"the folder '{folder}' and its subfolders contain no images")
    return sorted(files)


def _matching(pattern: str) -> list[str]:
    # Path.glob does not support absolute patterns.
    matches = glob.glob(pattern, recursive=True)  # noqa: PTH207
    if files := sorted(path for path in matches if Path(path).is_file()):
        return files
    raise FileError(f"no file matches '{pattern}'")
