"""What is built, exported or compared: a graph, its weights, and what belongs to them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from resrt import _core, conversion, images, pretrained
from resrt import labels as labels_
from resrt import weights as weights_
from resrt._arguments import whole
from resrt.errors import InputError
from resrt.files import sha256
from resrt.models import Config, build_graph, model_info

# What the public functions take for a network, and for its weights.
Model: TypeAlias = str | Config | _core.Graph
WeightsLike: TypeAlias = str | PathLike[str] | Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Network:
    """A graph with its weights, under the graph's names.

    `origin` is what the weights were: those of the catalog by their name, a file's name, "arrays"
    or "random"; `sha256` is their checksum, empty for random ones. `labels` has a name for each
    class, or is empty.
    """

    graph: _core.Graph
    weights: weights_.Weights
    origin: str
    sha256: str
    labels: list[str]
    preprocessing: _core.Preprocessing


def resolve(
    model: Model,
    weights: WeightsLike | None,
    *,
    input_size: int | Sequence[int] | None,
    classes: int | None,
    in_channels: int | None,
    labels: Sequence[str] | PathLike[str] | None,
    preprocessing: _core.Preprocessing | None,
) -> Network:
    """Return the network that the arguments of `resrt.build`, which explains them, describe.

    Raises ModelError, FileError, WeightsError, DownloadError, PackageError or InputError.
    """
    entry = pretrained.find(model) if isinstance(model, str) else None
    if entry is not None:
        model = entry.model
        input_size = entry.crop if input_size is None else input_size
    given, checksum = weights, None
    if given is None:
        given, checksum = _fetch(model, entry, classes, in_channels)
    checkpoint, called = _read(given)
    if isinstance(model, _core.Graph):
        _refuse_options_beside_a_graph(input_size, classes, in_channels)
        graph = model
    else:
        graph = _graph(model, checkpoint, input_size, classes, in_channels)
    if checkpoint is None:
        arrays = _core.random_weights(graph, 0)
    else:
        arrays = weights_.fit_checkpoint(checkpoint, graph, origin=called)
        labels = conversion.labels_of(checkpoint.metadata) if labels is None else labels
        preprocessing = preprocessing or conversion.preprocessing_of(checkpoint.metadata)
    return Network(
        graph,
        arrays,
        origin=_origin(weights, entry),
        sha256=checksum or _sha256(given),
        labels=_labels(labels, graph.classes),
        preprocessing=_checked(preprocessing) or _preprocessing(entry, model, graph),
    )


def _fetch(
    model: Model,
    entry: pretrained.Pretrained | None,
    classes: int | None,
    in_channels: int | None,
) -> tuple[Path, str]:
    """Return the file of the network's pretrained weights, and its checksum."""
    if not isinstance(model, str):
        raise InputError(
            "a network of your own has no pretrained weights; give weights: a file, arrays, or "
            '"random"'
        )
    if entry is None:
        return pretrained.fetch_checked(model)  # which says that there are none
    if classes not in (None, entry.classes) or in_channels not in (None, 3):
        # Known before anything is downloaded.
        raise InputError(
            f"the pretrained weights {entry.name} have {entry.classes} classes and 3 input "
            f"channels, not {classes or entry.classes} and {in_channels or 3}; leave these options "
            "out, or give weights of your own"
        )
    return pretrained.fetch_checked(entry.name)


def _read(weights: WeightsLike) -> tuple[weights_.Checkpoint | None, str]:
    """Return a checkpoint, None for random parameters, and what an error calls it."""
    if isinstance(weights, Mapping):
        return weights_.Checkpoint("arrays", weights), "the arrays"
    if isinstance(weights, str) and weights == "random":
        return None, "random"
    return weights_.read(weights), f"'{fspath(weights)}'"


def _sha256(weights: WeightsLike) -> str:
    """Return the checksum of a file's bytes, or of arrays' names, types, shapes and values."""
    if isinstance(weights, str) and weights == "random":
        return ""
    if not isinstance(weights, Mapping):
        return sha256(Path(weights))
    digest = hashlib.sha256()
    for name, array in sorted(weights.items()):
        digest.update(f"{name}:{array.dtype.str}:{array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _graph(
    model: str | Config,
    checkpoint: weights_.Checkpoint | None,
    input_size: int | Sequence[int] | None,
    classes: int | None,
    in_channels: int | None,
) -> _core.Graph:
    """Build the graph, with what the user leaves open as the weights were trained for."""
    if checkpoint is not None and (classes is None or in_channels is None):
        trained = weights_.head_and_stem(checkpoint.arrays, build_graph(model))
        classes = trained[0] if classes is None else classes
        in_channels = trained[1] if in_channels is None else in_channels
    return build_graph(
        model,
        classes=1000 if classes is None else whole("classes", classes),
        input_size=input_size,
        in_channels=3 if in_channels is None else whole("in_channels", in_channels),
    )


def _refuse_options_beside_a_graph(*options: object) -> None:
    if any(option is not None for option in options):
        raise InputError(
            "a graph has its input size, classes and input channels already; give them to "
            "resrt.build_graph instead"
        )


def _origin(weights: WeightsLike | None, entry: pretrained.Pretrained | None) -> str:
    """Return whose the weights are, or the name of their file."""
    if weights is None:
        return entry.name if entry is not None else ""
    return "arrays" if isinstance(weights, Mapping) else Path(weights).name


def _labels(names: Sequence[str] | PathLike[str] | None, classes: int) -> list[str]:
    if names is None:
        return labels_.imagenet() if classes == 1000 else []
    listed = labels_.read(names) if isinstance(names, (str, PathLike)) else list(names)
    if not all(isinstance(name, str) for name in listed):
        raise InputError("labels are names as str, one for each class")
    if listed and len(listed) != classes:
        raise InputError(f"there are {len(listed)} labels for {classes} classes; give one for each")
    return listed


def _checked(preprocessing: object) -> _core.Preprocessing | None:
    if preprocessing is None or isinstance(preprocessing, _core.Preprocessing):
        return preprocessing
    raise InputError(f"preprocessing is a resrt.Preprocessing, not {type(preprocessing).__name__}")


def _preprocessing(
    entry: pretrained.Pretrained | None, model: Model, graph: _core.Graph
) -> _core.Preprocessing:
    """Return what the pretrained weights ask for; where there are none, what the source does."""
    channels, height, width = graph.input_shape
    size = min(height, width)
    if entry is None:
        is_paddleclas = isinstance(model, str) and model_info(model).source == "PaddleClas"
        pipeline = "paddleclas" if is_paddleclas else "torchvision"
        return images.imagenet_preprocessing(channels, round(size / 0.875), pipeline)
    return _core.Preprocessing(
        resize=entry.resize_for(size),
        interpolation=entry.interpolation,
        mean=images.per_channel(entry.mean, channels),
        std=images.per_channel(entry.std, channels),
        pipeline=entry.pipeline,
    )
