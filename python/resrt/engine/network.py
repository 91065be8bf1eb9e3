"""What is built, exported or compared: a graph, its weights, and their metadata."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike, fsdecode
from pathlib import Path
from typing import TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from resrt import _core
from resrt._support.arguments import as_text, names, whole
from resrt.catalog import pretrained
from resrt.catalog.models import Config, build_graph, model_info
from resrt.errors import InputError, ModelError, WeightsError
from resrt.weights import configs, fetch, formats, hub, identify, modules
from resrt.weights.fit import Weights, as_arrays, fit_checkpoint
from resrt.weights.formats.checkpoint import Checkpoint
from resrt.weights.formats.states import select
from resrt.weights.metadata import Metadata
from resrt.weights.preprocessing import ASSUMED, PreprocessingLike, is_whole, settle

_logger = logging.getLogger("resrt")

_ADVICE = "Give the name of its network as the model, and this as weights"

# What the public functions accept as a network, and as its weights.
Model: TypeAlias = str | Config | _core.Graph | modules.TorchModule
_MODELS = (str, *get_args(Config), _core.Graph, modules.TorchModule)
WeightsLike: TypeAlias = str | PathLike[str] | Mapping[str, npt.NDArray[np.generic]]

# Called with the name of a phase, the number of its steps that are done, and how many it has.
BuildProgress: TypeAlias = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Network:
    """A graph and its weights, under the graph's names.

    `sha256` is the checksum of the weights as they were given, empty for random ones. `metadata` is
    for the graph's input size and number of classes, and its preprocessing is always known.
    """

    graph: _core.Graph
    weights: Weights
    sha256: str
    metadata: Metadata

    @property
    def preprocessing(self) -> _core.Preprocessing:
        """How photographs become the network's inputs."""
        assert self.metadata.preprocessing is not None
        return self.metadata.preprocessing

    def warn_of_assumption(self) -> None:
        """Log that the preprocessing of the user's own weights was assumed, if it was."""
        if self.sha256 and self.metadata.preprocessing_source.startswith(ASSUMED):
            _logger.warning(
                "the weights from %s do not say how photographs are preprocessed: %s; if that is "
                "wrong, give preprocessing (in the command --mean, --std and others, or --like)",
                self.metadata.origin,
                self.metadata.preprocessing_source,
            )


def resolve(
    model: Model,
    weights: WeightsLike | None,
    input_size: int | Sequence[int] | None = None,
    classes: int | None = None,
    in_channels: int | None = None,
    labels: Sequence[str] | PathLike[str] | None = None,
    preprocessing: PreprocessingLike | None = None,
    progress: BuildProgress | None = None,
    key: str | None = None,
    outputs: Sequence[str] | None = None,
) -> Network:
    """Return the network that the arguments of `resrt.build`, which documents them, describe.

    Raises ModelError, FileError, WeightsError, DownloadError, PackageError or InputError.
    """
    steps = preprocessing if isinstance(preprocessing, _core.Preprocessing) else None
    source = _source(model, weights, classes, in_channels, preprocessing, progress, key)
    model, checkpoint, entry = source.model, source.checkpoint, source.entry
    # What the caller gives is not read from the file, where it may be damaged.
    overrides = {"labels": labels, "preprocessing": is_whole(preprocessing) or None}
    texts = {} if checkpoint is None else checkpoint.metadata
    metadata = Metadata.read({k: text for k, text in texts.items() if overrides.get(k) is None})
    metadata = configs.completed(metadata, source.beside)
    if isinstance(model, _core.Graph):
        if any(option is not None for option in (input_size, classes, in_channels)):
            raise InputError(
                "a graph already has its input size, classes and input channels; give them to "
                "resrt.build_graph instead"
            )
        graph = model
    else:
        if input_size is None and steps is not None:
            input_size = steps.input_size
        if input_size is None:
            input_size = metadata.input_size or (entry.crop if entry is not None else None)
        graph = _graph(model, checkpoint, input_size, classes, in_channels)
    selected = graph
    if outputs is not None:
        selected = _core.select_outputs(graph, names("outputs", outputs))
    if steps is not None:
        _core.check_preprocessing(steps, graph.input_shape)
    if checkpoint is None:
        arrays = _core.random_weights(graph, 0)
    else:
        arrays = fit_checkpoint(checkpoint, graph, origin=source.called)
    if labels is None:
        metadata = configs.with_labels(metadata, source.beside, graph.classes)
    metadata = settle(
        metadata.with_labels(labels, graph.classes),
        preprocessing,
        entry,
        graph.input_shape,
        is_entry_of_weights=source.is_entry_of_weights,
        source=model_info(model).source if isinstance(model, str) else None,
    )
    return Network(
        selected,
        _core.complete_weights(selected, arrays),
        sha256=_sha256(checkpoint),
        metadata=dataclasses.replace(metadata, origin=source.origin),
    )


@dataclass(frozen=True)
class _Source:
    """What `model` and `weights` of `resrt.build` are.

    Attributes:
        model: the network.
        checkpoint: its weights; None for random ones.
        called: what an error calls the weights.
        origin: where they are from, as in `Metadata`.
        beside: what the files beside them, or the configuration of a module, say.
        entry: the pretrained weights whose preprocessing is assumed if nothing says any.
        is_entry_of_weights: whether the user named these.
    """

    model: str | Config | _core.Graph
    checkpoint: Checkpoint | None
    called: str
    origin: str
    beside: Metadata = field(default_factory=Metadata)
    entry: pretrained.Pretrained | None = None
    is_entry_of_weights: bool = False


def _source(
    model: Model,
    weights: WeightsLike | None,
    classes: int | None,
    in_channels: int | None,
    preprocessing: PreprocessingLike | None,
    progress: BuildProgress | None,
    key: str | None,
) -> _Source:
    if isinstance(model, type) or not isinstance(model, _MODELS):
        raise ModelError(
            "a network must be a name, a resrt.ResNet, resrt.ResNeSt or resrt.RegNet, a graph, or "
            f"a PyTorch module, not {model!r:.80}"
        )
    if isinstance(model, modules.TorchModule):
        return _of_module(model, weights, key)
    is_on_hub = hub.is_name(model) and weights is None
    entry = pretrained.find(model) if isinstance(model, str) and not is_on_hub else None
    is_named = entry is not None and model != entry.model  # by a tag
    if entry is not None:
        model = entry.model
    if is_on_hub:
        assert isinstance(model, str)
        weights = model
    if key is not None and (weights is None or (isinstance(weights, str) and weights == "random")):
        raise InputError(f"key={key!r} names an entry of a checkpoint; give its file as weights")
    if weights is None:
        checkpoint, called = _fetch(model, entry, classes, in_channels, progress)
        origin = entry.name if entry is not None else ""
        return _Source(model, checkpoint, called, origin, entry=entry, is_entry_of_weights=True)
    checkpoint, called = _read(weights, key)
    if is_on_hub:
        assert checkpoint is not None
        model = identify.only_network(checkpoint, str(weights), _ADVICE)
        entry = pretrained.find(model)
    beside = Metadata()
    if checkpoint is not None and checkpoint.folder:
        network = model if isinstance(model, str) else None
        needed = not is_whole(preprocessing)
        beside = configs.beside(checkpoint.folder, network, is_preprocessing_needed=needed)
    return _Source(model, checkpoint, called, _origin(weights), beside, entry, is_named)


def _of_module(model: modules.TorchModule, weights: WeightsLike | None, key: str | None) -> _Source:
    if weights is not None or key is not None:
        raise InputError(
            "a PyTorch module has weights of its own; omit weights and key, or give the name of "
            "the network as the model"
        )
    found = modules.read(model)
    network = found.network
    usual = found.assumed if found.assumed in pretrained.names_of(network) else network
    entry = pretrained.find(usual)
    return _Source(network, found.checkpoint, "the module", "module", found.metadata, entry)


def _fetch(
    model: Model,
    entry: pretrained.Pretrained | None,
    classes: int | None,
    in_channels: int | None,
    progress: BuildProgress | None,
) -> tuple[Checkpoint | None, str]:
    """Return the network's pretrained weights, and what an error calls them."""
    if not isinstance(model, str):
        raise InputError(
            "a network of your own has no pretrained weights; give weights: a file, arrays, or "
            '"random"'
        )
    name = model if entry is None else entry.name  # without an entry, fetch_checked raises
    if entry and (classes not in (None, entry.classes) or in_channels not in (None, 3)):
        # Checked before anything is downloaded.
        raise InputError(
            f"the pretrained weights {name} have {entry.classes} classes and 3 input "
            f"channels, not {classes or entry.classes} and {in_channels or 3}; omit these options, "
            "or give weights of your own"
        )
    phase, megabyte = f"downloading {name} (MB)", 1_000_000

    def report(received: int, total: int | None) -> None:
        assert progress is not None
        progress(phase, received // megabyte, (total or 0) // megabyte)

    path, checkpoint = fetch.fetch_checked(name, progress=None if progress is None else report)
    return checkpoint, f"'{path}'"


def _read(weights: WeightsLike, key: str | None) -> tuple[Checkpoint | None, str]:
    """Return a checkpoint, None for random parameters, and what an error calls it."""
    if isinstance(weights, Mapping):
        checkpoint = Checkpoint("arrays", as_arrays(weights, "the arrays"))
        return select(checkpoint, "the arrays", key), "the arrays"
    if not isinstance(weights, (str, PathLike)):
        raise WeightsError(
            "weights must be the path of a file, a dict of arrays by name, or "
            f'"random", not {type(weights).__name__}'
        )
    if weights == "random":
        return None, "random"
    return formats.read(weights, key=key), f"'{fsdecode(weights)}'"


def _sha256(checkpoint: Checkpoint | None) -> str:
    """Return the checksum of what was read, or of arrays' names, types, shapes and values."""
    if checkpoint is None:
        return ""
    if checkpoint.contents:
        return checkpoint.sha256
    digest = hashlib.sha256()
    for name, array in sorted(checkpoint.arrays.items()):
        digest.update(f"{name}:{array.dtype.str}:{array.shape}\n".encode(errors="replace"))
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _graph(
    model: str | Config,
    checkpoint: Checkpoint | None,
    input_size: int | Sequence[int] | None,
    classes: int | None,
    in_channels: int | None,
) -> _core.Graph:
    """Build the graph. What the user leaves open is taken from the weights."""
    if checkpoint is not None and (classes is None or in_channels is None):
        trained = identify.head_and_stem(checkpoint.arrays, build_graph(model), checkpoint.trained)
        classes = trained[0] if classes is None else classes
        in_channels = trained[1] if in_channels is None else in_channels
    return build_graph(
        model,
        classes=classes,
        input_size=input_size,
        in_channels=3 if in_channels is None else whole("in_channels", in_channels),
    )


def _origin(weights: WeightsLike) -> str:
    if hub.is_name(weights):
        return str(weights)
    return "arrays" if isinstance(weights, Mapping) else as_text(Path(fsdecode(weights)).name)
