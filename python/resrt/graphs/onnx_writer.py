"""Writes a graph and its weights as an ONNX model (https://onnx.ai). Requires onnx.

Layers are written as they are defined: batch normalisations are not folded and means are not moved
before sums, because the runtime of the model does such optimisations.
Parameters and layers keep their names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from resrt import _core
from resrt.graphs.definitions import assert_never, output_shapes

# OUTPUT is the only output unless others were selected.
INPUT, OUTPUT = "images", "logits"

# Opset 13 made the axes of ReduceSum an input and gave Softmax a single axis. Later opsets have not
# changed the operators that are used here.
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
        graph: the network. If other outputs were selected, the model has those, under their names,
            and only the layers that they need.
        weights: arrays that fit the network.
        batch: the fixed batch size, or None for any.
        opset: the version of the ONNX operators, at least OLDEST_OPSET.
        metadata: texts by name, for the metadata_props of the model.
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
    """Writes layer after layer. A layer's output has its name, or that of a network's output."""

    def __init__(self, graph: _core.Graph, weights: Weights, batch: int | None) -> None:
        self._graph = graph
        self._weights = weights
        self._batch = "batch" if batch is None else batch
        self._linear_layers = {
            layer.name for layer in graph.layers if isinstance(layer.definition, _core.Linear)
        }
        layers = graph.layers
        reserved = {name: f"{name}/output" for name in (INPUT, *dict(graph.outputs))}
        self._outputs = {layer.name: reserved.get(layer.name, layer.name) for layer in layers}
        self._outputs[layers[0].name] = INPUT
        self._shapes = output_shapes(graph)
        for output, layer_name in graph.outputs:
            value = self._outputs[layer_name]
            if value not in self._shapes and not self._is_column(layer_name):
                self._outputs[layer_name] = output
        self._nodes: list[onnx.NodeProto] = []
        self._tensors: dict[str, onnx.TensorProto] = {}
        self._values: list[onnx.ValueInfoProto] = []

    def graph(self) -> onnx.GraphProto:
        for layer in self._needed_layers():
            inputs = [self._outputs[name] for name in layer.inputs]
            self._layer(layer, inputs, self._outputs[layer.name])
        for output, layer_name in self._graph.outputs:
            if (value := self._outputs[layer_name]) != output:
                operator = "Flatten" if self._is_column(layer_name) else "Identity"
                self._node(operator, [value], output)
        return helper.make_graph(
            self._nodes,
            self._graph.name,
            [self._value(INPUT, self._graph.input_shape)],
            [self._value(name, shape) for name, shape in self._shapes.items()],
            list(self._tensors.values()),
            value_info=[value for value in self._values if value.name not in self._shapes],
        )

    def _needed_layers(self) -> list[_core.Layer]:
        """Return the layers that the outputs need, without the input."""
        needed = {layer for _, layer in self._graph.outputs}
        found = []
        for layer in reversed(self._graph.layers[1:]):
            if layer.name in needed:
                needed.update(layer.inputs)
                found.append(layer)
        return found[::-1]

    def _is_column(self, layer: str) -> bool:
        """Return whether a layer is written as (N, C, 1, 1), but is a vector."""
        return self._graph.is_vector(layer) and layer not in self._linear_layers

    def _layer(self, layer: _core.Layer, inputs: list[str], output: str) -> None:
        name, definition, x = layer.name, layer.definition, inputs[0]
        match definition:
            case _core.Conv2d():
                self._conv2d(name, definition, inputs, output)
            case _core.BatchNorm2d():
                self._batch_norm(name, x, output, definition.epsilon)
            case _core.Relu():
                self._node("Relu", [x], output)
            case _core.Silu():
                self._silu(x, output)
            case _core.MaxPool2d():
                self._node("MaxPool", [x], output, **_window(definition))
            case _core.AvgPool2d():
                rounding = {
                    "ceil_mode": int(definition.ceil_mode),
                    "count_include_pad": int(definition.count_include_pad),
                }
                self._node("AveragePool", [x], output, **_window(definition), **rounding)
            case _core.BlurPool2d():
                self._blur(layer, definition.stride, x, output)
            case _core.PadChannels():
                pads = [0, definition.before, 0, 0, 0, definition.after, 0, 0]
                self._node("Pad", [x, self._integers(f"{name}/pads", pads)], output)
            case _core.GlobalAvgPool2d():
                self._node("GlobalAveragePool", [x], output)
            case _core.Add():
                self._node("Add", inputs, output)
            case _core.SplitAttention():
                self._split_attention(layer, definition, x, output)
            case _core.SqueezeExcite():
                self._weigh(name, x, self._gate(name, x, silu=definition.silu), output)
            case _core.EfficientChannelAttention():
                self._efficient_attention(layer, definition.kernel, x, output)
            case _core.Quantize():
                self._quantize(name, definition, x, output)
            case _core.Linear():
                self._linear(name, x, output)
            case _core.Input():
                raise AssertionError("only the first layer of a graph is an input")
            case _:
                assert_never(definition)
        # The checker compares these shapes with the ones that it infers.
        shape = layer.shape[:1] if isinstance(definition, _core.Linear) else layer.shape
        self._values.append(self._value(output, shape))

    def _conv2d(self, name: str, conv: _core.Conv2d, inputs: list[str], output: str) -> None:
        y = f"{name}/conv" if conv.residual or conv.relu else output
        bits = conv.weight_bits
        self._conv(name, inputs[0], y, bits, **_window(conv), group=conv.groups)
        if conv.residual:
            y = self._node("Add", [y, inputs[1]], f"{name}/sum" if conv.relu else output)
        if conv.relu:
            self._node("Relu", [y], output)

    def _silu(self, x: str, output: str) -> str:
        return self._node("Mul", [x, self._node("Sigmoid", [x], f"{output}/sigmoid")], output)

    def _blur(self, layer: _core.Layer, stride: int, x: str, output: str) -> None:
        name, channels = layer.name, layer.shape[0]
        pads = self._integers("border_of_1_pixel", [0, 0, 1, 1, 0, 0, 1, 1])
        y = self._node("Pad", [x, pads], f"{name}/padded", mode="reflect")
        line = np.array([1, 2, 1], np.float32) / 4
        kernel = np.tile(np.outer(line, line), (channels, 1, 1, 1))
        weight = self._constant(f"blur_of_{channels}_channels", kernel)
        window = {"kernel_shape": [3, 3], "strides": [stride] * 2}
        self._node("Conv", [y, weight], output, group=channels, **window)

    def _efficient_attention(self, layer: _core.Layer, kernel: int, x: str, output: str) -> None:
        name, channels = layer.name, layer.shape[0]
        y = self._node("GlobalAveragePool", [x], f"{name}/means")
        y = self._reshape(y, f"{name}/row", [1, channels])
        y = self._conv(f"{name}.conv", y, f"{name}/conv", pads=[kernel // 2] * 2)
        self._weigh(name, x, self._reshape(y, f"{name}/gate", [channels, 1, 1]), output)

    def _split_attention(
        self, layer: _core.Layer, block: _core.SplitAttention, x: str, output: str
    ) -> None:
        name = layer.name
        _, height, width = layer.shape
        if block.radix == 1:
            self._weigh(name, x, self._gate(name, x, block), output)
            return
        splits = self._reshape(x, f"{name}/splits", [block.radix, block.channels, height, width])
        gate = self._gate(name, self._sum_of_splits(splits, f"{name}/sum"), block)
        # The channels of the gate are ordered by group, then split; those of `x` by split first.
        per_group = block.channels // block.cardinality
        y = self._reshape(gate, f"{name}/gates", [block.cardinality, block.radix, per_group])
        y = self._node("Transpose", [y], f"{name}/by_radix", perm=[0, 2, 1, 3])
        y = self._node("Softmax", [y], f"{name}/softmax", axis=1)
        y = self._reshape(y, f"{name}/attention", [block.radix, block.channels, 1, 1])
        y = self._node("Mul", [splits, y], f"{name}/weighed")
        self._sum_of_splits(y, output)

    def _sum_of_splits(self, x: str, output: str) -> str:
        axis = self._integers("axis_of_splits", [1])
        return self._node("ReduceSum", [x, axis], output, keepdims=0)

    def _gate(
        self, name: str, x: str, block: _core.SplitAttention | None = None, *, silu: bool = False
    ) -> str:
        """Write means, fc1, normalisation, activation and fc2: from (C, H, W) to (C, 1, 1).

        Split attention has groups and may have a normalisation; squeeze-and-excitation has neither.
        """
        groups = 1 if block is None else block.cardinality
        y = self._node("GlobalAveragePool", [x], f"{name}/means")
        y = self._conv(f"{name}.fc1", y, f"{name}/fc1", group=groups)
        if block is not None and block.batch_norm:
            y = self._batch_norm(f"{name}.bn1", y, f"{name}/bn1", block.epsilon)
        y = self._silu(y, f"{name}/silu") if silu else self._node("Relu", [y], f"{name}/relu")
        return self._conv(f"{name}.fc2", y, f"{name}/fc2", group=groups)

    def _weigh(self, name: str, x: str, gate: str, output: str) -> None:
        attention = self._node("Sigmoid", [gate], f"{name}/attention")
        self._node("Mul", [x, attention], output)

    def _linear(self, name: str, x: str, output: str) -> None:
        vector = self._node("Flatten", [x], f"{name}/vector")
        self._node("Gemm", [vector, *self._parameters(name, "weight", "bias")], output, transB=1)

    def _conv(
        self, name: str, x: str, output: str, weight_bits: int = 0, **attributes: object
    ) -> str:
        if weight_bits:
            weight = self._integer_weight(f"{name}.weight", weight_bits)
        else:
            (weight,) = self._parameters(name, "weight")
        bias = self._parameters(name, "bias") if f"{name}.bias" in self._weights else []
        return self._node("Conv", [x, weight, *bias], output, **attributes)

    def _quantize(self, name: str, quantize: _core.Quantize, x: str, output: str) -> None:
        scale = self._constant(f"{name}/scale", np.array(quantize.scale, np.float32))
        kind = np.int8 if quantize.is_signed else np.uint8
        zero = self._constant(f"{name}/zero", np.array(0, kind))
        y = self._node("QuantizeLinear", [x, scale, zero], f"{name}/integers")
        self._node("DequantizeLinear", [y, scale, zero], output)

    def _integer_weight(self, name: str, bits: int) -> str:
        integers, scales = _core.quantise_weight(self._weights[name], bits)
        parts = [
            self._constant(f"{name}/integers", integers),
            self._constant(f"{name}/scales", scales),
            self._constant(f"{name}/zeros", np.zeros(len(scales), np.int8)),
        ]
        return self._node("DequantizeLinear", parts, name, axis=0)

    def _batch_norm(self, name: str, x: str, output: str, epsilon: float) -> str:
        parts = self._parameters(name, "weight", "bias", "running_mean", "running_var")
        return self._node("BatchNormalization", [x, *parts], output, epsilon=epsilon)

    def _reshape(self, x: str, output: str, shape: list[int]) -> str:
        """Write a reshape of each image to `shape`; the batch axis stays."""
        sizes = self._integers(f"shape_{'x'.join(map(str, shape))}", [0, *shape])
        return self._node("Reshape", [x, sizes], output)

    def _parameters(self, layer: str, *parts: str) -> list[str]:
        names = [f"{layer}.{part}" for part in parts]
        for name in names:
            array = np.ascontiguousarray(self._weights[name])
            self._tensors[name] = numpy_helper.from_array(array, name)
        return names

    def _integers(self, name: str, values: Sequence[int]) -> str:
        return self._constant(name, np.array(values, np.int64))

    def _constant(self, name: str, array: npt.NDArray[np.generic]) -> str:
        self._tensors[name] = numpy_helper.from_array(array, name)
        return name

    def _value(self, name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [self._batch, *shape])

    def _node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(op, inputs, [output], output, **attributes))
        return output


def _window(definition: _core.Conv2d | _core.MaxPool2d | _core.AvgPool2d) -> dict[str, object]:
    return {
        "kernel_shape": [definition.kernel] * 2,
        "strides": [definition.stride] * 2,
        "pads": [definition.padding] * 4,
    }
