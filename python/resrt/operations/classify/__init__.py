"""`resrt.classify`: the most probable classes of image files, and `resrt.find_images`."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, cast, overload

from PIL import Image

from resrt import images
from resrt._support.arguments import fraction, whole
from resrt._support.environment import max_pixels
from resrt._support.files import file_kind
from resrt._support.sampling import evenly
from resrt.engine import batches, cluster
from resrt.engine.engine import Engine
from resrt.errors import FileError, InputError
from resrt.images import ImageLike, Prediction
from resrt.operations.explain import OUTPUTS as EXPLAINED
from resrt.operations.explain import OverlayFolder, explained

if TYPE_CHECKING:
    import ray.data


@dataclass(frozen=True)
class Classification:
    """An image file and its most probable classes, or in `error` why it was skipped."""

    image: str
    predictions: list[Prediction] = field(default_factory=list)
    error: str | None = None


@overload
def classify(
    engine: Engine | str | PathLike[str],
    files: Iterable[str | PathLike[str]],
    *,
    topk: int = 5,
    multilabel: bool = False,
    threshold: float | None = None,
    explain: str | PathLike[str] | None = None,
    exact: bool = False,
    workers: int | None = None,
) -> Iterator[Classification]: ...
@overload
def classify(
    engine: Engine | str | PathLike[str],
    files: ray.data.Dataset,
    *,
    topk: int = 5,
    exact: bool = False,
    workers: int | None = None,
) -> ray.data.Dataset: ...
def classify(
    engine: Engine | str | PathLike[str],
    files: Iterable[str | PathLike[str]] | ray.data.Dataset,
    *,
    topk: int = 5,
    multilabel: bool = False,
    threshold: float | None = None,
    explain: str | PathLike[str] | None = None,
    exact: bool = False,
    workers: int | None = None,
) -> Iterator[Classification] | ray.data.Dataset:
    """Classify image files on all cores, and yield the result of each, in order, when it is known.

    An unreadable file is yielded with its error, and the others continue.

    A dataset of Ray is classified on all nodes of its cluster when it is read. The result is a
    dataset too: its rows have the columns "classes", "labels" and "probabilities", lists with the
    most probable class first, and "error", which is null unless the image could not be read. The
    other columns are kept, but not the pixels or the content of files.

    Args:
        engine: an engine, or the path of an engine file, which is loaded for throughput. Load an
            engine of your own with optimize_for="throughput" for the same.
        files: the paths of any number of images; `resrt.find_images` lists those in folders. Or a
            dataset of Ray, with a column "image" of pixels, "bytes" of image files, or "path".
        topk: the number of classes of each image, at most as many as the network has.
        multilabel: whether a probability is the sigmoid of its logit, for a network that was
            trained for several labels per image, instead of a softmax over all classes.
        threshold: omit classes that are less probable.
        explain: a folder for pictures of where each image's best class was found, as
            `Explanation.overlay` draws them. A picture that exists is replaced. Below this folder,
            pictures have the paths that their images have below the current one, or else from the
            root. The engine must have the outputs "logits" and "cam".
        exact: decode every JPEG at full size. By default, one that is several times larger than
            the network needs is decoded at reduced size if the weights' own preprocessing averages
            over pixels anyway; that changes grey levels by 2 on average where there is much detail.
        workers: threads that decode and infer; None: one per core. For a dataset: processors of
            each worker, which loads the engine once; None: 1.

    Raises what `resrt.load` raises, and InputError for invalid arguments or RESRT_MAX_PIXELS. The
    iterator raises FileError if a picture cannot be written.
    """
    topk = whole("topk", topk)
    threshold = None if threshold is None else fraction("threshold", threshold)
    max_pixels()  # its errors are not those of an image
    if cluster.is_dataset(files):
        from resrt.operations.classify.ray import classify_dataset

        if multilabel or threshold is not None or explain is not None:
            raise InputError(
                "a dataset of Ray is classified without multilabel, threshold and explain"
            )
        dataset = cast("ray.data.Dataset", files)
        return classify_dataset(engine, dataset, topk=topk, exact=exact, workers=workers)
    files = cast("Iterable[str | PathLike[str]]", files)
    ready = batches.ready(engine)
    pictures = None if explain is None else OverlayFolder(explain)

    def finish(file: str, found: batches.Outputs) -> Classification:
        if pictures is not None:
            try:
                photograph = images.open_image(file, ready.info.input_shape[0])
            except (FileError, InputError) as error:  # it has changed since it was classified
                return Classification(file, error=str(error))
            shown = explained(ready, photograph, found["logits"], found["cam"])
            pictures.write(file, shown)
        (predictions,) = images.top_k(
            found["logits"][None],
            topk,
            ready.info.labels,
            multilabel=multilabel,
            threshold=threshold,
        )
        return Classification(file, predictions)

    outputs = ["logits"] if explain is None else EXPLAINED
    outcomes = batches.infer_files(
        ready, files, finish, outputs=outputs, exact=exact, workers=workers
    )
    return _classifications(outcomes)


def classify_images(
    engine: Engine,
    given: ImageLike | Sequence[ImageLike],
    topk: int = 5,
    *,
    multilabel: bool = False,
    threshold: float | None = None,
) -> list[list[Prediction]]:
    """Return the most probable classes of images in memory or files; see `Engine.classify`."""
    topk, info = whole("topk", topk), engine.info
    threshold = None if threshold is None else fraction("threshold", threshold)
    several = images.separate(given)
    predictions: list[list[Prediction]] = []
    for start in range(0, len(several), info.max_batch):
        batch = images.preprocess_batch(
            several[start : start + info.max_batch], info.preprocessing, info.input_shape
        )
        predictions += images.top_k(
            engine.logits(batch), topk, info.labels, multilabel=multilabel, threshold=threshold
        )
    return predictions


def _classifications(
    outcomes: Iterator[batches.Outcome[Classification]],
) -> Iterator[Classification]:
    for file, found in outcomes:
        if isinstance(found, Exception):
            yield Classification(file, error=str(found))
        else:
            yield found


def find_images(paths: Iterable[str | PathLike[str]], *, limit: int | None = None) -> list[str]:
    """List the image files that paths name: files, folders with their subfolders, and patterns.

    A folder's images are the files with the suffix of a supported format, sorted by name; hidden
    files are omitted. A path such as ``photos/**/*.jpg`` is a pattern unless such a file exists.
    A path that cannot be read is listed too, also that of a folder, so that classifying it reports
    the reason. So are a pattern without a match and a folder without images, unless there is
    nothing else.

    With `limit`, at most so many images are returned, sampled evenly.

    Raises FileError if no path has images, InputError for an invalid limit.
    """
    found: list[str] = []
    problems: list[FileError] = []
    for path in paths:
        name = fspath(path)
        kind = file_kind(name)
        try:
            if kind == stat.S_IFDIR:
                found += _in_folder(name)
            elif kind is None and glob.has_magic(name):
                found += _matching(name)
            else:
                found.append(name)
        except FileError as error:
            found.append(name)
            problems.append(error)
    if problems and len(problems) == len(found):
        raise problems[0]
    return evenly(found, limit)


def _in_folder(folder: str) -> list[str]:
    formats = Image.registered_extensions()
    files: list[str] = []
    folders = [folder]
    while folders:
        here = folders.pop()
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif formats.get(Path(entry.name).suffix.lower()) in images.FORMATS:
                        files.append(str(Path(entry.path)))
        except OSError:
            files.append(str(Path(here)))
    if not files:
        raise FileError(f"the folder '{folder}' and its subfolders contain no images")
    return sorted(files)


def _matching(pattern: str) -> list[str]:
    # Path.glob does not support absolute patterns.
    matches = glob.glob(pattern, recursive=True)  # noqa: PTH207
    files = [path for path in matches if file_kind(path) in (stat.S_IFREG, 0, None)]
    if files := sorted({*files, *_unreadable(pattern)}):
        return files
    raise FileError(f"no file matches '{pattern}'")


def _unreadable(pattern: str) -> Iterator[str]:
    """Yield the folders in which a pattern could have matches, but that may not be read.

    glob leaves them out without a word.
    """
    folder = os.path.dirname(pattern)  # noqa: PTH120 - Path would normalise the pattern
    while folder and folder != os.path.dirname(folder):  # noqa: PTH120
        for found in glob.iglob(os.path.join(folder, ""), recursive=True):  # noqa: PTH118, PTH207
            if not os.access(found, os.R_OK | os.X_OK):
                yield str(Path(found))
        if not glob.has_magic(folder):
            break
        folder = os.path.dirname(folder)  # noqa: PTH120
