"""`resrt.eval` of networks that give each image several labels."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt

from resrt import images
from resrt._support.arguments import fraction
from resrt._support.files import is_folder
from resrt._support.sampling import evenly
from resrt.engine import batches
from resrt.engine.engine import Engine
from resrt.errors import FileError, InputError
from resrt.operations.eval.lists import is_number, lines_of


@dataclass(frozen=True)
class MultilabelledImage:
    """An image file and the numbers of the classes that it shows, in order, each once."""

    image: str
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Scores:
    """The probability of each class of an image, by the sigmoid of its logit.

    A probability is NaN if a logit is NaN or infinite. For an image that was skipped,
    `probabilities` is None and `error` is the reason.
    """

    image: str
    labels: tuple[int, ...]
    probabilities: tuple[float, ...] | None
    error: str | None = None


@dataclass(frozen=True)
class MultilabelEvaluation:
    """How well the labels of `total` images are found; `skipped` could not be read.

    Attributes:
        model: the network.
        total: the number of images.
        classes: the number of classes that any image shows.
        mean_average_precision: the mean over these classes of the average precision, which is the
            area below the steps of precision over recall.
        threshold: the probability from which a class counts as found in the following.
        precision: the fraction of all labels found that are right; NaN if none is found.
        recall: the fraction of all labels that are found.
        f1: the harmonic mean of precision and recall.
        skipped: the images that could not be read.
    """

    model: str
    total: int
    classes: int
    mean_average_precision: float
    threshold: float
    precision: float
    recall: float
    f1: float
    skipped: list[Scores] = field(default_factory=list)


def multilabelled_images(
    data: str | PathLike[str],
    engine: Engine,
    *,
    root: str | PathLike[str] | None = None,
    limit: int | None = None,
) -> list[MultilabelledImage]:
    """List the images of a list file with the numbers of their classes.

    Each line is a path, a tab, and the class numbers with spaces between them, or as PaddleClas has
    it, a 0 or 1 for each class with commas between them. Without a tab, the path is what precedes
    the last numbers. An image may have no class.

    Args:
        data: the list file.
        engine: the engine that is to be evaluated.
        root: the folder to which the paths are relative; None: the list's folder.
        limit: the maximum number of images, sampled evenly; None: all.

    Raises FileError if the file cannot be read, InputError for lines that name no image or class.
    """
    path = Path(data)
    if is_folder(path):
        raise FileError(
            f"'{path}' is a folder, whose subfolders give each image one class; several are in a "
            "list file, with a line 'path 3 17' for each image"
        )
    folder = path.parent if root is None else Path(root)
    listed = []
    for number, line in enumerate(lines_of(path), 1):
        if line.strip():
            name, labels = _parsed(line, f"line {number} of '{path}'", engine)
            listed.append(MultilabelledImage(str(folder / name), labels))
    if not listed:
        raise InputError(f"the list '{path}' is empty")
    return evenly(listed, limit)


def _parsed(line: str, where: str, engine: Engine) -> tuple[str, tuple[int, ...]]:
    name, tab, rest = line.strip("\r\n").partition("\t")
    numbers = rest.split()
    if not tab:
        words = line.split()
        count = next((i for i, word in enumerate(reversed(words)) if not _is_number(word)), 0)
        numbers = words[len(words) - count :]
        name = line.strip()
        for word in reversed(numbers):  # the name may have several spaces
            name = name.removesuffix(word).rstrip()
    classes = engine.info.classes
    if len(numbers) == 1 and "," in numbers[0]:
        flags = numbers[0].split(",")
        if len(flags) != classes or not set(flags) <= {"0", "1"}:
            raise InputError(
                f"{where} must have a 0 or 1 for each of the {classes} classes of "
                f"{engine.info.model}, with commas between them"
            )
        numbers = [str(i) for i, flag in enumerate(flags) if flag == "1"]
    if not name or not all(map(is_number, numbers)):
        raise InputError(
            f"{where} must be a path, a tab and class numbers, such as 'val/1.jpg\\t3 17', not "
            f"'{line[:80]}'"
        )
    labels = tuple(sorted({int(number) for number in numbers}))
    if labels and labels[-1] >= classes:
        raise InputError(
            f"{where} has the class {labels[-1]}, but {engine.info.model} has classes 0 to "
            f"{classes - 1}; use the labels that it was trained for"
        )
    return name, labels


def _is_number(word: str) -> bool:
    return word.replace(",", "").isdecimal()


def eval_multilabel(
    engine: Engine,
    data: str | PathLike[str] | Sequence[MultilabelledImage],
    *,
    root: str | PathLike[str] | None,
    limit: int | None,
    workers: int | None,
    threshold: float,
    known: Collection[Scores],
    each: Callable[[Scores], None] | None,
) -> MultilabelEvaluation:
    """Evaluate as `resrt.eval` does with `multilabel`, with an engine that is loaded."""
    threshold = fraction("threshold", threshold)
    if isinstance(data, (str, PathLike)):
        data = multilabelled_images(data, engine, root=root)
    elif root is not None:
        raise InputError("root is only for a list file; labelled images already have their paths")
    chosen = evenly(data, limit)
    found = {(scores.image, scores.labels): scores for scores in known}
    scores = [found[key] for image in chosen if (key := (image.image, image.labels)) in found]
    remaining = [image for image in chosen if (image.image, image.labels) not in found]
    for one in _scores(engine, remaining, workers):
        scores.append(one)
        if each is not None:
            each(one)
    return _summary(engine.info.model, scores, threshold)


def _scores(
    engine: Engine, listed: list[MultilabelledImage], workers: int | None
) -> Iterator[Scores]:
    files = (image.image for image in listed)
    outcomes = batches.infer_files(engine, files, batches.logits_of, workers=workers)
    for image, (_, found) in zip(listed, outcomes, strict=True):
        if isinstance(found, Exception):
            yield Scores(image.image, image.labels, None, str(found))
        else:
            probabilities = images.sigmoid(found)
            if not np.isfinite(found).all():
                probabilities[:] = np.nan
            yield Scores(image.image, image.labels, tuple(probabilities.tolist()))


def _summary(model: str, scores: list[Scores], threshold: float) -> MultilabelEvaluation:
    read = [one for one in scores if one.probabilities is not None]
    skipped = [one for one in scores if one.probabilities is None]
    if not read:
        reason = f"; the first: {skipped[0].error}" if skipped else ""
        raise InputError(f"none of the {len(scores)} images could be read{reason}")
    # NaN is no reason to see a class.
    probabilities = np.nan_to_num(np.array([one.probabilities for one in read]), nan=-1.0)
    shown = np.zeros(probabilities.shape, bool)
    for row, one in zip(shown, read, strict=True):
        row[list(one.labels)] = True
    with_images = np.flatnonzero(shown.any(0))
    if not len(with_images):
        raise InputError(f"none of the {len(read)} images has a class; there is nothing to find")
    said = probabilities >= threshold
    right = int((said & shown).sum())
    precision = right / int(said.sum()) if said.any() else float("nan")
    recall = right / int(shown.sum())
    return MultilabelEvaluation(
        model=model,
        total=len(read),
        classes=len(with_images),
        mean_average_precision=float(
            np.mean([average_precision(probabilities[:, c], shown[:, c]) for c in with_images])
        ),
        threshold=threshold,
        precision=precision,
        recall=recall,
        f1=2 * right / (int(said.sum()) + int(shown.sum())),
        skipped=skipped,
    )


def average_precision(scores: npt.NDArray[np.float64], is_shown: npt.NDArray[np.bool_]) -> float:
    """Return the area below the steps of precision over recall, as scikit-learn defines it.

    Images with the same score are found together.

    Args:
        scores: of each image, (N,).
        is_shown: whether each image shows the class, (N,); one at least does.
    """
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(is_shown[order])
    last = np.append(np.diff(scores[order]) != 0, True)  # of those with the same score
    found, count = found[last], np.arange(1, len(scores) + 1)[last]
    recall = found / found[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * found / count))
