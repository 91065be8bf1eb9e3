"""`resrt.eval`: accuracy on labelled photographs."""

from __future__ import annotations

import math
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import numpy.typing as npt

from resrt import labels
from resrt._support.environment import max_pixels
from resrt._support.files import file_kind
from resrt._support.sampling import evenly
from resrt.catalog.models import published_for
from resrt.engine import batches, cluster
from resrt.engine.batches import LogitsOutcome
from resrt.engine.engine import Engine
from resrt.errors import FileError, InputError
from resrt.operations.classify import find_images
from resrt.operations.eval.lists import is_number, lines_of
from resrt.operations.eval.multilabel import (
    MultilabelEvaluation,
    MultilabelledImage,
    Scores,
    eval_multilabel,
)
from resrt.operations.inspect import inspect

if TYPE_CHECKING:
    import pyarrow
    import ray.data

# The 97.5 % quantile of the standard normal distribution, for 95 % confidence intervals.
_Z = 1.959964


@dataclass(frozen=True)
class LabelledImage:
    """An image file and the number of its class."""

    image: str
    label: int


@dataclass(frozen=True)
class Rank:
    """The position of an image's class among the engine's classes: 0 is the most probable.

    If a logit is NaN or infinite, the rank is the number of classes. For an image that was skipped,
    `rank` is None and `error` is the reason.
    """

    image: str
    label: int
    rank: int | None
    error: str | None = None


@dataclass(frozen=True)
class Accuracy:
    """A fraction of the images, with its 95 % confidence interval (Wilson's)."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2%} ({self.low:.2%} to {self.high:.2%})"


@dataclass(frozen=True)
class Evaluation:
    """Accuracies over `total` images; `skipped` are those that could not be read.

    The published accuracies are PaddleClas's, on ImageNet-1k's validation set; None if it publishes
    none for the network.
    """

    model: str
    total: int
    top1: Accuracy
    top5: Accuracy
    published_top1: float | None
    published_top5: float | None
    skipped: list[Rank] = field(default_factory=list)


@overload
def eval(  # noqa: A001
    engine: Engine | str | PathLike[str],
    data: str | PathLike[str] | Sequence[LabelledImage] | ray.data.Dataset,
    *,
    multilabel: Literal[False] = False,
    root: str | PathLike[str] | None = None,
    limit: int | None = None,
    workers: int | None = None,
    ray: str | None = None,
    known: Collection[Rank] = (),
    each: Callable[[Rank], None] | None = None,
) -> Evaluation: ...
@overload
def eval(  # noqa: A001
    engine: Engine | str | PathLike[str],
    data: str | PathLike[str] | Sequence[MultilabelledImage],
    *,
    multilabel: Literal[True],
    threshold: float = 0.5,
    root: str | PathLike[str] | None = None,
    limit: int | None = None,
    workers: int | None = None,
    known: Collection[Scores] = (),
    each: Callable[[Scores], None] | None = None,
) -> MultilabelEvaluation: ...
def eval(  # noqa: A001 - named as the command is
    engine: Engine | str | PathLike[str],
    data: Any,
    *,
    multilabel: bool = False,
    threshold: float = 0.5,
    root: str | PathLike[str] | None = None,
    limit: int | None = None,
    workers: int | None = None,
    ray: str | None = None,
    known: Collection[Any] = (),
    each: Callable[[Any], None] | None = None,
) -> Evaluation | MultilabelEvaluation:
    """Measure accuracy on labelled images, which are decoded at full size.

    It is top-1 and top-5 accuracy, or with `multilabel` mean average precision, and precision,
    recall and their harmonic mean (F1) over all labels.

    Args:
        engine: an engine, or the path of an engine file, which is loaded for throughput.
        data: a folder with a subfolder of images for each class, a list file, or labelled images;
            see `resrt.labelled_images`. Or a dataset of Ray, as for `resrt.classify`, with the
            column "label" of class numbers, which is evaluated on its cluster. With `multilabel`, a
            list file or images as `resrt.multilabelled_images` returns them.
        multilabel: whether an image may have several labels, or none. The network must have been
            trained for that: the probability of a class is the sigmoid of its logit.
        threshold: with `multilabel`, the probability from which a class counts as found.
        root: the folder to which the paths in a list file are relative; None: the list's folder.
        limit: the maximum number of images, sampled evenly; None: all.
        workers: threads that decode and infer; None: one per core. On a cluster: processors of each
            worker, which loads the engine once.
        ray: the address of a Ray cluster whose nodes all see the images, and evaluate them: "auto"
            for the one that this machine belongs to, "local" for one that is started here.
        known: ranks, or scores, from an earlier, interrupted run, which are not computed again.
        each: called with each image's Rank when it is known, with `multilabel` with its Scores.

    Raises what `resrt.load` and `resrt.labelled_images` raise, InputError if no image could be
    read or for an invalid RESRT_MAX_PIXELS, and BackendError without the cluster.
    """
    max_pixels()  # its errors are not those of an image
    if multilabel:
        if ray is not None or cluster.is_dataset(data):
            raise InputError("images with several labels are not evaluated on a cluster")
        return eval_multilabel(
            batches.ready(engine),
            data,
            root=root,
            limit=limit,
            workers=workers,
            threshold=threshold,
            known=known,
            each=each,
        )
    if cluster.is_dataset(data):
        ranks = []
        for rank in _ranks_of_dataset(engine, data, workers):
            ranks.append(rank)
            if each is not None:
                each(rank)
        return _summary(_model(engine), ranks)
    ready = batches.ready(engine)
    if isinstance(data, (str, PathLike)):
        data = labelled_images(data, ready, root=root)
    elif root is not None:
        raise InputError("root is only for a list file; labelled images already have their paths")
    chosen = evenly(data, limit)
    _check_labels(chosen, ready)
    # A file may be listed more than once.
    found = {(rank.image, rank.label): rank for rank in known}
    ranks = [found[key] for image in chosen if (key := (image.image, image.label)) in found]
    remaining = [image for image in chosen if (image.image, image.label) not in found]
    for rank in _ranks(ready, remaining, workers, ray):
        ranks.append(rank)
        if each is not None:
            each(rank)
    return _summary(ready.info.model, ranks)


def labelled_images(
    data: str | PathLike[str],
    engine: Engine,
    *,
    root: str | PathLike[str] | None = None,
    limit: int | None = None,
) -> list[LabelledImage]:
    """List the images of a folder or a list file with the numbers of their classes.

    A folder has a subfolder for each class, named by the class's label, its number, or its WordNet
    ID (for ImageNet's 1000 classes). If there are as many subfolders as classes, any names will do
    that sort in the order of the classes, as for torchvision's ImageFolder. A list file has a line
    "path number" for each image, as PaddleClas's have.

    Args:
        data: the folder or the list file.
        engine: the engine that is to be evaluated.
        root: the folder to which the paths in a list file are relative; None: the list's folder.
        limit: the maximum number of images, sampled evenly; None: all.

    Raises FileError if there are no images, InputError for subfolders or lines that name no class.
    """
    path = Path(data)
    kind = file_kind(path)
    if kind == stat.S_IFDIR:
        if root is not None:
            raise InputError(f"root is only for a list file, and '{fspath(data)}' is a folder")
        return evenly(_from_folders(path, engine), limit)
    if kind not in (stat.S_IFREG, 0):
        raise FileError(f"there is no folder or list file '{fspath(data)}'")
    return evenly(_from_list(path, path.parent if root is None else Path(root)), limit)


def _from_folders(path: Path, engine: Engine) -> list[LabelledImage]:
    try:
        entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise FileError(f"cannot read the folder '{path}': {error.strerror}") from None
    # What cannot be reached, such as a link to nothing, may be a class, and is not left out.
    folders = [entry for entry in entries if file_kind(entry) in (stat.S_IFDIR, 0, None)]
    if not folders:
        raise FileError(f"'{path}' has no subfolders; expected one per class, with its images")
    numbers = _numbers([folder.name for folder in folders], engine)
    if numbers is None:
        raise InputError(
            f"'{path}' has {len(folders)} subfolders, such as '{folders[0].name}', but "
            f"{engine.info.model} has {engine.info.classes} classes: name each subfolder by its "
            "class's label or number, or provide one for every class"
        )
    return [
        LabelledImage(image, number)
        for folder, number in zip(folders, numbers, strict=True)
        for image in find_images([folder])
    ]


def _numbers(names: list[str], engine: Engine) -> list[int] | None:
    """Return the class that each subfolder's name stands for; None if that is unknown."""
    classes, own = engine.info.classes, engine.info.labels
    # A label that several classes have, such as ImageNet's two cranes, stands for none of them.
    unique = {label: i for i, label in enumerate(own) if own.count(label) == 1}
    namings = [unique, {str(i): i for i in range(classes)}]
    if classes == 1000:
        namings.append({name: i for i, name in enumerate(labels.wordnet_ids())})
    for naming in namings:
        if all(name in naming for name in names):
            return [naming[name] for name in names]
    return list(range(classes)) if len(names) == classes else None


def _from_list(path: Path, root: Path) -> list[LabelledImage]:
    listed = []
    for number, line in enumerate(lines_of(path), 1):
        if not line.strip():
            continue
        name, label = (*line.rsplit(maxsplit=1), "")[:2]
        if not is_number(label):
            raise InputError(
                f"line {number} of '{path}' must be a path and a class number, such as "
                f"'val/1.jpg 65', not '{line[:80]}'"
            )
        listed.append(LabelledImage(str(root / name), int(label)))
    if not listed:
        raise InputError(f"the list '{path}' is empty")
    return listed


def _check_labels(listed: Iterable[LabelledImage], engine: Engine) -> None:
    classes = engine.info.classes
    for image in listed:
        if not 0 <= image.label < classes:
            raise InputError(
                f"'{image.image}' is labelled as class {image.label}, but {engine.info.model} has "
                f"classes 0 to {classes - 1}; use the labels that it was trained for"
            )


def _ranks(
    engine: Engine, listed: list[LabelledImage], workers: int | None, address: str | None
) -> Iterator[Rank]:
    if address is not None:
        yield from _ranks_on_cluster(engine, listed, workers, address)
        return
    files = (image.image for image in listed)
    outcomes = batches.infer_files(engine, files, batches.logits_of, workers=workers)
    for image, (_, found) in zip(listed, outcomes, strict=True):
        if isinstance(found, Exception):
            yield Rank(image.image, image.label, None, str(found))
        else:
            yield Rank(image.image, image.label, _rank(found, image.label))


def _ranks_on_cluster(
    engine: Engine, listed: list[LabelledImage], workers: int | None, address: str
) -> Iterator[Rank]:
    cluster.connect(address)
    if not listed:
        return
    # A node may have another current folder; the results have the paths as they were given.
    paths = [str(Path(image.image).absolute()) for image in listed]
    dataset = cluster.dataset_of(
        {
            "path": paths,
            "given": [image.image for image in listed],
            "label": [image.label for image in listed],
        }
    )
    workers = cluster.smallest_node() if workers is None else workers
    yield from _ranks_of_dataset(engine, dataset, workers)


def _ranks_of_dataset(
    engine: Engine | str | PathLike[str], dataset: ray.data.Dataset, workers: int | None
) -> Iterator[Rank]:
    names = dataset.columns() or []
    if "label" not in names:
        raise InputError(
            "a dataset that is evaluated must have a column 'label' of class numbers; this one has "
            f"{', '.join(map(repr, names)) or 'no columns'}"
        )
    found = cluster.map_images(
        engine if isinstance(engine, Engine) else Path(engine),
        dataset,
        _rank_columns,
        exact=True,
        workers=workers,
    )
    name = next((name for name in ("given", "path") if name in names), None)
    for rows in found.iter_batches(batch_size=None, batch_format="pyarrow"):
        for row in rows.to_pylist():
            yield Rank(row[name] if name else "", row["label"], row["rank"], row["error"])


def _rank_columns(
    outcomes: Sequence[LogitsOutcome], rows: pyarrow.Table
) -> dict[str, pyarrow.Array]:
    import pyarrow

    labels = rows.column("label").to_pylist()
    ranks: list[int | None] = []
    errors: list[str | None] = []
    for (image, found), label in zip(outcomes, labels, strict=True):
        if isinstance(found, Exception):
            ranks.append(None)
            errors.append(str(found))
        elif not 0 <= label < len(found):
            ranks.append(None)
            errors.append(f"'{image}' is labelled as class {label}, but there are {len(found)}")
        else:
            ranks.append(_rank(found, label))
            errors.append(None)
    return {
        "rank": pyarrow.array(ranks, pyarrow.int64()),
        "error": pyarrow.array(errors, pyarrow.string()),
    }


def _model(engine: Engine | str | PathLike[str]) -> str:
    info = engine.info if isinstance(engine, Engine) else inspect(engine).info
    return info.model


def _rank(logits: npt.NDArray[np.float32], label: int) -> int:
    if not np.isfinite(logits).all():
        return len(logits)
    # Equal logits rank in the order of their classes, as in `classify`.
    ahead = logits > logits[label]
    ahead[:label] |= logits[:label] == logits[label]
    return int(np.count_nonzero(ahead))


def _summary(model: str, ranks: list[Rank]) -> Evaluation:
    positions = [rank.rank for rank in ranks if rank.rank is not None]
    skipped = [rank for rank in ranks if rank.rank is None]
    if not positions:
        reason = f"; the first: {skipped[0].error}" if skipped else ""
        raise InputError(f"none of the {len(ranks)} images could be read{reason}")
    published = published_for(model)
    return Evaluation(
        model=model,
        total=len(positions),
        top1=_accuracy(sum(rank < 1 for rank in positions), len(positions)),
        top5=_accuracy(sum(rank < 5 for rank in positions), len(positions)),
        published_top1=None if published is None else published.top1,
        published_top5=None if published is None else published.top5,
        skipped=skipped,
    )


def _accuracy(correct: int, total: int) -> Accuracy:
    """Return Wilson's score interval, which is also valid for few images and for values near 1."""
    value = correct / total
    spread = _Z * math.sqrt(value * (1 - value) / total + (_Z / total) ** 2 / 4)
    centre, scale = value + _Z**2 / (2 * total), 1 + _Z**2 / total
    # Rounding must not move the ends past the value, which at 0 and 1 is one of them.
    low, high = min(value, (centre - spread) / scale), max(value, (centre + spread) / scale)
    return Accuracy(value, max(0.0, low), min(1.0, high))
