"""Accuracy on labelled photographs."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from os import PathLike, fspath
from pathlib import Path

import numpy as np

from resrt import batches, classification
from resrt._arguments import whole
from resrt.engine import Engine
from resrt.errors import FileError, InputError, ModelError
from resrt.models import model_info

# Of the standard normal distribution, for an interval that holds 95 times in 100.
_Z = 1.959964


@dataclass(frozen=True)
class LabelledImage:
    """An image file and the number of its class."""

    image: str
    label: int


@dataclass(frozen=True)
class Rank:
    """Where an image's class came among the engine's classes: 0 is the most probable.

    For an image that was skipped `rank` is None, and `error` says why.
    """

    image: str
    label: int
    rank: int | None
    error: str | None = None


@dataclass(frozen=True)
class Accuracy:
    """A fraction of the images, with the interval that holds it 95 times in 100 (Wilson's)."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2%} ({self.low:.2%} to {self.high:.2%})"


@dataclass(frozen=True)
class Evaluation:
    """Accuracies over `total` images; `skipped` are those that could not be read.

    The published accuracies are PaddleClas's, on ImageNet-1k's validation set; None where it
    publishes none for the network.
    """

    model: str
    total: int
    top1: Accuracy
    top5: Accuracy
    published_top1: float | None
    published_top5: float | None
    skipped: list[Rank] = field(default_factory=list)


def eval(  # noqa: A001 - named as the command is
    engine: Engine | str | PathLike[str],
    data: str | PathLike[str] | Sequence[LabelledImage],
    *,
    root: str | PathLike[str] | None = None,
    limit: int | None = None,
    workers: int | None = None,
    known: Collection[Rank] = (),
    each: Callable[[Rank], None] | None = None,
) -> Evaluation:
    """Measure top-1 and top-5 accuracy on labelled images, which are decoded whole.

    Args:
        engine: an engine or the path of its file, which is loaded for throughput.
        data: a folder with a folder of images for each class, a list file, or labelled images; see
            `labelled_images`.
        root: the folder that the paths in a list file start from; None: that of the list file.
        limit: the most images to take, evenly from all; None: all.
        workers: threads that decode and infer; None: one for each core.
        known: ranks from an earlier run that was interrupted, which are not computed again.
        each: called with each image's rank as it is known.

    Raises what `resrt.load` and `labelled_images` raise; InputError where no image could be read.
    """
    ready = batches.ready(engine)
    if isinstance(data, (str, PathLike)):
        data = labelled_images(data, ready, root=root)
    chosen = evenly(data, limit)
    _check_labels(chosen, ready)
    # Several entries may be of one file.
    found = {(rank.image, rank.label): rank for rank in known}
    ranks = [found[key] for image in chosen if (key := (image.image, image.label)) in found]
    open_ = [image for image in chosen if (image.image, image.label) not in found]
    for rank in _ranks(ready, open_, workers):
        ranks.append(rank)
        if each is not None:
            each(rank)
    return _summary(ready.info.model, ranks)


def labelled_images(
    data: str | PathLike[str],
    engine: Engine,
    *,
    root: str | PathLike[str] | None = None,
) -> list[LabelledImage]:
    """List the images of a folder or a list file with the numbers of their classes.

    A folder has a folder for each class, named by the class's label, its number, or its WordNet ID
    (for ImageNet's 1000 classes); or, where there are as many folders as classes, by any names that
    sort as the classes are numbered, as torchvision's ImageFolder has it. A list file has a line
    "path number" for each image, as PaddleClas's have.

    Raises FileError where there are no images, InputError for folders or lines that name no class.
    """
    path = Path(data)
    if path.is_dir():
        return _from_folders(path, engine)
    if not path.is_file():
        raise FileError(f"there is no folder or list file '{fspath(data)}'")
    return _from_list(path, path.parent if root is None else Path(root))


def _from_folders(path: Path, engine: Engine) -> list[LabelledImage]:
    folders = sorted(
        entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    if not folders:
        raise FileError(
            f"'{path}' has no folders; there must be one for each class, with its images"
        )
    numbers = _numbers([folder.name for folder in folders], engine)
    if numbers is None:
        raise InputError(
            f"'{path}' has {len(folders)} folders, such as '{folders[0].name}', and "
            f"{engine.info.model} {engine.info.classes} classes: name each folder by its class's "
            "label or number, or have one for every class"
        )
    return [
        LabelledImage(image, number)
        for folder, number in zip(folders, numbers, strict=True)
        for image in classification.find([folder])
    ]


def _numbers(names: list[str], engine: Engine) -> list[int] | None:
    """The class that each folder's name stands for."""
    classes = engine.info.classes
    namings = [
        _unique(engine.info.labels),
        {str(i): i for i in range(classes)},
    ]
    if classes == 1000:
        namings.append(_imagenet_ids())
    for naming in namings:
        if all(name in naming for name in names):
            return [naming[name] for name in names]
    return list(range(classes)) if len(names) == classes else None


def _unique(labels: list[str]) -> dict[str, int]:
    """Two of ImageNet's classes are both called crane."""
    return {label: i for i, label in enumerate(labels) if labels.count(label) == 1}


@cache
def _imagenet_ids() -> dict[str, int]:
    text = resources.files("resrt").joinpath("imagenet_ids.txt").read_text(encoding="utf-8")
    return {name: i for i, name in enumerate(text.split())}


def _from_list(path: Path, root: Path) -> list[LabelledImage]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"the list '{path}' is no text in UTF-8") from None
    except OSError as error:
        raise FileError(f"cannot read the list '{path}': {error.strerror}") from None
    listed = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, label = (*line.rsplit(maxsplit=1), "")[:2]
        if not label.isdecimal():
            raise InputError(
                f"line {number} of '{path}' must be a path and a class's number, such as "
                f"'val/1.jpg 65', not '{line[:80]}'"
            )
        listed.append(LabelledImage(str(root / name), int(label)))
    if not listed:
        raise InputError(f"the list '{path}' is empty")
    return listed


def evenly(listed: Sequence[LabelledImage], limit: int | None) -> list[LabelledImage]:
    """Return as many as `limit`, evenly from all: lists are often sorted by class."""
    if limit is None or whole("limit", limit) >= len(listed):
        return list(listed)
    return [listed[i * len(listed) // limit] for i in range(limit)]


def _check_labels(listed: Iterable[LabelledImage], engine: Engine) -> None:
    classes = engine.info.classes
    for image in listed:
        if not 0 <= image.label < classes:
            raise InputError(
                f"'{image.image}' is labelled as class {image.label}, and {engine.info.model} has "
                f"classes 0 to {classes - 1}; evaluate with the labels that it was trained for"
            )


def _ranks(engine: Engine, listed: list[LabelledImage], workers: int | None) -> Iterator[Rank]:
    outcomes = batches.infer_files(engine, (image.image for image in listed), workers=workers)
    for image, (_, found) in zip(listed, outcomes, strict=True):
        if isinstance(found, Exception):
            yield Rank(image.image, image.label, None, str(found))
        else:
            # Of equal logits the first comes first, as in a list of the most probable.
            ahead = found > found[image.label]
            ahead[: image.label] |= found[: image.label] == found[image.label]
            yield Rank(image.image, image.label, int(np.count_nonzero(ahead)))


def _summary(model: str, ranks: list[Rank]) -> Evaluation:
    positions = [rank.rank for rank in ranks if rank.rank is not None]
    skipped = [rank for rank in ranks if rank.rank is None]
    if not positions:
        reason = f"; the first: {skipped[0].error}" if skipped else ""
        raise InputError(f"none of the {len(ranks)} images could be read{reason}")
    published = _published(model)
    return Evaluation(
        model=model,
        total=len(positions),
        top1=_accuracy(sum(rank < 1 for rank in positions), len(positions)),
        top5=_accuracy(sum(rank < 5 for rank in positions), len(positions)),
        published_top1=published[0],
        published_top5=published[1],
        skipped=skipped,
    )


def _published(model: str) -> tuple[float | None, float | None]:
    try:
        published = model_info(model).published
    except ModelError:
        return None, None  # a network of the user's own
    return (published.top1, published.top5) if published else (None, None)


def _accuracy(correct: int, total: int) -> Accuracy:
    """Wilson's score interval, which holds for few images and for accuracies near 1 as well."""
    value = correct / total
    spread = _Z * math.sqrt(value * (1 - value) / total + (_Z / total) ** 2 / 4)
    centre, scale = value + _Z**2 / (2 * total), 1 + _Z**2 / total
    # Rounding must not take the ends past the value itself, which at 0 and 1 is one of them.
    low, high = min(value, (centre - spread) / scale), max(value, (centre + spread) / scale)
    return Accuracy(value, max(0.0, low), min(1.0, high))
