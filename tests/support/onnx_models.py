"""ONNX models of graphs as other exporters write them, for tests of the reader."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

import resrt
from resrt import _core
from resrt.graphs import onnx_writer

Arrays = dict[str, np.ndarray]


def export(
    graph: resrt.Graph,
    arrays: Arrays,
    *,
    folds: bool = False,
    transposes: bool = False,
    constants: bool = False,
    dtype: int = onnx.TensorProto.FLOAT,
) -> onnx.ModelProto:
    """Return the model that resrt exports, changed as other exporters would write it.

    `folds` folds batch normalisations into their convolutions, `transposes` writes the head as a
    MatMul and an Add, `constants` writes the weights as Constant nodes instead of initialisers, and
    `dtype` is the type of the weights.
    """
    if folds:
        graph, arrays = _core.fold_batch_norm(graph, arrays)
    model = onnx_writer.write(graph, arrays, batch=1, opset=17, metadata={})
    if transposes:
        _transpose_head(model.graph)
    if dtype != onnx.TensorProto.FLOAT:
        _convert(model.graph, dtype)
    if constants:
        _make_constants(model.graph)
    return model


def _transpose_head(graph: onnx.GraphProto) -> None:
    (gemm,) = (node for node in graph.node if node.op_type == "Gemm")
    source, weight, bias = gemm.input
    (tensor,) = (tensor for tensor in graph.initializer if tensor.name == weight)
    matrix = np.ascontiguousarray(numpy_helper.to_array(tensor).T)
    tensor.CopyFrom(numpy_helper.from_array(matrix, "matrix"))
    product = helper.make_node("MatMul", [source, "matrix"], ["product"], "product")
    total = helper.make_node("Add", [bias, "product"], list(gemm.output), gemm.name)
    graph.node.remove(gemm)
    graph.node.extend([product, total])


def _convert(graph: onnx.GraphProto, dtype: int) -> None:
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            array = numpy_helper.to_array(tensor)
            converted = helper.make_tensor(tensor.name, dtype, array.shape, array.ravel())
            tensor.CopyFrom(converted)


def _make_constants(graph: onnx.GraphProto) -> None:
    nodes = [
        helper.make_node("Constant", [], [tensor.name], value=tensor)
        for tensor in graph.initializer
    ]
    nodes += graph.node
    graph.ClearField("initializer")
    graph.ClearField("node")
    graph.node.extend(nodes)


def folded(arrays: Arrays, conv: str, norm: str, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """Fold a normalisation into a convolution's weight and bias, in float64 as the core does."""
    weight, bias, mean, variance = (
        arrays[f"{norm}.{part}"].astype(np.float64)
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = weight / np.sqrt(variance + float(np.float32(epsilon)))
    own_bias = arrays.get(f"{conv}.bias", np.zeros(len(scale), np.float32)).astype(np.float64)
    kernel = scale[:, None, None, None] * arrays[f"{conv}.weight"]
    return kernel.astype(np.float32), (bias + scale * (own_bias - mean)).astype(np.float32)


def scramble(model: onnx.ModelProto, seed: int = 0) -> onnx.ModelProto:
    """Return the same model with random names and its nodes in another valid order.

    The inputs of sums are swapped.
    """
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
        if node.op_type == "Add":
            node.input[:] = node.input[::-1]
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
