"""Networks that are written layer by layer with `resrt.Graph.add`."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest

import resrt
from resrt import _core, layers
from support.networks import sample_of
from support.reference import infer


def small_network() -> resrt.Graph:
    graph = resrt.Graph("small")
    x = graph.add("input", layers.Input(3, 13, 11))
    x = graph.add("conv1", layers.Conv2d(8, kernel=3, stride=2), x)
    shortcut = graph.add("act1", layers.Relu(), x)
    x = graph.add("conv2", layers.Conv2d(8, kernel=3, padding=1, bias=True), [shortcut])
    x = graph.add("add", layers.Add(), [x, shortcut])
    return graph


def test_every_definition_is_public() -> None:
    public = {value for value in vars(layers).values() if isinstance(value, type)}
    assert public == set(_core.DEFINITIONS)


def test_a_graph_grows_and_computes_what_its_layers_define() -> None:
    graph = small_network()
    assert [layer.name for layer in graph.layers] == ["input", "conv1", "act1", "conv2", "add"]
    assert graph.layers[-1].inputs == ["conv2", "act1"]
    with pytest.raises(resrt.ModelError, match="'add', has an output of shape 8x6x5"):
        resrt.build(graph, weights="random")
    graph.add("pool", layers.GlobalAvgPool2d(), "add")
    graph.add("fc", layers.Linear(5), "pool")
    network = sample_of(graph)
    engine = resrt.build(graph, network.weights, precision="fp32")
    graph.add("more", layers.Linear(7), "fc")
    network.assert_close(engine.infer(network.images))
    assert (engine.info.classes, graph.classes) == (5, 7)


@pytest.mark.parametrize("ends_with_linear", [False, True])
def test_export_of_layers_with_the_names_of_inputs_and_outputs(
    ends_with_linear: bool, tmp_path: Path
) -> None:
    """The exported model has tensors of these names itself, and its output is (N, classes)."""
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    graph = small_network()
    x = graph.add("images", layers.Relu(), "add")
    x = graph.add("logits", layers.Conv2d(4, kernel=1), x)
    x = graph.add("pool", layers.GlobalAvgPool2d(), x)
    if ends_with_linear:
        graph.add("fc", layers.Linear(5), x)
    network = sample_of(graph)
    resrt.export(graph, tmp_path / "small.onnx", network.weights)
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx")
    (logits,) = session.run(["logits"], {"images": network.images})
    assert logits.shape == (3, graph.classes)
    network.assert_close(logits)


def test_graph_without_layers() -> None:
    graph = resrt.Graph("empty")
    assert (repr(graph), len(graph), graph.layers) == ("Graph(empty, no layers)", 0, [])
    with pytest.raises(resrt.ModelError, match="the graph of empty has no layers"):
        resrt.build(graph, weights="random")


def test_invalid_layers_are_named_and_not_added() -> None:
    graph = small_network()
    for definition, inputs, message in (
        (layers.Relu(), "cone", "'new' of small reads 'cone', which is not the name of a layer"),
        (layers.Relu(), [], "invalid layer 'new' of small: Relu requires 1 input"),
        (layers.Add(), ["conv2", "input"], "tensors of the same shape, got 8x6x5 and 3x13x11"),
        (layers.Linear(3), "add", "Linear requires a vector, got 8x6x5"),
        (layers.Input(3, 4, 4), [], "no other layer may be one"),
    ):
        with pytest.raises(resrt.ModelError, match=message):
            graph.add("new", definition, inputs)
    with pytest.raises(resrt.ModelError, match="already has a layer named 'conv1'"):
        graph.add("conv1", layers.Relu(), "add")
    assert len(graph) == 5


def test_a_resnet_written_by_hand_is_the_one_of_the_catalog() -> None:
    config = resrt.ResNet(depths=[1, 1], width=8, block="basic")
    expected = resrt.build_graph(config, classes=5, input_size=32)
    graph = resrt.Graph("by_hand")
    for layer in expected.layers:
        assert graph.add(layer.name, layer.definition, layer.inputs) == layer.name
    weights = _core.random_weights(expected, 3)
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    np.testing.assert_array_equal(infer(graph, weights, x), infer(expected, weights, x))


@pytest.mark.parametrize("network", ["resnest14d", "resnetblur18", "ecaresnet26t", "regnetz_005"])
def test_definitions_are_copied_and_pickled(network: str) -> None:
    for layer in resrt.build_graph(network).layers:
        for copied in (
            copy.deepcopy(layer.definition),
            pickle.loads(pickle.dumps(layer.definition)),
        ):
            assert type(copied) is type(layer.definition)
            assert repr(copied) == repr(layer.definition)
