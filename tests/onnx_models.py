"""ONNX models of our graphs, as exporters write them: for tests of the reader."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

import resrt

Arrays = dict[str, np.ndarray]


@dataclass
class Exporter:
    """Writes a graph as an ONNX model.

    `folds`: batch normalisations go into their convolutions. `transposes`: the head is a MatMul
    and an Add. `constants`: weights are Constant nodes, no initialisers.
    """

    graph: resrt.Graph
    arrays: Arrays
    folds: bool = False
    transposes: bool = False
    constants: bool = False
    dtype: int = onnx.TensorProto.FLOAT
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    tensors: list[onnx.TensorProto] = field(default_factory=list)

    def model(self) -> onnx.ModelProto:
        layers = self.graph.layers
        for layer in layers:
            self._layer(layer)
        shape = [1, *self.graph.input_shape]
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info(layers[0].name, self.dtype, shape)],
            [helper.make_tensor_value_info(layers[-1].name, self.dtype, [1, self.graph.classes])],
            self.tensors,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])

    def _layer(self, layer: resrt.Layer) -> None:
        name, definition = layer.name, layer.definition
        match layer.kind:
            case "Conv2d":
                window = self._window(definition) | {"group": definition.groups}
                self._conv(name, layer.inputs[0], name, window, self._norm_of(layer))
            case "BatchNorm2d":
                if self.folds:
                    self._node("Identity", layer.inputs, name)
                else:
                    self._batch_norm(name, layer.inputs[0], name, definition.epsilon)
            case "Relu":
                self._node("Relu", layer.inputs, name)
            case "MaxPool2d":
                self._node("MaxPool", layer.inputs, name, **self._window(definition))
            case "AvgPool2d":
                counts = int(definition.count_include_pad)
                window = self._window(definition)
                self._node("AveragePool", layer.inputs, name, count_include_pad=counts, **window)
            case "GlobalAvgPool2d":
                self._node("GlobalAveragePool", layer.inputs, f"{name}.pooled")
                self._node("Flatten", [f"{name}.pooled"], name)
            case "Add":
                self._node("Add", layer.inputs[::-1], name)
            case "SplitAttention":
                self._split_attention(layer)
            case "SqueezeExcite":
                self._gate(layer, layer.inputs[0], 1, norm=False)
                self._node("Sigmoid", [f"{name}.gate"], f"{name}.sigmoid")
                self._node("Mul", [layer.inputs[0], f"{name}.sigmoid"], name)
            case "Linear":
                self._linear(layer)

    def _split_attention(self, layer: resrt.Layer) -> None:
        name, block, (source,) = layer.name, layer.definition, layer.inputs
        _, height, width = layer.shape
        if block.radix == 1:
            self._gate(layer, source, block.cardinality, norm=True)
            self._node("Sigmoid", [f"{name}.gate"], f"{name}.sigmoid")
            self._node("Mul", [source, f"{name}.sigmoid"], name)
            return
        splits = self._reshape(source, [1, block.radix, block.channels, height, width])
        axis = self._ints(f"{name}.axis", [1])
        self._node("ReduceSum", [splits, axis], f"{name}.sum", keepdims=0)
        self._gate(layer, f"{name}.sum", block.cardinality, norm=True)
        per_group = block.channels // block.cardinality
        logits = self._reshape(f"{name}.gate", [1, block.cardinality, block.radix, per_group])
        self._node("Transpose", [logits], f"{name}.logits", perm=[0, 2, 1, 3])
        self._node("Softmax", [f"{name}.logits"], f"{name}.softmax", axis=1)
        weights = self._reshape(f"{name}.softmax", [1, block.radix, block.channels, 1, 1])
        self._node("Mul", [splits, weights], f"{name}.weighted")
        self._node("ReduceSum", [f"{name}.weighted", axis], name, keepdims=0)

    def _gate(self, layer: resrt.Layer, source: str, groups: int, *, norm: bool) -> None:
        """Means, fc1, batch normalisation, ReLU and fc2."""
        name = layer.name
        self._node("ReduceMean", [source], f"{name}.mean", axes=[2, 3], keepdims=1)
        scale = (f"{name}.bn1", 1e-5) if norm else None
        output = f"{name}.hidden"
        self._conv(f"{name}.fc1", f"{name}.mean", output, {"group": groups}, scale)
        if norm and not self.folds:
            self._batch_norm(f"{name}.bn1", output, f"{name}.normal", 1e-5)
            output = f"{name}.normal"
        self._node("Relu", [output], f"{name}.relu")
        self._conv(f"{name}.fc2", f"{name}.relu", f"{name}.gate", {"group": groups}, None)

    def _linear(self, layer: resrt.Layer) -> None:
        weight, bias = (self.arrays[f"{layer.name}.{part}"] for part in ("weight", "bias"))
        offset = self._tensor(f"{layer.name}.bias", bias)
        if self.transposes:
            matrix = self._tensor(f"{layer.name}.matrix", weight.T)
            self._node("MatMul", [*layer.inputs, matrix], f"{layer.name}.product")
            self._node("Add", [offset, f"{layer.name}.product"], layer.name)
        else:
            matrix = self._tensor(f"{layer.name}.weight", weight)
            self._node("Gemm", [*layer.inputs, matrix, offset], layer.name, transB=1)

    def _conv(
        self,
        name: str,
        source: str,
        output: str,
        attributes: dict[str, object],
        norm: tuple[str, float] | None,
    ) -> None:
        weight, bias = self.arrays[f"{name}.weight"], self.arrays.get(f"{name}.bias")
        if self.folds and norm is not None:
            weight, bias = folded(self.arrays, name, *norm)
        inputs = [source, self._tensor(f"{name}.weight", weight)]
        if bias is not None:
            inputs.append(self._tensor(f"{name}.bias", bias))
        self._node("Conv", inputs, output, **attributes)

    def _batch_norm(self, name: str, source: str, output: str, epsilon: float) -> None:
        parts = ("weight", "bias", "running_mean", "running_var")
        arrays = [self._tensor(f"{name}.{part}", self.arrays[f"{name}.{part}"]) for part in parts]
        self._node("BatchNormalization", [source, *arrays], output, epsilon=epsilon)

    def _norm_of(self, layer: resrt.Layer) -> tuple[str, float] | None:
        readers = [other for other in self.graph.layers if layer.name in other.inputs]
        return (readers[0].name, readers[0].definition.epsilon)

    def _window(self, definition: resrt.Conv2d) -> dict[str, object]:
        return {
            "kernel_shape": [definition.kernel] * 2,
            "strides": [definition.stride] * 2,
            "pads": [definition.padding] * 4,
        }

    def _reshape(self, source: str, shape: list[int]) -> str:
        output = f"{source}/{'x'.join(map(str, shape))}"
        self._node("Reshape", [source, self._ints(f"{output}.shape", shape)], output)
        return output

    def _ints(self, name: str, values: list[int]) -> str:
        self.tensors.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def _tensor(self, name: str, array: np.ndarray) -> str:
        tensor = helper.make_tensor(name, self.dtype, array.shape, array.ravel())
        if self.dtype == onnx.TensorProto.FLOAT:
            tensor = numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name)
        if self.constants:
            self._node("Constant", [], name, value=tensor)
        else:
            self.tensors.append(tensor)
        return name

    def _node(self, op: str, inputs: Iterable[str], output: str, **attributes: object) -> None:
        node = helper.make_node(op, list(inputs), [output], f"{op} of {output}", **attributes)
        self.nodes.append(node)


def folded(arrays: Arrays, conv: str, norm: str, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """A convolution's weight and bias with its normalisation, in float64 as the core's own pass."""
    weight, bias, mean, variance = (
        arrays[f"{norm}.{part}"].astype(np.float64)
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = weight / np.sqrt(variance + float(np.float32(epsilon)))
    own_bias = arrays.get(f"{conv}.bias", np.zeros(len(scale), np.float32)).astype(np.float64)
    kernel = scale[:, None, None, None] * arrays[f"{conv}.weight"]
    return kernel.astype(np.float32), (bias + scale * (own_bias - mean)).astype(np.float32)


def scramble(model: onnx.ModelProto, seed: int = 0) -> onnx.ModelProto:
    """The same model under names that mean nothing, its nodes in another order that works."""
    rng = np.random.default_rng(seed)
    names: dict[str, str] = {}

    def new(name: str) -> str:
        return names.setdefault(name, f"{rng.integers(1 << 40)}") if name else ""

    graph = model.graph
    for named in (*graph.initializer, *graph.input, *graph.output):
        named.name = new(named.name)
    for node in graph.node:
        node.input[:], node.output[:] = map(new, node.input), map(new, node.output)
        node.name = new(node.name)
    known = {named.name for named in (*graph.initializer, *graph.input)} | {""}
    waiting = list(graph.node)
    ordered: list[onnx.NodeProto] = []
    while waiting:
        ready = [node for node in waiting if known.issuperset(node.input)]
        node = ready[rng.integers(len(ready))]
        waiting = [other for other in waiting if other is not node]
        known.update(node.output)
        ordered.append(node)
    scrambled = onnx.ModelProto()
    scrambled.CopyFrom(model)
    del scrambled.graph.node[:]
    scrambled.graph.node.extend(ordered)
    initialisers = list(graph.initializer)
    del scrambled.graph.initializer[:]
    scrambled.graph.initializer.extend(initialisers[i] for i in rng.permutation(len(initialisers)))
    return scrambled
