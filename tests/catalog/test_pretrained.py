"""The catalog of pretrained weights."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import resrt
from resrt.catalog import pretrained
from support.paths import ROOT


def test_every_published_network_has_an_entry() -> None:
    with (ROOT / "python/resrt/catalog/published.csv").open() as file:
        published = {row["model"]: row for row in csv.DictReader(file)}
    assert len(published) == 21
    for name, row in published.items():
        entry = pretrained.find(name)
        assert entry is not None, name
        assert entry.url.endswith(f"/{name}_pretrained.pdparams")
        assert (entry.crop, entry.resize) == (int(row["crop"]), int(row["resize_short"]))
        assert (entry.top1, entry.top5) == (float(row["top1"]), float(row["top5"]))


def test_the_installed_catalog_is_that_of_the_checkout() -> None:
    installed = Path(pretrained.__file__).with_name("catalog.toml")
    assert installed.read_text() == (ROOT / "weights/catalog.toml").read_text()


@pytest.mark.parametrize("entry", resrt.list_pretrained(), ids=lambda entry: entry.name)
def test_entries_are_complete(entry: resrt.Pretrained) -> None:
    model = resrt.model_info(entry.model)
    assert entry.url.startswith("https://")
    assert entry.format == ("safetensors" if model.source == "timm" else "pdparams")
    assert entry.licence
    assert entry.address_from
    assert entry.classes >= 1000
    assert 0 < entry.crop <= entry.resize
    assert (entry.test_crop is None) == (entry.test_resize is None)
    assert entry.interpolation in ("bilinear", "bicubic")
    assert len(entry.mean) == len(entry.std) == 3
    assert all(0 < value < 1 for value in entry.mean + entry.std)


@pytest.mark.parametrize("model", resrt.list_models(), ids=lambda model: model.name)
def test_default_weights_match_the_catalog_of_networks(model: resrt.ModelInfo) -> None:
    entry = pretrained.find(model.name)
    if entry is not None:
        assert entry.crop == model.input_size
        assert entry.classes == 1000


def test_names_with_and_without_a_tag() -> None:
    assert pretrained.find("resnet50") == pretrained.find("resnet50.a1_in1k")
    other = pretrained.find("resnet50.tv_in1k")
    assert other is not None
    assert (
        other.url == "https://huggingface.co/timm/resnet50.tv_in1k/resolve/main/model.safetensors"
    )
    assert (other.licence, other.resize, other.interpolation) == ("bsd-3-clause", 256, "bilinear")
    assert pretrained.find("cifar_resnet20") is None


def test_unknown_names() -> None:
    with pytest.raises(resrt.ModelError, match="resnet50"):
        pretrained.find("resnet5O")
    with pytest.raises(resrt.ModelError, match="resnet50"):
        pretrained.find("resnet5O.a1_in1k")
    with pytest.raises(resrt.WeightsError, match="'resnet18.b1'.*resnet18.a1_in1k, resnet18.a2"):
        pretrained.find("resnet18.b1")
