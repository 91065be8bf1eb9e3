"""A graph and its weights as an ONNX model (https://onnx.ai), one method per layer definition.

Each layer is written in the operators that say what its definition says, as the sources' own
exports have it: batch normalisations are not folded and means not moved past sums, which is the
business of whoever runs the model. Parameters and layers keep their names. Needs onnx.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from resrt import _core

INPUT, OUTPUT = "images", "logits"

# From 13 on ReduceSum takes its axes as an input and Softmax one axis; since then nothing that is
# written here has changed its meaning.
OLDEST_OPSET = 13

Weights: TypeAlias = Mapping[str, npt.NDArray[np.float32]]


def write(
    graph: _core.Graph,
    weights: Weights,
    *,
    batch: int | None,
    opset: int,
    metadata: Mapping[str, str],
) -> onnx.ModelProto:
    """Return the model: float32 images (batch, channels, height, width) -> logits (batch, classes).

    Args:
        graph: the network.
        weights: arrays that fit it.
        batch: the only batch size that it takes; None: any.
        opset: the version of ONNX's operators, at least OLDEST_OPSET.
        metadata: texts by name, kept as the model's metadata_props.
    """
    model = helper.make_model(
        _Writer(graph, weights, batch).graph(),
        opset_imports=[(opset_id := helper.make_opsetid("", opset))],
        ir_version=helper.find_min_ir_version_for([opset_id]),
        producer_name="resrt",
        producer_version=_core.__version__,
    )
    helper.set_model_props(model, dict(metadata))
    return model


class _Writer:
    """Writes layers one after another; a layer's output has its name, the last one's OUTPUT."""

    def __init__(self, graph: _core.Graph, weights: Weights, batch: int | None) -> None:
        self._graph = graph
        self._weights = weights
        self._batch = "batch" if batch is None else batch
        layers = graph.layers
        self._outputs = {layer.name: layer.name for layer in layers}
        self._outputs |= {layers[0].name: INPUT, layers[-1].name: OUTPUT}
        self._nodes: list[onnx.NodeProto] = []
        self._tensors: dict[str, onnx.TensorProto] = {}
        self._values: list[onnx.ValueInfoProto] = []

    def graph(self) -> onnx.GraphProto:
        for layer in self._graph.layers[1:]:
            inputs = [self._outputs[name] for name in layer.inputs]
            self._layer(layer, inputs, self._outputs[layer.name])
        *values, logits = self._values
        return helper.make_graph(
            self._nodes,
            self._graph.name,
            [self._value(INPUT, self._graph.input_shape)],
            [logits],
            list(self._tensors.values()),
            value_info=values,
        )

    def _layer(self, layer: _core.Layer, inputs: list[str], output: str) -> None:
        name, definition, x = layer.name, layer.definition, inputs[0]
        match definition:
            case _core.Conv2d():
                self._conv2d(name, definition, inputs, output)
            case _core.BatchNorm2d():
                self._batch_norm(name, x, output, definition.epsilon)
            case _core.Relu():
                self._node("Relu", [x], output)
            case _core.MaxPool2d():
                self._node("MaxPool", [x], output, **_window(definition))
            case _core.AvgPool2d():
                rounding = {
                    "ceil_mode": int(definition.ceil_mode),
                    "count_include_pad": int(definition.count_include_pad),
                }
                self._node("AveragePool", [x], output, **_window(definition), **rounding)
            case _core.GlobalAvgPool2d():
                self._node("GlobalAveragePool", [x], output)
            case _core.Add():
                self._node("Add", inputs, output)
            case _core.SplitAttention():
                self._split_attention(layer, definition, x, output)
            case _core.SqueezeExcite():
                gate = self._gate(name, x)
                self._weigh(name, x, gate, output)
            case _core.Linear():
                self._linear(name, x, output)
            case _core.Input():
                raise AssertionError("a graph has one input, its first layer")
        # The checker compares our shapes with those that it infers itself.
        shape = layer.shape[:1] if isinstance(definition, _core.Linear) else layer.shape
        self._values.append(self._value(output, shape))

    def _conv2d(self, name: str, conv: _core.Conv2d, inputs: list[str], output: str) -> None:
        window = _window(conv) | {"group": conv.groups}
        y = f"{name}/conv" if conv.residual or conv.relu else output
        self._conv(name, inputs[0], y, **window)
        if conv.residual:
            total = f"{name}/sum" if conv.relu else output
            self._node("Add", [y, inputs[1]], total)
            y = total
        if conv.relu:
            self._node("Relu", [y], output)

    def _split_attention(
        self, layer: _core.Layer, block: _core.SplitAttention, x: str, output: str
    ) -> None:
        name = layer.name
        _, height, width = layer.shape
        if block.radix == 1:
            gate = self._gate(name, x, block)
            self._weigh(name, x, gate, output)
            return
        splits = self._reshape(x, f"{name}/splits", [block.radix, block.channels, height, width])
        self._sum_of_splits(splits, f"{name}/sum")
        gate = self._gate(name, f"{name}/sum", block)
        per_group = block.channels // block.cardinality
        # The gate's channels are by cardinality, then by radix; those of the splits by radix first.
        logits = self._reshape(gate, f"{name}/gates", [block.cardinality, block.radix, per_group])
        self._node("Transpose", [logits], f"{name}/by_radix", perm=[0, 2, 1, 3])
        self._node("Softmax", [f"{name}/by_radix"], f"{name}/softmax", axis=1)
        attention = self._reshape(
            f"{name}/softmax", f"{name}/attention", [block.radix, block.channels, 1, 1]
        )
        self._node("Mul", [splits, attention], f"{name}/weighed")
        self._sum_of_splits(f"{name}/weighed", output)

    def _sum_of_splits(self, x: str, output: str) -> None:
        self._node("ReduceSum", [x, self._integers("axis_of_splits", [1])], output, keepdims=0)

    def _gate(self, name: str, x: str, block: _core.SplitAttention | None = None) -> str:
        """Means, fc1, normalisation, ReLU, fc2: from (C, H, W) to a number for each channel.

        In groups and with a normalisation as a block of split attention says; None: with neither.
        """
        groups = 1 if block is None else block.cardinality
        self._node("GlobalAveragePool", [x], f"{name}/means")
        hidden = f"{name}/fc1"
        self._conv(f"{name}.fc1", f"{name}/means", hidden, group=groups)
        if block is not None and block.batch_norm:
            self._batch_norm(f"{name}.bn1", hidden, f"{name}/bn1", block.epsilon)
            hidden = f"{name}/bn1"
        self._node("Relu", [hidden], f"{name}/relu")
        self._conv(f"{name}.fc2", f"{name}/relu", f"{name}/fc2", group=groups)
        return f"{name}/fc2"

    def _weigh(self, name: str, x: str, gate: str, output: str) -> None:
        self._node("Sigmoid", [gate], f"{name}/attention")
        self._node("Mul", [x, f"{name}/attention"], output)

    def _linear(self, name: str, x: str, output: str) -> None:
        self._node("Flatten", [x], f"{name}/vector")
        inputs = [f"{name}/vector", *self._parameters(name, "weight", "bias")]
        self._node("Gemm", inputs, output, transB=1)

    def _conv(self, name: str, x: str, output: str, **attributes: object) -> None:
        has_bias = f"{name}.bias" in self._weights
        parts = ("weight", "bias") if has_bias else ("weight",)
        self._node("Conv", [x, *self._parameters(name, *parts)], output, **attributes)

    def _batch_norm(self, name: str, x: str, output: str, epsilon: float) -> None:
        parts = self._parameters(name, "weight", "bias", "running_mean", "running_var")
        self._node("BatchNormalization", [x, *parts], output, epsilon=epsilon)

    def _reshape(self, x: str, output: str, shape: list[int]) -> str:
        """To that shape of one image; the batch's axis stays as it is."""
        name = f"shape_{'x'.join(map(str, shape))}"
        self._node("Reshape", [x, self._integers(name, [0, *shape])], output)
        return output

    def _parameters(self, layer: str, *parts: str) -> list[str]:
        names = [f"{layer}.{part}" for part in parts]
        for name in names:
            array = np.ascontiguousarray(self._weights[name])
            self._tensors[name] = numpy_helper.from_array(array, name)
        return names

    def _integers(self, name: str, values: Sequence[int]) -> str:
        self._tensors[name] = numpy_helper.from_array(np.array(values, np.int64), name)
        return name

    def _value(self, name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [self._batch, *shape])

    def _node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        self._nodes.append(helper.make_node(op, inputs, [output], output, **attributes))


def _window(definition: _core.Conv2d | _core.MaxPool2d | _core.AvgPool2d) -> dict[str, object]:
    return {
        "kernel_shape": [definition.kernel] * 2,
        "strides": [definition.stride] * 2,
        "pads": [definition.padding] * 4,
    }
