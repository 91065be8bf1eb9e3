"""Which names of a file belong to its network: prefixes, heads and what is beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import resrt
from resrt import weights

NETWORK = ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer4.1.bn2.running_var")
IMAGES = np.ones((1, 3, 32, 32), np.float32)


def read(path: Path, names: list[str], key: str | None = None) -> weights.Checkpoint:
    values = {name: np.full(1, index, np.float32) for index, name in enumerate(names)}
    save_file(values, path)
    return weights.read(path, key=key)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.safetensors"


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "model.",
        "backbone.",
        "timm_model.",
        "net.",
        "encoder.",
        "module.model.encoder.",
        "_orig_mod.module.",
        "anything.at.all.",
    ],
)
@pytest.mark.parametrize("head", ["fc.weight", "head.fc.weight", "classifier.1.weight"])
def test_prefixes_are_removed(prefix: str, head: str, path: Path) -> None:
    inside = [f"{prefix}{name}" for name in (*NETWORK, head)]
    foreign = ["criterion.weight", "optimizer.momentum", "projector.0.weight", "n_averaged"]
    checkpoint = read(path, [*foreign, *inside])
    assert set(checkpoint.arrays) == {*NETWORK, head}
    assert sorted(checkpoint.left_aside) == sorted(foreign)


@pytest.mark.parametrize(
    ("prefix", "outer"), [("backbone.", ""), ("module.backbone.", "module."), ("a.b.c.", "a.")]
)
@pytest.mark.parametrize("head", ["fc.bias", "linear.bias", "classifier.bias", "head.1.bias"])
def test_a_head_outside_of_the_backbone(prefix: str, outer: str, head: str, path: Path) -> None:
    names = [f"{prefix}{name}" for name in NETWORK] + [f"{outer}{head}"]
    assert set(read(path, names).arrays) == {*NETWORK, head}


def test_of_two_heads_the_inner_one_is_taken(path: Path) -> None:
    names = [f"backbone.{name}" for name in (*NETWORK, "fc.bias")]
    checkpoint = read(path, [*names, "head.bias"])
    assert set(checkpoint.arrays) == {*NETWORK, "fc.bias"}
    assert checkpoint.left_aside == ("head.bias",)


def test_what_is_left_aside_is_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read(path, [*(f"module.{name}" for name in NETWORK), "criterion.weight", "\x1b"])
    assert "left aside 2 arrays that do not belong to the network: " in caplog.text
    assert "criterion.weight" in caplog.text
    assert "\x1b" not in caplog.text


def test_unknown_names_without_a_prefix_are_kept(path: Path) -> None:
    """They may be why a network does not fit, so that an error must name them."""
    checkpoint = read(path, [*NETWORK, "aux.weight", "criterion.weight"])
    assert set(checkpoint.arrays) == {*NETWORK, "aux.weight"}


def test_two_networks(path: Path) -> None:
    names = [f"{name}.{part}" for name in ("student", "teacher") for part in NETWORK]
    for key, first in ((None, 0), ("student", 0), ("teacher", 4), ("teacher.", 4)):
        arrays = read(path, names, key).arrays
        assert set(arrays) == {*NETWORK}
        assert arrays[NETWORK[0]] == first
    with pytest.raises(
        resrt.WeightsError, match=r"under x; it has names that begin with student, "
    ):
        read(path, names, "x")


@pytest.mark.parametrize("extension", ["npz", "safetensors"])
def test_a_wrapped_network_is_built(extension: str, tmp_path: Path) -> None:
    graph = resrt.build_graph("resnet18", classes=7, input_size=32)
    arrays: Mapping[str, np.ndarray] = resrt._core.random_weights(graph, 0)
    expected = resrt.build(graph, dict(arrays)).infer(IMAGES)
    wrapped = {
        f"model.backbone.{name}".replace("backbone.fc", "fc.1"): array
        for name, array in arrays.items()
    }
    wrapped["criterion.weight"] = np.ones(7, np.float32)
    path = tmp_path / f"x.{extension}"
    if extension == "npz":
        np.savez(path, **wrapped)
    else:
        save_file(wrapped, path)
    engine = resrt.build("resnet18", path, input_size=32)
    assert engine.info.classes == 7
    np.testing.assert_array_equal(engine.infer(IMAGES), expected)
