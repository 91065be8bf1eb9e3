"""The catalog of networks, with their published figures."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from typing import TypeAlias

from resrt import _core
from resrt._support.arguments import choice, matches, whole
from resrt.catalog import pretrained
from resrt.errors import InputError, ModelError

Config: TypeAlias = _core.ResNet | _core.ResNeSt | _core.RegNet

# In the catalog's order.
SOURCES = tuple(dict.fromkeys(model.source for model in _core.catalog()))
FAMILIES = tuple(dict.fromkeys(model.family for model in _core.catalog()))


@dataclass(frozen=True)
class Published:
    """The figures that PaddleClas publishes for a network.

    Accuracies are fractions on the validation set of ImageNet-1k. `gflops` is twice the
    multiply-adds of one image in billions, `mparams` the number of parameters in millions.
    `latency_ms` maps columns such as "v100_fp32_bs1" to milliseconds per batch.
    """

    crop: int
    resize_short: int
    top1: float
    top5: float
    gflops: float
    mparams: float
    latency_ms: dict[str, float]


@dataclass(frozen=True)
class ModelInfo:
    """A network of the catalog.

    `source` is the library whose conventions it follows (PaddleClas, timm or torchvision), or
    "paper" for the networks for CIFAR of the original paper, which none of these has. `input_size`
    is the height and width in pixels that its weights were published for, and `classes` their
    number of classes. `published` is None if PaddleClas publishes no figures for it. `parameters`
    and `gflops` are counted from the layer definitions.
    """

    name: str
    family: str
    source: str
    input_size: int
    classes: int
    config: Config
    published: Published | None

    @property
    def parameters(self) -> int:
        """The number of trainable parameters."""
        return self._cost.parameters

    @property
    def gflops(self) -> float:
        """Twice the multiply-adds of one image of `input_size`, in billions."""
        return 2 * self._cost.multiply_adds / 1e9

    @property
    def pretrained(self) -> tuple[str, ...]:
        """The names of its pretrained weights, the default first."""
        return pretrained.names_of(self.name)

    @cached_property
    def _cost(self) -> _core.Cost:
        return build_graph(self.name).cost


@cache
def _published() -> dict[str, Published]:
    text = resources.files("resrt.catalog").joinpath("published.csv").read_text()
    return {
        row["model"]: Published(
            crop=int(row["crop"]),
            resize_short=int(row["resize_short"]),
            top1=float(row["top1"]),
            top5=float(row["top5"]),
            gflops=float(row["gflops"]),
            mparams=float(row["mparams"]),
            latency_ms={
                column.removesuffix("_ms"): float(value)
                for column, value in row.items()
                if column.endswith("_ms") and value
            },
        )
        for row in csv.DictReader(text.splitlines())
    }


def _info(model: _core.Model) -> ModelInfo:
    return ModelInfo(
        name=model.name,
        family=model.family,
        source=model.source,
        input_size=model.input_size,
        classes=model.classes,
        config=model.config,
        published=_published().get(model.name),
    )


def list_models(
    pattern: str = "*",
    *,
    source: str | None = None,
    family: str | None = None,
    is_pretrained: bool | None = None,
    is_published: bool | None = None,
    max_parameters: float | None = None,
    max_gflops: float | None = None,
) -> list[ModelInfo]:
    """Return the networks of the catalog that meet all given conditions, in catalog order.

    Args:
        pattern: a shell pattern for names, ignoring case.
        source: the library whose conventions they follow: "PaddleClas", "timm" or "torchvision"; or
            "paper".
        family: "ResNet", "ResNeSt", "RegNetX", "RegNetY", "RegNetV" or "RegNetZ".
        is_pretrained: whether the catalog has pretrained weights; see `list_pretrained`.
        is_published: whether PaddleClas publishes figures.
        max_parameters: the maximum number of trainable parameters.
        max_gflops: the maximum GFLOPs for one image of the network's input size.

    Raises InputError for an unknown source or family.

    >>> [model.name for model in list_models("resnest50*", source="timm", max_gflops=10)]
    ['resnest50d_1s4x24d', 'resnest50d_4s2x40d']
    """
    _check_known("source", source, SOURCES)
    _check_known("family", family, FAMILIES)
    models = (_info(model) for model in _core.catalog() if matches(model.name, pattern))
    return [
        model
        for model in models
        if source in (None, model.source)
        and family in (None, model.family)
        and is_pretrained in (None, bool(model.pretrained))
        and is_published in (None, model.published is not None)
        and (max_parameters is None or model.parameters <= max_parameters)
        and (max_gflops is None or model.gflops <= max_gflops)
    ]


def _check_known(kind: str, name: str | None, known: Sequence[str]) -> None:
    if name is not None and name not in known:
        raise InputError(f"unknown {kind} {name!r}; the catalog has {', '.join(known)}")


def model_info(name: str) -> ModelInfo:
    """Return a network of the catalog. Raises ModelError, which suggests the nearest names."""
    return _info(_core.find_model(choice("a network", name)))


def published_for(model: str) -> Published | None:
    """Return the published figures of a network, or None if there are none."""
    return _published().get(model)


def build_graph(
    model: str | Config,
    *,
    classes: int | None = None,
    input_size: int | Sequence[int] | None = None,
    in_channels: int = 3,
    name: str | None = None,
) -> _core.Graph:
    """Return the graph of a network. Its str() is a table of the layers and their costs.

    Args:
        model: a name from the catalog, or a custom ResNet, ResNeSt or RegNet configuration.
        classes: the number of logits. The default is the one that the network was published for,
            or 1000 for a configuration.
        input_size: the (height, width) of the images in pixels, or one number for both. The
            default is the size that the network was published for, or 224 for a configuration.
        in_channels: the number of channels of the images.
        name: the name of the graph; only for a configuration.

    Raises ModelError for an unknown name or an invalid configuration, InputError for sizes that
    are not positive integers.
    """
    in_channels = whole("in_channels", in_channels)
    if classes is not None:
        classes = whole("classes", classes)
    height, width = _height_and_width(input_size)
    if isinstance(model, str):
        if name is not None:
            raise ModelError(f"{model!r} is named by the catalog; leave out name={name!r}")
        return _core.build_graph(model, classes, in_channels, height, width)
    if not isinstance(model, (_core.ResNet, _core.ResNeSt, _core.RegNet)):
        raise ModelError(
            "a network must be a name, or a resrt.ResNet, resrt.ResNeSt or resrt.RegNet, not "
            f"{type(model).__name__}"
        )
    own_name = type(model).__name__ if name is None else name
    return _core.build_graph(own_name, model, classes, in_channels, height, width)


def _height_and_width(input_size: int | Sequence[int] | None) -> tuple[int | None, int | None]:
    if input_size is None:
        return None, None
    sizes = list(input_size) if isinstance(input_size, Iterable) else [input_size] * 2
    if isinstance(input_size, str) or len(sizes) != 2:
        raise InputError(f"input_size must be a number or (height, width), not {input_size!r}")
    return whole("the input's height", sizes[0]), whole("the input's width", sizes[1])
