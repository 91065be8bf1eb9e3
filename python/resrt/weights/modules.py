"""Networks that are PyTorch modules of timm, torchvision or Transformers, without PyTorch.

A module is found in the catalog by what its configuration says and by the shapes of its parameters.
Its layers are then compared with those of the catalog's network, because the same parameters may
belong to another function: another stride, activation or pooling.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from resrt import _core
from resrt._support.files import is_folder
from resrt.errors import InputError, ModelError
from resrt.weights import configs, hub, identify, names
from resrt.weights.fit import as_arrays
from resrt.weights.formats.checkpoint import Checkpoint, shown
from resrt.weights.formats.states import select
from resrt.weights.metadata import Metadata


@runtime_checkable
class TorchModule(Protocol):
    """A torch.nn.Module, as far as resrt uses it."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return the parameters and buffers by name."""

    def named_modules(self) -> Iterable[tuple[str, Any]]:
        """Return the module and those in it by name."""


@dataclass(frozen=True)
class Found:
    """The catalog's network of a module, its weights, and its preprocessing and labels.

    `assumed` is the name of the pretrained weights whose preprocessing is usual for such modules.
    """

    network: str
    checkpoint: Checkpoint
    metadata: Metadata
    assumed: str


_LIBRARIES = ("timm", "torchvision", "transformers")
_WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "ModelEma": "module",
    "ModelEmaV2": "module",
    "ModelEmaV3": "module",
    "OptimizedModule": "_orig_mod",
}
# Layers of Graph, by the names of the modules that compute the same.
_ACTIVATIONS = {"ReLU": "Relu", "SiLU": "Silu", "SiLUActivation": "Silu", "Sigmoid": "Sigmoid"}
_POOLS = {"MaxPool2d": "MaxPool2d", "AvgPool2d": "AvgPool2d", "BlurPool2d": "BlurPool2d"}
_NORMS = ("BatchNorm2d", "BatchNormAct2d", "FrozenBatchNorm2d", "SyncBatchNorm")
_GLOBAL_POOLS = ("AdaptiveAvgPool2d", "FastAdaptiveAvgPool", "SelectAdaptivePool2d")
# What an inference computes as if it was not there, or as a part of the layer around it.
_NEUTRAL = (
    "Identity",
    "Dropout",
    "Dropout2d",
    "DropBlock2d",
    "DropPath",
    "StochasticDepth",
    "Flatten",
    "RadixSoftmax",
)


def read(module: TorchModule) -> Found:
    """Return the catalog's network that computes the same as a module, with its weights.

    Raises ModelError if the module is of none of the libraries, or computes what no network of the
    catalog does; WeightsError for weights that cannot be read.
    """
    module = _unwrapped(module)
    _check_library(module)
    state = dict(module.state_dict())
    # An index in the place of each array shows what becomes of its name.
    indices = {name: np.array(index) for index, name in enumerate(state)}
    selected = select(Checkpoint("a PyTorch module", indices), "the module")
    theirs = {ours: list(state)[int(index)] for ours, index in selected.arrays.items()}
    arrays = as_arrays({ours: state[name] for ours, name in theirs.items()}, "the module")
    told = _told(module)
    network = _network(module, arrays, theirs, told)
    checkpoint = replace(selected, arrays=arrays)
    channels = identify.trained_graph(arrays, network).input_shape[0]
    metadata = _metadata(module, network, channels)
    return Found(network, checkpoint, metadata, _assumed(module, network))


def _network(
    module: TorchModule, arrays: Mapping[str, Any], theirs: Mapping[str, str], told: str
) -> str:
    """Return the network with the module's parameters and function."""
    what = f"the module {type(module).__name__}{f' ({told})' if told else ''}"
    reason = ""
    for match in identify.nearest_networks(arrays, most=12, told=told):
        graph = identify.trained_graph(arrays, match.network)
        ours = names.to_ours({name: np.array(i) for i, name in enumerate(arrays)}, graph)
        shapes = {name: array.shape for name, array in names.to_ours(arrays, graph).items()}
        if shapes != {parameter.name: parameter.shape for parameter in graph.parameters}:
            reason = reason or f"it has other parameters than {match.network}, the nearest"
            continue
        order = list(arrays)
        places = {name: theirs[order[int(index)]] for name, index in ours.items()}
        different = _difference(module, graph, places)
        if different is None:
            return match.network
        if not reason or reason.startswith("it has other parameters"):
            reason = f"{different}, unlike {match.network}, which has the same parameters"
    raise ModelError(
        f"{what} is no network of the catalog: "
        f"{reason or 'it has other parameters than all of them'}; `resrt.list_models()` lists the "
        "networks, and docs/adding_a_network.md says how to write one of your own"
    )


def _difference(module: TorchModule, graph: _core.Graph, places: Mapping[str, str]) -> str | None:
    """Return how a module differs from a graph with the same parameters; None if it does not."""
    modules = dict(module.named_modules())
    leaves = {name for name, part in modules.items() if not _is_parent(part)}
    for layer in graph.layers:
        for parameter in layer.parameters:
            if not parameter.name.endswith(("weight", "running_mean")):
                continue
            place = places[parameter.name].rpartition(".")[0]
            leaves.discard(place)
            if (different := _layer_difference(place, modules[place], layer)) is not None:
                return different
    for name, part in modules.items():
        what = f"its layer {shown(name)}" if name else "it"
        root = type(part).__module__.partition(".")[0]
        if root not in ("torch", *_LIBRARIES):
            return f"{what} is a {type(part).__name__}, which resrt does not know"
        if "forward" in vars(part):
            return f"{what} has a forward of its own"
        # What they change is unknown, and an engine does not call them.
        if any(vars(part).get(hooks) for hooks in ("_forward_hooks", "_forward_pre_hooks")):
            return f"{what} has forward hooks, which must be removed first"
    return _other_difference(module, {name: modules[name] for name in sorted(leaves)}, graph)


def _layer_difference(place: str, part: Any, layer: _core.Layer) -> str | None:
    """Return how a module with parameters differs from a layer."""
    kind = type(part).__name__
    definition = layer.definition
    if kind in _NORMS:
        epsilon = getattr(definition, "epsilon", None)
        if epsilon is not None and not np.isclose(part.eps, epsilon, rtol=1e-3):
            return f"its layer {shown(place)} has the epsilon {part.eps}, not {epsilon:g}"
        return None
    if kind == "Linear" or (kind == "Conv1d" and layer.kind == "EfficientChannelAttention"):
        return None
    if kind != "Conv2d":
        return f"its layer {shown(place)} is a {kind}, which resrt does not know"
    if isinstance(definition, _core.Conv2d):
        expected = (definition.stride, definition.padding, definition.groups)
    else:  # the 1x1 convolutions of an attention
        expected = (1, 0, part.groups)
    padding = part.padding if isinstance(part.padding, str) else _one(part.padding)
    found = (_one(part.stride), padding, part.groups)
    if found != expected:
        return (
            f"its layer {shown(place)} has the stride {found[0]}, padding {found[1]} and "
            f"{found[2]} groups, not {expected[0]}, {expected[1]} and {expected[2]}"
        )
    if _one(part.dilation) != 1 or part.padding_mode != "zeros":
        return f"its layer {shown(place)} is dilated, or pads with other values than zeros"
    return None


def _other_difference(
    module: TorchModule, leaves: Mapping[str, Any], graph: _core.Graph
) -> str | None:
    """Return how the activations and poolings of a module differ from those of a graph."""
    found: Counter[str] = Counter()
    for name, part in leaves.items():
        kind = type(part).__name__
        if kind in _GLOBAL_POOLS:
            if getattr(part, "pool_type", "avg") not in ("avg", "fast", "fastavg") or (
                _one(getattr(part, "output_size", 1)) != 1
            ):
                return f"its layer {shown(name)} is not an average over the whole image"
        elif kind in _ACTIVATIONS:
            found[_ACTIVATIONS[kind]] += 1
        elif kind in _POOLS:
            found[_pool(part)] += 1
        elif kind not in _NEUTRAL:
            return f"its layer {shown(name)} is a {kind}"
    expected = _expected(graph)
    if type(module).__module__ == "torchvision.models.resnet":
        # Its blocks use one ReLU several times.
        expected["Relu"] = 1 + sum(layer.kind == "Add" for layer in graph.layers)
    if found != expected:
        differences = (found - expected) or (expected - found)
        first = next(iter(differences))
        return f"it has {found[first]} {first} layers, not {expected[first]}"
    return None


def _expected(graph: _core.Graph) -> Counter[str]:
    """Return the number of activations and poolings that the modules of a graph's layers have."""
    expected: Counter[str] = Counter()
    for layer in graph.layers:
        definition = layer.definition
        if isinstance(definition, _core.SplitAttention):
            expected["Relu"] += 1
        elif isinstance(definition, _core.SqueezeExcite):
            expected["Silu" if definition.silu else "Relu"] += 1
            expected["Sigmoid"] += 1
        elif isinstance(definition, _core.EfficientChannelAttention):
            expected["Sigmoid"] += 1
        elif isinstance(definition, (_core.Relu, _core.Silu)):
            expected[layer.kind] += 1
        elif layer.kind in _POOLS:
            expected[_pool(definition)] += 1
    return expected


def _pool(part: Any) -> str:
    """Return a pooling, of a module or of a definition, as text."""
    kind = type(part).__name__
    if kind == "BlurPool2d":
        return f"{kind}(stride={_one(part.stride)})"
    kernel = getattr(part, "kernel_size", None) or part.kernel
    sizes = f"kernel={_one(kernel)}, stride={_one(part.stride)}, padding={_one(part.padding)}"
    is_ceil = bool(getattr(part, "ceil_mode", False))
    return f"{kind}({sizes}{', ceil_mode' if is_ceil else ''})"


def _one(sizes: Any) -> Any:
    """Return the size of both axes, or the sizes if they differ."""
    if isinstance(sizes, (tuple, list)):
        return sizes[0] if len(set(sizes)) == 1 else tuple(sizes)
    return sizes


def _is_parent(part: Any) -> bool:
    return any(True for _ in part.children())


def _unwrapped(module: Any) -> Any:
    while (inner := _WRAPPERS.get(type(module).__name__)) and hasattr(module, inner):
        module = getattr(module, inner)
    return module


def _check_library(module: Any) -> None:
    """Raise ModelError if what a module computes is not written by one of the libraries."""
    if _library(module) not in _LIBRARIES:
        raise ModelError(
            f"the module {type(module).__name__} is not one of timm, torchvision or Transformers, "
            "so that resrt does not know what it computes; if it is a network of the catalog, give "
            "its name as the model, and weights=module.state_dict()"
        )


def _timm_config(module: Any) -> Mapping[str, Any]:
    for name in ("pretrained_cfg", "default_cfg"):
        if isinstance(config := getattr(module, name, None), Mapping):
            return config
    return {}


def _library(module: Any) -> str:
    return type(module).__module__.partition(".")[0]


def _told(module: Any) -> str:
    """Return the network that a module's configuration names."""
    if _library(module) == "timm":
        return str(_timm_config(module).get("architecture") or "")
    if _library(module) == "transformers":
        return str(getattr(module.config, "model_type", ""))
    return ""


def _metadata(module: Any, network: str, channels: int) -> Metadata:
    """Return the preprocessing and labels of a module's configuration."""
    if _library(module) == "timm":
        config = dict(_timm_config(module))
        labels = configs.labels_of(config)
        if size := config.get("input_size"):
            config["input_size"] = (channels, *size[1:])  # that of the module's in_chans
        try:
            found = configs.of_timm(config)
        except (InputError, KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise InputError(
                f"the module's pretrained_cfg has preprocessing that resrt does not support: "
                f"{error}; give preprocessing of your own"
            ) from None
        source = "the module's pretrained_cfg" if found.preprocessing is not None else ""
        return replace(found, labels=labels, preprocessing_source=source)
    if _library(module) != "transformers":
        return Metadata()
    numbered = getattr(module.config, "id2label", None) or {}
    labels = configs.labels_of({"id2label": {str(k): name for k, name in numbered.items()}})
    return replace(_of_processor(module, network), labels=labels)


def _of_processor(module: Any, network: str) -> Metadata:
    """Return the preprocessing in the folder or repository that a model was loaded from."""
    origin = getattr(module.config, "_name_or_path", "") or ""
    if not origin or is_folder(origin):
        return configs.beside(origin, network) if origin else Metadata()
    cached = hub.cached(origin, configs.PROCESSOR)
    return configs.beside(cached.parent, network) if cached is not None else Metadata()


def _assumed(module: Any, network: str) -> str:
    """Return the pretrained weights whose preprocessing is usual for a library's modules."""
    return f"{network}.tv_in1k" if _library(module) == "torchvision" else network
