"""The catalog of networks, joined with the figures that were published for them."""

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
    """What PaddleClas's pages on these series say of a network.

    Accuracies are fractions on ImageNet-1k's validation set; `gflops` is twice the multiply-adds of
    one image, `mparams` millions of parameters; `latency_ms` maps columns such as "v100_fp32_bs1"
    to milliseconds per batch.
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

    `source` is whose conventions it follows (PaddleClas, timm, torchvision); `input_size` the
    height and width in pixels that its weights were published for; `published` None where
    PaddleClas's pages have no row of that name. `parameters` and `gflops` are counted in the
    network's layer definitions.
    """

    name: str
    family: str
    source: str
    input_size: int
    config: Config
    published: Published | None

    @property
    def parameters(self) -> int:
        """The number of trainable parameters."""
        return self._cost.parameters

    @property
    def gflops(self) -> float:
        """Twice the multiply-adds, in thousand millions, of one image of `input_size`."""
        return 2 * self._cost.multiply_adds / 1e9

    @property
    def pretrained(self) -> tuple[str, ...]:
        """The names of the pretrained weights that are known for it, the default first."""
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
    """Return those networks of the catalog that meet every condition given, in its order.

    Args:
        pattern: a shell pattern of names; upper and lower case are the same.
        source: whose conventions they follow: "PaddleClas", "timm" or "torchvision".
        family: "ResNet", "ResNeSt", "RegNetX" or "RegNetY".
        is_pretrained: whether pretrained weights are known, as `list_pretrained` lists them.
        is_published: whether PaddleClas's pages have figures of it.
        max_parameters: trainable parameters that it may have at most.
        max_gflops: GFLOPs that an image of its input size may cost at most.

    Raises InputError for a source or family that there is not.

    >>> [model.name for model in list_models("resnest50*", source="timm", max_gflops=10)]
    ['resnest50d_1s4x24d', 'resnest50d_4s2x40d']
    """
    _refuse_unknown("source", source, SOURCES)
    _refuse_unknown("family", family, FAMILIES)
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


def _refuse_unknown(kind: str, name: str | None, known: Sequence[str]) -> None:
    if name is not None and name not in known:
        raise InputError(f"there is no {kind} {name!r} in the catalog; it has {', '.join(known)}")


def model_info(name: str) -> ModelInfo:
    """Return the catalog's row of that name. Raises ModelError with the nearest names."""
    return _info(_core.find_model(choice("a network", name)))


def published_for(model: str) -> Published | None:
    """Return what was published for a network; None for one that is not in the catalog."""
    return _published().get(model)


def build_graph(
    model: str | Config,
    *,
    classes: int = 1000,
    input_size: int | Sequence[int] | None = None,
    in_channels: int = 3,
    name: str | None = None,
) -> _core.Graph:
    """Return a network's graph, whose str() is a table of its layers and costs.

    Args:
        model: a name of the catalog, or a ResNet, ResNeSt or RegNet of one's own parameters.
        classes: the number of logits.
        input_size: height and width of the images in pixels, one number if they are the same;
            None: what the network was published for (224 for parameters of one's own).
        in_channels: planes of the images.
        name: of the graph; only for parameters of one's own.

    Raises ModelError for an unknown name and for parameters that describe no network,
    InputError for sizes that are no whole numbers.
    """
    classes, in_channels = whole("classes", classes), whole("in_channels", in_channels)
    height, width = _height_and_width(input_size)
    if isinstance(model, str):
        if name is not None:
            raise ModelError(f"{model!r} has its name from the catalog; leave out name={name!r}")
        return _core.build_graph(model, classes, in_channels, height, width)
    if not isinstance(model, (_core.ResNet, _core.ResNeSt, _core.RegNet)):
        raise ModelError(
            "a network is named by a str, or described by resrt.ResNet, resrt.ResNeSt or "
            f"resrt.RegNet, not by {type(model).__name__}"
        )
    own_name = type(model).__name__ if name is None else name
    return _core.build_graph(own_name, model, classes, in_channels, height, width)


def _height_and_width(input_size: int | Sequence[int] | None) -> tuple[int | None, int | None]:
    if input_size is None:
        return None, None
    sizes = list(input_size) if isinstance(input_size, Iterable) else [input_size] * 2
    if isinstance(input_size, str) or len(sizes) != 2:
        raise InputError(f"input_size must be one number, or (height, width), not {input_size!r}")
    return whole("the input's height", sizes[0]), whole("the input's width", sizes[1])
