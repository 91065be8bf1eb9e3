"""The catalog of pretrained weights: where they are published, and how images are preprocessed.

weights/catalog.toml is the catalog. `resrt.fetch` downloads from it.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from resrt import _core
from resrt._support.arguments import choice, matches
from resrt.errors import WeightsError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Pretrained:
    """Published weights for a network of the catalog.

    `name` is the name of the network, with a tag if it has several weights: "resnet50.a1_in1k".
    `url` is the download address; weights on the Hugging Face hub also have `file`, in the
    repository `hub`. `address_from` is the page on which the publisher gives the address.

    Photographs are resized to a shorter side of `resize` pixels and cropped to the middle
    `crop` x `crop`, as `pipeline` ("paddleclas" or "torchvision", see Preprocessing) does it.
    `crop_pct` is the ratio from which timm derives `resize`, also for other input sizes, or None.
    `test_resize` and `test_crop` are the sizes at which timm measured the best accuracy, or None.
    `top1` and `top5` are PaddleClas's published accuracies on the validation set of ImageNet-1k,
    as fractions.
    """

    name: str
    url: str
    address_from: str
    format: str
    licence: str
    classes: int
    resize: int
    crop: int
    interpolation: str
    pipeline: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float | None = None
    hub: str | None = None
    file: str | None = None
    test_resize: int | None = None
    test_crop: int | None = None
    top1: float | None = None
    top5: float | None = None

    @property
    def model(self) -> str:
        """The name of the network."""
        return self.name.partition(".")[0]


def list_pretrained(pattern: str = "*") -> list[Pretrained]:
    """Return the pretrained weights whose names match a shell pattern, in catalog order.

    The pattern ignores case.

    >>> [entry.name for entry in list_pretrained("resnet50d.*in1k")][:2]
    ['resnet50d.ra2_in1k', 'resnet50d.ra4_e3600_r224_in1k']
    """
    return [entry for entry in _catalog().values() if matches(entry.name, pattern)]


def find(name: str) -> Pretrained | None:
    """Return weights by name, or the default ones of a network, or None if it has none.

    Raises ModelError for an unknown network, WeightsError for an unknown tag of a known network.
    """
    if entry := _catalog().get(name):
        return entry
    model, dot, _ = name.partition(".")
    _core.find_model(choice("a network", model if dot else name))
    of_model = names_of(model)
    if dot:
        known = ", ".join(of_model) or "none"
        raise WeightsError(f"unknown pretrained weights {name!r}; known for {model}: {known}")
    return _catalog()[of_model[0]] if of_model else None


def names_of(model: str) -> tuple[str, ...]:
    """Return the names of the pretrained weights of a network, the default first."""
    return _names_by_model().get(model, ())


@cache
def _catalog() -> dict[str, Pretrained]:
    text = resources.files("resrt.catalog").joinpath("catalog.toml").read_text("utf-8")
    return {name: _entry(name, table) for name, table in tomllib.loads(text).items()}


@cache
def _names_by_model() -> dict[str, tuple[str, ...]]:
    names: dict[str, tuple[str, ...]] = {}
    for entry in _catalog().values():
        names[entry.model] = (*names.get(entry.model, ()), entry.name)
    return names


def _entry(name: str, table: dict[str, Any]) -> Pretrained:
    mean, std = tuple(table.pop("mean")), tuple(table.pop("std"))
    if "crop_pct" in table:
        table["resize"] = math.floor(table["crop"] / table["crop_pct"])
    if "hub" in table:
        table["url"] = f"{_HUB}/{table['hub']}/resolve/main/{table['file']}"
    return Pretrained(name=name, mean=mean, std=std, **table)
