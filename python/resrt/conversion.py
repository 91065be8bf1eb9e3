"""Weights of any format and naming, written as the safetensors file that resrt reads at once.

Such a file holds float32 arrays under the names of the network's parameters, which are timm's, and
in its metadata what an engine is built with: network, preprocessing, labels, and what it was made
from. Its arrays are mapped into memory, not copied.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import save_file

from resrt import _core, images, labels, pretrained, weights
from resrt.errors import FileError, InputError, WeightsError
from resrt.files import replacing, sha256
from resrt.weights import Checkpoint

# Of the metadata, whose values are texts.
NETWORK, LABELS, PREPROCESSING = "network", "labels", "preprocessing"
SOURCE, SOURCE_SHA256 = "source", "source_sha256"


def convert(
    source: str | PathLike[str],
    destination: str | PathLike[str],
    *,
    network: str | None = None,
    names: Sequence[str] | None = None,
) -> dict[str, str]:
    """Write weights as safetensors that resrt reads without a copy, and return its metadata.

    Args:
        source: a weights file of any format that resrt knows.
        destination: the safetensors file; it is written whole or not at all.
        network: whose weights they are; None: the network of the catalog that they fit.
        names: the labels of the classes; None: those in the source, if it has any.

    The preprocessing is the source's, if it has one, or else the network's of the catalog.

    Raises what `resrt.weights.load` raises; WeightsError where they fit no network of the catalog;
    InputError for labels that are not as many as classes, and for metadata that are not resrt's.
    """
    checkpoint = weights.read(source)
    name = network or _only_network(checkpoint, fspath(source))
    graph = weights.identify.trained_graph(checkpoint.arrays, name)
    arrays = weights.fit_checkpoint(checkpoint, graph, origin=f"'{fspath(source)}'")
    convention = weights.names.convention_of(checkpoint.arrays).name
    metadata = {
        NETWORK: name,
        SOURCE: f"{Path(source).name}: {checkpoint.format}, named as {convention} does",
        SOURCE_SHA256: sha256(Path(source)),
    }
    if preprocessing_of(checkpoint.metadata):
        metadata[PREPROCESSING] = checkpoint.metadata[PREPROCESSING]
    elif steps := _preprocessing(name, graph.input_shape[0]):
        metadata[PREPROCESSING] = json.dumps(steps)
    if listed := names or labels_of(checkpoint.metadata):
        if len(listed) != graph.classes:
            raise InputError(
                f"there are {len(listed)} labels for {graph.classes} classes; give one for each"
            )
        metadata[LABELS] = json.dumps(list(listed), ensure_ascii=False)
    _save(arrays, Path(destination), metadata)
    return metadata


def labels_of(metadata: Mapping[str, str]) -> list[str] | None:
    """Return the labels that a weights file carries, if it does. Raises InputError."""
    return labels.parse(metadata[LABELS]) if LABELS in metadata else None


def preprocessing_of(metadata: Mapping[str, str]) -> _core.Preprocessing | None:
    """Return the preprocessing that a weights file carries, if it does. Raises InputError."""
    if PREPROCESSING not in metadata:
        return None
    try:
        return _core.Preprocessing(**json.loads(metadata[PREPROCESSING]))
    except (TypeError, ValueError, RecursionError):
        raise InputError(
            f"the weights file's preprocessing is not resrt's: {metadata[PREPROCESSING][:100]!r}; "
            "convert the weights again, or give preprocessing"
        ) from None


def _only_network(checkpoint: Checkpoint, source: str) -> str:
    matches = weights.identify.nearest_networks(checkpoint.arrays)
    if matches and matches[0].share == 1:
        return matches[0].network
    nearest = f"; the nearest is {matches[0].network}" if matches else ""
    raise WeightsError(
        f"'{source}' fits no network of the catalog{nearest}. Say whose weights they are with "
        "network="
    )


def _preprocessing(network: str, channels: int) -> dict[str, Any] | None:
    entry = pretrained.find(network)
    if entry is None:
        return None
    return {
        "resize": entry.resize,
        "interpolation": entry.interpolation,
        "mean": images.per_channel(entry.mean, channels),
        "std": images.per_channel(entry.std, channels),
        "pipeline": entry.pipeline,
    }


def _save(arrays: weights.Weights, destination: Path, metadata: dict[str, str]) -> None:
    with replacing(destination) as temporary:
        try:
            save_file(arrays, temporary, metadata)
        except SafetensorError as error:
            raise FileError(f"cannot write '{destination}': {error}") from None
