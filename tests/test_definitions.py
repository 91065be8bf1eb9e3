"""Every layer definition passes through everything that walks over the layers of a graph."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import resrt
from resrt import _core
from resrt.weights import Weights
from support.networks import GRID, VARIANTS, Sample, sample_of
from support.reference import infer

# For each definition, layers between the images and the head that include it.
EXAMPLES: dict[type, list[tuple[str, Any, list[str]]]] = {
    _core.Input: [],
    _core.Conv2d: [
        ("conv", _core.Conv2d(12, kernel=3, stride=2, padding=1, groups=4, bias=True), ["images"])
    ],
    _core.BatchNorm2d: [
        ("conv", _core.Conv2d(8, kernel=1), ["images"]),
        ("bn", _core.BatchNorm2d(epsilon=0.1), ["conv"]),
    ],
    # Neither ReLU nor the second addition can be fused into a convolution.
    _core.Relu: [
        ("maximum", _core.MaxPool2d(kernel=1, stride=2), ["images"]),
        ("relu", _core.Relu(), ["maximum"]),
    ],
    _core.Add: [
        ("maximum", _core.MaxPool2d(kernel=3, stride=1, padding=1), ["images"]),
        ("conv", _core.Conv2d(8, kernel=1), ["images"]),
        ("sum", _core.Add(), ["conv", "maximum"]),
        ("relu", _core.Relu(), ["sum"]),
        ("another_sum", _core.Add(), ["maximum", "relu"]),
    ],
    _core.MaxPool2d: [("pool", _core.MaxPool2d(kernel=3, stride=2, padding=1), ["images"])],
    _core.AvgPool2d: [
        (
            "ceiled",
            _core.AvgPool2d(kernel=2, stride=2, ceil_mode=True, count_include_pad=False),
            ["images"],
        ),
        ("padded", _core.AvgPool2d(kernel=3, stride=2, padding=1), ["ceiled"]),
    ],
    _core.Silu: [
        ("maximum", _core.MaxPool2d(kernel=1, stride=2), ["images"]),
        ("silu", _core.Silu(), ["maximum"]),
    ],
    _core.BlurPool2d: [
        ("relu", _core.Relu(), ["images"]),
        ("coarse", _core.BlurPool2d(), ["relu"]),
        ("blurred", _core.BlurPool2d(stride=1), ["coarse"]),
    ],
    _core.Quantize: [
        ("rounded", _core.Quantize(scale=0.01, is_signed=True), ["images"]),
        ("maximum", _core.MaxPool2d(kernel=3, stride=2, padding=1), ["rounded"]),
        ("relu", _core.Relu(), ["maximum"]),
        ("positive", _core.Quantize(scale=0.03), ["relu"]),
    ],
    _core.PadChannels: [
        ("relu", _core.Relu(), ["images"]),
        ("more", _core.PadChannels(before=2, after=3), ["relu"]),
    ],
    _core.GlobalAvgPool2d: [],
    _core.SplitAttention: [
        ("block", _core.SplitAttention(4, radix=2, cardinality=2, hidden=6), ["images"])
    ],
    _core.SqueezeExcite: [
        ("block", _core.SqueezeExcite(hidden=3), ["images"]),
        ("silu_block", _core.SqueezeExcite(hidden=5, silu=True), ["block"]),
    ],
    _core.EfficientChannelAttention: [
        ("block", _core.EfficientChannelAttention(kernel=5), ["images"]),
        ("conv", _core.Conv2d(6, kernel=1), ["block"]),
        ("another_block", _core.EfficientChannelAttention(kernel=3), ["conv"]),
    ],
    _core.Linear: [],
}


def example(definition: type) -> Sample:
    layers = [("images", _core.Input(8, 9, 7), []), *EXAMPLES[definition]]
    head = [
        ("mean", _core.GlobalAvgPool2d(), [layers[-1][0]]),
        ("fc", _core.Linear(5), ["mean"]),
    ]
    return sample_of(resrt.Graph(definition.__name__, [*layers, *head]))


def printing(network: Sample) -> None:
    for graph, _ in network.variants():
        for line, layer in zip(str(graph).splitlines()[1:], graph.layers, strict=False):
            shape = "x".join(map(str, layer.shape)).removesuffix("x1x1")
            fields = map(re.escape, (layer.name, repr(layer.definition), shape))
            assert re.match(" +".join(fields), line)


class Recorder(dict[str, Any]):
    """Weights that remember which of them were read."""

    def __init__(self, weights: Weights) -> None:
        super().__init__(weights)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)


def parameters_and_costs(network: Sample) -> None:
    graph, weights = network.graph, Recorder(network.weights)
    infer(graph, weights, network.images)
    assert weights.read == {parameter.name for parameter in graph.parameters}
    trainable = [array.size for name, array in weights.items() if ".running_" not in name]
    assert graph.cost.parameters == sum(trainable)
    for layer in graph.layers:
        positions = {
            "Conv2d": np.prod(layer.shape[1:]),
            "EfficientChannelAttention": layer.shape[0],
        }.get(layer.kind, 1)
        matrices = [weights[p.name].size for p in layer.parameters if len(p.shape) > 1]
        assert layer.cost.multiply_adds == positions * sum(matrices)


def passes(network: Sample) -> None:
    for graph, weights in network.after_passes():
        network.assert_close(infer(graph, weights, network.images))


def openvino(network: Sample) -> None:
    for graph, weights in network.variants():
        engine = resrt.build(graph, weights, backend="openvino", precision="fp32", max_batch=3)
        network.assert_close(engine.infer(network.images))


def tensorrt_rtx(network: Sample) -> None:
    (status,) = (status for status in resrt.backends() if status.name == "tensorrt_rtx")
    if status.why_not:
        pytest.skip(status.why_not)
    for graph, weights in network.variants():
        for precision in ("fp16", "fp32"):
            engine = resrt.build(
                graph, weights, backend=status.name, precision=precision, max_batch=3
            )
        if status.why_build_only is None:
            network.assert_close(engine.infer(network.images))


def onnx_model(network: Sample) -> None:
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    from resrt.graphs import onnx_writer

    for graph, weights in network.variants():
        model = onnx_writer.write(graph, weights, batch=None, opset=17, metadata={})
        onnx.checker.check_model(model, full_check=True)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        network.assert_close(session.run(["logits"], {"images": network.images})[0])


def parameters_of_an_onnx_model(network: Sample) -> None:
    pytest.importorskip("onnx")
    from resrt.graphs import onnx_writer
    from resrt.weights.formats import onnx_match, onnx_model

    model = onnx_writer.write(network.graph, network.weights, batch=None, opset=17, metadata={})
    content = memoryview(model.SerializeToString())
    read = onnx_model.decode(content, lambda _: pytest.fail("the weights are in the model"))
    found = onnx_match.parameters(read, network.graph)
    assert found.keys() == network.weights.keys()
    for name, array in network.weights.items():
        np.testing.assert_array_equal(found[name], array)


def torch_module(network: Sample) -> None:
    torch = pytest.importorskip("torch")
    from resrt.graphs.torch_network import TorchNetwork

    for graph, weights in network.variants():
        module = TorchNetwork(graph).eval()
        module.load({name: torch.from_numpy(array) for name, array in weights.items()})
        with torch.inference_mode():
            network.assert_close(module(torch.from_numpy(network.images)).numpy())


WALKS: list[Callable[[Sample], None]] = [
    printing,
    parameters_and_costs,
    passes,
    openvino,
    tensorrt_rtx,
    onnx_model,
    parameters_of_an_onnx_model,
    torch_module,
]


@pytest.mark.parametrize("walk", WALKS, ids=lambda walk: walk.__name__)
@pytest.mark.parametrize("definition", _core.DEFINITIONS, ids=lambda one: one.__name__)
def test_every_walk_handles_every_definition(
    definition: type, walk: Callable[[Sample], None]
) -> None:
    network = example(definition)
    assert any(isinstance(layer.definition, definition) for layer in network.graph.layers)
    walk(network)


def test_grid_has_every_definition() -> None:
    """The networks with which the lowerings, the ONNX writer and the PyTorch module are tested."""
    graphs = [resrt.build_graph(config, input_size=32) for config in GRID + VARIANTS]
    assert {type(layer.definition) for graph in graphs for layer in graph.layers} == set(
        _core.DEFINITIONS
    ) - {_core.Quantize}  # which only a pass adds
