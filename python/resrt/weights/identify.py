"""What a weights file contains: the networks that it fits, its names, and anything unusual."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from resrt import _core
from resrt.catalog.models import build_graph
from resrt.errors import WeightsError
from resrt.weights import names
from resrt.weights.formats.checkpoint import Array, Checkpoint, shown

_LOG = logging.getLogger("resrt.weights")

# A network that shares less than this part of its parameters is not reported.
_LIKELY = 0.8
_SHORTLIST = 12
# Variants with the parameters of others that are used far more.
_RARE = re.compile(r".*(_vc|\dc)")
# How many arrays with the same property are named.
_NAMED = 5


@dataclass(frozen=True)
class Match:
    """A network of the catalog, and the share of its and a file's parameters that are the same.

    Parameters are compared by size, not by name. The network is the one with the file's number of
    classes and input channels.
    """

    network: str
    source: str
    share: float


@dataclass(frozen=True)
class Description:
    """What `resrt weights` reports about a file."""

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
    left_aside: tuple[str, ...] = ()


def describe(checkpoint: Checkpoint) -> Description:
    """Describe the content of a weights file."""
    arrays = names.without_counters(checkpoint.arrays)
    matches = nearest_networks(arrays, told=told_by(checkpoint), described=checkpoint.trained)
    classes = in_channels = None
    oddities = _oddities(arrays)
    if matches:
        graph = trained_graph(arrays, matches[0].network, checkpoint.trained)
        classes, in_channels = head_and_stem(arrays, graph, checkpoint.trained)
        oddities += _differences(checkpoint, arrays, graph)
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
        left_aside=checkpoint.left_aside,
    )


def nearest_networks(
    arrays: Mapping[str, Array],
    most: int = 3,
    told: str = "",
    described: tuple[int | None, int | None] = (None, None),
) -> list[Match]:
    """Return the networks of the catalog that have the most parameters in common with arrays.

    Of several with the same parameters, the first is the one that is `told`, by the file or by its
    name. `described` is as for `head_and_stem`.
    """
    arrays = names.without_counters(arrays)
    # An exporter that folds batch normalisations does not change the shapes of matrices.
    ranked = _ranked(arrays, told, described, 0) or _ranked(arrays, told, described, 2)
    return ranked[:most]


def only_network(checkpoint: Checkpoint, source: str, advice: str) -> str:
    """Return the network of the catalog that a checkpoint fits.

    If nothing says which of several it is of, those that compute something else are logged. Raises
    WeightsError, with the advice, if it fits none.
    """
    told = told_by(checkpoint)
    matches = nearest_networks(checkpoint.arrays, _SHORTLIST, told, checkpoint.trained)
    if matches and matches[0].share == 1:
        network = matches[0].network
        others = [
            match.network
            for match in matches[1:]
            if _shapes(match.network) == _shapes(network)
            and _functions(match.network) != _functions(network)
        ]
        if others and not _agreement(network, told):
            _LOG.warning(
                "took the weights in '%s' for those of %s; they also fit %s, with other results. "
                "%s, if it is another",
                source,
                network,
                " or ".join(others),
                advice,
            )
        return network
    nearest = f"; the nearest is {matches[0].network}" if matches else ""
    raise WeightsError(f"'{source}' fits no network of the catalog{nearest}. {advice}")


def told_by(checkpoint: Checkpoint) -> str:
    """Return the network that a file says it is of, or its name if it says nothing."""
    said = (checkpoint.metadata.get(key) for key in ("network", "architecture", "arch"))
    return next(filter(None, said), checkpoint.file)


def check_told(checkpoint: Checkpoint, graph: _core.Graph, origin: str) -> None:
    """Raise WeightsError if a file says that it is of a network that computes something else.

    Only for networks of the catalog with the same parameters: other weights do not fit in any case.
    """
    told = checkpoint.metadata.get("network") or checkpoint.metadata.get("architecture") or ""
    told = told.partition(".")[0]
    catalog = {model.name for model in _core.catalog()}
    if told == graph.name or not {told, graph.name} <= catalog:
        return
    if _shapes(told) == _shapes(graph.name) and _functions(told) != _functions(graph.name):
        raise WeightsError(
            f"{origin} says that it is of {told}, which has the parameters of {graph.name} but "
            f"computes something else; build {told}, or give the arrays alone if you know better: "
            "resrt.weights.read(path).arrays"
        )


@cache
def _functions(network: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return what each layer of a network computes, and from what."""
    layers = build_graph(network).layers[1:]  # without the input, whose size does not matter
    return tuple((repr(layer.definition), tuple(layer.inputs)) for layer in layers)


def _ranked(
    arrays: Mapping[str, Array],
    told: str,
    described: tuple[int | None, int | None],
    least_ndim: int,
) -> list[Match]:
    """Rank the likely networks by their parameters with at least that many dimensions."""
    convention = names.convention_of(arrays)
    found = _sizes((array.shape for array in arrays.values()), least_ndim)

    def share(shapes: Iterable[Sequence[int]], different: int = 0) -> float:
        expected = _sizes(shapes, least_ndim)
        common = sum(min(count, found[size]) for size, count in expected.items())
        either = found.total() + expected.total() - common
        return (common + different) / max(1, either - different)

    # Another number of classes or input channels changes up to three parameters.
    roughly = [(share(_shapes(model.name), different=3), model) for model in _core.catalog()]
    roughly = [pair for pair in roughly if pair[0] >= _LIKELY]
    roughly.sort(key=lambda pair: -pair[0])
    ranked = []
    for _, model in roughly[:_SHORTLIST]:
        ours = names.to_ours(arrays, build_graph(model.name))
        graph = trained_graph(ours, model.name, described)
        match = Match(model.name, model.source, share(p.shape for p in graph.parameters))
        common = len(ours.keys() & {parameter.name for parameter in graph.parameters})
        # Names decide between variants whose parameters have the same sizes, and the convention
        # between identical networks of several sources.
        agreement = (-_agreement(match.network, told), bool(_RARE.fullmatch(match.network)))
        ranked.append(((-match.share, -common, *agreement, match.source != convention.name), match))
    ranked.sort(key=lambda pair: pair[0])
    return [match for _, match in ranked if match.share >= _LIKELY]


def _agreement(network: str, told: str) -> int:
    """Return how much of a text that names a network agrees with a name: 0 if it is another."""
    if told == network:
        return 1000
    word = rf"(?<![0-9a-z]){re.escape(network.lower())}(?![0-9a-z])"
    is_named = re.search(word, told.lower()) is not None
    return 2 * len(network) + (network in told) if is_named else 0


@cache
def _shapes(network: str) -> tuple[tuple[int, ...], ...]:
    return tuple(parameter.shape for parameter in build_graph(network).parameters)


def _sizes(shapes: Iterable[Sequence[int]], least_ndim: int) -> Counter[int]:
    return Counter(math.prod(shape) for shape in shapes if len(shape) >= least_ndim)


def head_and_stem(
    arrays: Mapping[str, Array],
    graph: _core.Graph,
    described: tuple[int | None, int | None] = (None, None),
) -> tuple[int | None, int | None]:
    """Return the numbers of classes and input channels that arrays for a graph were trained for.

    If the arrays lack the classifier or the first convolution, they are what the weights' format
    describes.
    """
    ours = names.to_ours(arrays, graph)
    stem, classifier = graph.parameters[0], graph.parameters[-1]
    bias, weight = ours.get(classifier.name), ours.get(stem.name)
    out_channels, _, kernel, _ = stem.shape
    per_channel = out_channels * kernel * kernel
    classes, in_channels = described
    if weight is not None and weight.size and weight.size % per_channel == 0:
        in_channels = weight.size // per_channel
    return (bias.size if bias is not None and bias.size else classes), in_channels


def trained_graph(
    arrays: Mapping[str, Array],
    network: str,
    described: tuple[int | None, int | None] = (None, None),
) -> _core.Graph:
    """Return a network's graph for the classes and input channels that arrays were trained for."""
    classes, in_channels = head_and_stem(arrays, build_graph(network), described)
    return build_graph(network, classes=classes, in_channels=in_channels or 3)


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
        f"{len(some)} arrays {what} {graph.name}: {', '.join(map(shown, sorted(some)[:_NAMED]))}"
        f"{', …' if len(some) > _NAMED else ''}"
        for what, some in (("are missing for", missing), ("do not belong to", unexpected))
        if some
    ]


def _oddities(arrays: Mapping[str, Array]) -> list[str]:
    odd: dict[str, list[str]] = {}
    for name, array in arrays.items():
        if (what := _oddity(name, array)) is not None:
            odd.setdefault(what, []).append(name)
    listed = []
    for what, those in odd.items():
        listed += [f"{shown(name)} {what}" for name in those[:_NAMED]]
        if len(those) > _NAMED:
            listed.append(f"{len(those) - _NAMED} more arrays: each {what}")
    return listed


def _oddity(name: str, array: Array) -> str | None:
    if not np.issubdtype(array.dtype, np.floating):
        return f"has the dtype {array.dtype}, expected floats"
    if not np.isfinite(array).all():
        return "has non-finite values"
    if name.endswith(("running_var", "_variance")) and np.less(array, 0).any():
        return "is a variance with negative values"
    if array.size > 1 and array.ndim > 1 and not array.any():
        return "is all zeros"
    return None
