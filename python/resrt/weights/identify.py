"""What a weights file is: which networks it fits, how its parameters are named, what is odd."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from resrt import _core
from resrt.catalog.models import build_graph
from resrt.errors import WeightsError
from resrt.weights import names
from resrt.weights.formats.checkpoint import Array, Checkpoint

# Below this share of parameters in common a network is not worth mentioning.
_LIKELY = 0.8
_SHORTLIST = 12


@dataclass(frozen=True)
class Match:
    """A network of the catalog, and which part of its and the file's parameters are the same.

    Parameters are compared by their sizes, whatever their names, with the network as it is for the
    file's number of classes and input channels.
    """

    network: str
    source: str
    share: float


@dataclass(frozen=True)
class Description:
    """What `resrt weights` tells of a file."""

    format: str
    convention: str
    arrays: int
    parameters: int
    dtypes: tuple[str, ...]
    matches: tuple[Match, ...]
    classes: int | None
    in_channels: int | None
    metadata: Mapping[str, str]
    oddities: tuple[str, ...]


def describe(checkpoint: Checkpoint) -> Description:
    """Describe a checkpoint: see `Description`."""
    arrays = _without_counters(checkpoint.arrays)
    matches = nearest_networks(arrays)
    classes = in_channels = None
    oddities = _oddities(arrays)
    if matches:
        graph = build_graph(matches[0].network)
        classes, in_channels = head_and_stem(arrays, graph)
        oddities += _differences(checkpoint, arrays, trained_graph(arrays, matches[0].network))
    return Description(
        format=checkpoint.format,
        convention=names.convention_of(arrays).name,
        arrays=len(arrays),
        parameters=sum(array.size for array in arrays.values()),
        dtypes=tuple(sorted({str(array.dtype) for array in arrays.values()})),
        matches=tuple(matches),
        classes=classes,
        in_channels=in_channels,
        metadata=checkpoint.metadata,
        oddities=tuple(oddities),
    )


def nearest_networks(arrays: Mapping[str, Array], most: int = 3) -> list[Match]:
    """Return the networks of the catalog that have the most parameters in common with arrays."""
    matches = _ranked(arrays, _any_parameter)
    if not matches:
        # An exporter that folds batch normalisations leaves the matrices as they were.
        matches = _ranked(arrays, _matrices)
    return matches[:most]


def _any_parameter(shape: Sequence[int]) -> bool:
    return True


def _matrices(shape: Sequence[int]) -> bool:
    return len(shape) > 1


def _ranked(arrays: Mapping[str, Array], counts: Callable[[Sequence[int]], bool]) -> list[Match]:
    """Rank the likely networks by the parameters whose shapes count."""
    convention = names.convention_of(arrays)
    found = Counter(array.size for array in arrays.values() if counts(array.shape))
    roughly = sorted(_catalog(), key=lambda entry: -_share(found, _sizes(entry.shapes, counts)))
    ranked = []
    for entry in roughly[:_SHORTLIST]:
        graph = trained_graph(arrays, entry.network)
        share = _share(found, _sizes([p.shape for p in graph.parameters], counts))
        known = {parameter.name for parameter in graph.parameters}
        common = len(names.to_ours(arrays, graph).keys() & known)
        # Variants that differ in no parameter's size are told apart by the names, and the sources'
        # identical networks by whose names they are.
        rank = (-share, -common, entry.source != convention.name)
        ranked.append((rank, Match(entry.network, entry.source, share)))
    ranked.sort(key=lambda pair: pair[0])
    return [match for _, match in ranked if match.share >= _LIKELY]


def _share(found: Counter[int], expected: Counter[int]) -> float:
    either = (found | expected).total()
    return (found & expected).total() / either if either else 0.0


def head_and_stem(arrays: Mapping[str, Array], graph: _core.Graph) -> tuple[int | None, int | None]:
    """Return the classes and input channels that arrays for such a graph were trained for.

    None where its first convolution or its classifier is not among them.
    """
    ours = names.to_ours(arrays, graph)
    stem, classifier = graph.parameters[0], graph.parameters[-1]
    bias, weight = ours.get(classifier.name), ours.get(stem.name)
    out_channels, _, kernel, _ = stem.shape
    per_channel = out_channels * kernel * kernel
    in_channels = None
    if weight is not None and weight.size and weight.size % per_channel == 0:
        in_channels = weight.size // per_channel
    return (bias.size if bias is not None and bias.size else None), in_channels


def trained_graph(arrays: Mapping[str, Array], network: str) -> _core.Graph:
    """Return a network's graph for the classes and input channels that arrays were trained for."""
    classes, in_channels = head_and_stem(arrays, build_graph(network))
    return build_graph(network, classes=classes or 1000, in_channels=in_channels or 3)


class _Entry(NamedTuple):
    network: str
    source: str
    shapes: tuple[tuple[int, ...], ...]


@cache
def _catalog() -> tuple[_Entry, ...]:
    return tuple(
        _Entry(
            model.name,
            model.source,
            tuple(parameter.shape for parameter in build_graph(model.name).parameters),
        )
        for model in _core.catalog()
    )


def _sizes(
    shapes: Iterable[Sequence[int]], counts: Callable[[Sequence[int]], bool]
) -> Counter[int]:
    return Counter(math.prod(shape) for shape in shapes if counts(shape))


def _without_counters(arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {
        name: array for name, array in arrays.items() if not name.endswith(".num_batches_tracked")
    }


def _differences(
    checkpoint: Checkpoint, arrays: Mapping[str, Array], graph: _core.Graph
) -> list[str]:
    if checkpoint.fit is not None:
        try:
            checkpoint.fit(graph)
        except WeightsError as error:
            return [str(error)]
        return []
    ours = names.to_ours(arrays, graph)
    expected = {parameter.name for parameter in graph.parameters}
    missing, unexpected = expected - ours.keys(), ours.keys() - expected
    return [
        f"{len(some)} arrays {what} {graph.name}: {', '.join(sorted(some)[:5])}"
        f"{', …' if len(some) > 5 else ''}"
        for what, some in (("are missing for", missing), ("do not belong to", unexpected))
        if some
    ]


def _oddities(arrays: Mapping[str, Array]) -> list[str]:
    odd = []
    for name, array in arrays.items():
        if not np.issubdtype(array.dtype, np.floating):
            odd.append(f"{name} holds {array.dtype}, not floats")
        elif not np.isfinite(array).all():
            odd.append(f"{name} has values that are not finite")
        elif name.endswith(("running_var", "_variance")) and np.less(array, 0).any():
            odd.append(f"{name} is a variance, but has values below 0")
        elif array.size > 1 and array.ndim > 1 and not array.any():
            odd.append(f"{name} is all zeros")
    return odd
