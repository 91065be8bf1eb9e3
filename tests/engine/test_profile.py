"""`Engine.profile`: the time of each layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt
import pytest

import resrt
from resrt import _core

Load = Callable[[resrt.Engine], resrt.Engine]


@pytest.fixture
def load_with_counters(tmp_path: Path) -> Load:
    def load(engine: resrt.Engine) -> resrt.Engine:
        engine.save(tmp_path / "saved.engine")
        return resrt.load(tmp_path / "saved.engine", profile=True)

    return load


@pytest.mark.parametrize("precision", ["fp32", "auto"])
@pytest.mark.parametrize("network", ["small", "ecaresnet26t", "regnetz_040", "resnetblur50"])
def test_every_layer_has_a_time(
    network: str, precision: str, small_graph: resrt.Graph, load_with_counters: Load
) -> None:
    graph = small_graph if network == "small" else resrt.build_graph(network, input_size=64)
    engine = load_with_counters(resrt.build(graph, "random", precision=precision, max_batch=2))
    found = engine.profile(2, repeats=3)
    assert (found.batch, found.repeats) == (2, 3)
    folded, _ = _core.fold_batch_norm(graph, _core.random_weights(graph, 0))
    kinds = {layer.name: type(layer.definition).__name__ for layer in graph.layers}
    expected = {layer.name for layer in _core.fuse_add_relu(folded).layers[1:]}
    assert {name for step in found.steps for name in step.layers} == expected
    for step in found.steps:
        assert step.ms >= 0
        of_layers = " + ".join(dict.fromkeys(kinds[name] for name in step.layers))
        assert step.kind == (of_layers or f"({step.type})")


def test_sums(small_engine: resrt.Engine, load_with_counters: Load) -> None:
    found = load_with_counters(small_engine).profile(repeats=10)
    for parts in (found.layers, found.kinds):
        assert sum(part.ms for part in parts) == pytest.approx(found.total_ms)
        assert sum(part.share for part in parts) == pytest.approx(1)
        assert sum(part.steps for part in parts) == len(found.steps)
    layers = {layer.name: layer for layer in found.layers}
    attention = layers["layer1.0.conv2"]
    steps = [step for step in found.steps if step.layers == ("layer1.0.conv2",)]
    assert attention.steps == len(steps) > 1
    assert attention.ms == pytest.approx(sum(step.ms for step in steps))
    kinds = {kind.kind: kind for kind in found.kinds}
    assert kinds["SplitAttention"].steps == attention.steps + layers["layer2.0.conv2"].steps
    assert [kind.ms for kind in found.kinds] == sorted((k.ms for k in found.kinds), reverse=True)
    document = found.document()
    assert document["kinds"][0]["share"] == found.kinds[0].share
    assert document["layers"][0]["name"] == found.layers[0].name
    assert document["total_ms"] == found.total_ms


def test_the_steps_take_no_longer_than_the_inferences(tmp_path: Path) -> None:
    resrt.build("resnet18", "random", input_size=128).save(tmp_path / "resnet18.engine")
    # The first inference of a size, which prepares its kernels, and other batches are not counted.
    engine = resrt.load(tmp_path / "resnet18.engine", warm_up=False, profile=True)
    engine.infer(np.zeros((4, 3, 128, 128), np.float32))
    start = perf_counter()
    found = engine.profile(repeats=20)
    seconds = perf_counter() - start
    assert 0 < found.total_ms * 20 < 1000 * seconds


def test_logits_are_the_same(
    small_engine: resrt.Engine, load_with_counters: Load, images: npt.NDArray[np.float32]
) -> None:
    engine = load_with_counters(small_engine)
    engine.profile(repeats=2)
    np.testing.assert_array_equal(engine.infer(images), small_engine.infer(images))


def test_names_of_layers_may_have_any_letters(load_with_counters: Load) -> None:
    graph = resrt.Graph("own")
    x = graph.add("entrée#1", resrt.layers.Input(3, 8, 8))
    x = graph.add("première (1#2)", resrt.layers.Conv2d(4, kernel=3), [x])
    x = graph.add("moyenne", resrt.layers.GlobalAvgPool2d(), [x])
    graph.add("tête", resrt.layers.Linear(2), [x])
    found = load_with_counters(resrt.build(graph, "random")).profile(repeats=1)
    kinds = {layer.name: layer.kind for layer in found.layers if not layer.kind.startswith("(")}
    assert kinds == {
        "première (1#2)": "Conv2d",
        "moyenne": "GlobalAvgPool2d",
        "tête": "Linear",
    }


def test_invalid_arguments(small_engine: resrt.Engine, load_with_counters: Load) -> None:
    with pytest.raises(resrt.InputError, match="loaded without counters; load it with the option"):
        small_engine.profile()
    engine = load_with_counters(small_engine)
    with pytest.raises(resrt.InputError, match=r"splits 5 images and begins with 4"):
        engine.profile(5)
    with pytest.raises(resrt.InputError, match="batch must be an integer of at least 1, not 0"):
        engine.profile(0)
    with pytest.raises(resrt.InputError, match="repeats must be an integer of at least 1, not 0"):
        engine.profile(repeats=0)


def test_roundings_of_an_8_bit_network_are_a_kind(
    small_graph: resrt.Graph, images: np.ndarray, tmp_path: Path
) -> None:
    calibration = resrt.calibrate(small_graph, "random", images)
    engine = resrt.build(small_graph, "random", precision="int8", calibration=calibration)
    engine.save(tmp_path / "int8.engine")
    profile = resrt.load(tmp_path / "int8.engine", profile=True).profile(1, repeats=2)
    assert any("Conv2d" in kind.name for kind in profile.kinds)
    layers = {layer.name for layer in small_graph.layers}
    added = {layer for step in profile.steps for layer in step.layers} - layers
    assert added
    assert all(layer.removesuffix(".quantize") in layers for layer in added)
    assert all("Quantize" in step.kind for step in profile.steps if added.intersection(step.layers))
