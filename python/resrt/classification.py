"""What is on photographs: one record for each, as they are classified."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path

from PIL import Image

from resrt import batches, images
from resrt._arguments import whole
from resrt.engine import Engine
from resrt.errors import FileError
from resrt.images import Prediction


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
    """Classify image files on all cores, and yield what each shows, in order, as it is known.

    A file that cannot be read, or is no image, is yielded with its error; the others go on.

    Args:
        engine: an engine or the path of its file. A file is loaded for throughput; an engine of
            your own is best loaded with threads=1.
        files: paths of images, any number; `find` lists those in folders.
        topk: how many classes of each; at most as many as the network has.
        exact: decode every JPEG whole. Otherwise one that is several times larger than the network
            needs is decoded at reduced size, where the weights' own preprocessing averages over
            pixels anyway: grey levels change by less than one on average.
        workers: threads that decode and infer; None: one for each core.

    Raises what `resrt.load` raises, and InputError for bad arguments.
    """
    topk = whole("topk", topk)
    ready = batches.ready(engine)
    return _classifications(
        batches.infer_files(ready, files, exact=exact, workers=workers), topk, ready.info.labels
    )


def _classifications(
    outcomes: Iterator[batches.Outcome], topk: int, labels: list[str]
) -> Iterator[Classification]:
    for file, found in outcomes:
        if isinstance(found, Exception):
            yield Classification(file, error=str(found))
        else:
            (predictions,) = images.top_k(found[None], topk, labels)
            yield Classification(file, predictions)


def find(paths: Iterable[str | PathLike[str]]) -> list[str]:
    """Return the image files that paths name: files, folders with all below them, and patterns.

    A folder's images are those with a suffix of a format that Pillow reads, sorted by name; hidden
    files are left out. A pattern, such as "photos/**/*.jpg", is one where no such file exists.
    Raises FileError for a path that is not there, a pattern without match, a folder without images.
    """
    found: list[str] = []
    for path in paths:
        name = fspath(path)
        if Path(name).is_dir():
            found += _in_folder(name)
        elif not Path(name).exists() and glob.has_magic(name):
            found += _matching(name)
        else:
            found.append(name)  # where it is not there, its own record says so
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
        raise FileError(f"the folder '{folder}' has no images, nor has any below it")
    return sorted(files)


def _matching(pattern: str) -> list[str]:
    # Not Path.glob, which takes no absolute pattern.
    matches = glob.glob(pattern, recursive=True)  # noqa: PTH207
    if files := sorted(path for path in matches if Path(path).is_file()):
        return files
    raise FileError(f"no file matches '{pattern}'")
