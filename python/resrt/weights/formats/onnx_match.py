"""Finds the parameters of a graph by following an ONNX model from its output to its input.

Each layer of the graph is compared with the nodes that should compute it, without using names: by
operator, shape of the weight, stride, groups, padding and inputs. Changes that exporters make are
undone: a batch normalisation that was folded into its convolution becomes one that only adds the
convolution's bias.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from resrt import _core
from resrt.errors import WeightsError
from resrt.graphs.definitions import assert_never
from resrt.weights.formats.checkpoint import Array
from resrt.weights.formats.onnx_model import Model, Node

# Operators that keep the numbers of one image's activations.
_PASSED = ("Identity", "Cast", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze")

# Operators that bound the arithmetic of a split attention or a squeeze-and-excitation. Between them
# are means, shapes, softmax, products and sums, which every exporter writes in its own way.
_LANDMARKS = ("Conv", "BatchNormalization", "Relu", "MaxPool", "Gemm", "MatMul")
_MEANS = ("GlobalAveragePool", "ReduceMean", "AveragePool")

# ONNX's default for the attribute `epsilon` of BatchNormalization.
_DEFAULT_EPSILON = float(np.float32(1e-5))


def parameters(model: Model, graph: _core.Graph, *, origin: str = "it") -> dict[str, Array]:
    """Return the arrays of a graph's parameters, under the graph's names.

    `origin` is what an error calls the model. If the model is of another network, raises
    WeightsError with the first layer, starting from the output, that has no counterpart.
    """
    matcher = _Matcher(model, graph)
    try:
        return matcher.match()
    except _Mismatch as mismatch:
        raise WeightsError(
            f"{origin} matches {graph.name} neither by its names nor by its graph: {mismatch}. "
            "Choose the network and the number of classes that it was exported with"
        ) from None


def trained(model: Model) -> tuple[int | None, int | None]:
    """Return the numbers of classes and input channels of a model, None if they are not found."""
    producers = {output: node for node in model.nodes for output in node.outputs}
    classes: int | None = None
    for tensor in model.outputs:
        node = producers.get(tensor)
        while node is not None and node.op in (*_PASSED, "Softmax", "LogSoftmax") and node.inputs:
            node = producers.get(node.inputs[0])
        if node is None or node.op not in ("Gemm", "Add", "MatMul"):
            continue
        constants = [model.constants[name] for name in node.inputs if name in model.constants]
        biases = [array.size for array in constants if array.ndim == 1]
        classes = biases[0] if len(biases) == 1 else classes
    first = next((node for node in model.nodes if node.op == "Conv" and len(node.inputs) > 1), None)
    weight = None if first is None else model.constants.get(first.inputs[1])
    if first is None or weight is None or weight.ndim != 4:
        return classes, None
    return classes, weight.shape[1] * first.number("group", 1)


class _Mismatch(Exception):
    """A layer and a node do not correspond. The message says why."""


@dataclass(frozen=True)
class _Step:
    """The counterpart of a layer in the model: its parameters and the tensors that it reads."""

    arrays: Mapping[str, Array]
    inputs: tuple[str, ...]


class _Matcher:
    def __init__(self, model: Model, graph: _core.Graph) -> None:
        self._constants = model.constants
        self._initialisers = model.initialisers
        self._outputs = model.outputs
        self._producers = {
            output: node
            for original in model.nodes
            for node in _unfused(original)
            for output in node.outputs
        }
        layers = graph.layers
        self._layers = {layer.name: layer for layer in layers}
        self._last = layers[-1]

    def match(self) -> dict[str, Array]:
        arrays: dict[str, Array] = {}
        counterparts = {self._last.name: self._logits()}
        # A layer's readers come after it, so in reverse order the layer's tensor is always known.
        for layer in reversed(self._layers.values()):
            step = self._step(layer, counterparts[layer.name])
            arrays.update(step.arrays)
            for name, read in zip(layer.inputs, self._in_order(layer, step), strict=True):
                tensor = self._source(read)
                if counterparts.setdefault(name, tensor) != tensor:
                    other = self._describe(counterparts[name])
                    raise self._mismatch(self._layers[name], tensor, f"and elsewhere {other}")
        return arrays

    def _logits(self) -> str:
        """Return the model's output; of several, the one that most of the last layers match."""
        candidates = []
        for output in self._outputs:
            tensor = self._source(output)
            node = self._producers.get(tensor)
            if node is not None and node.op in ("Softmax", "LogSoftmax") and node.inputs:
                tensor = self._source(node.inputs[0])
            candidates.append(tensor)
        if not candidates:
            raise _Mismatch("it has no output")
        return max(candidates, key=lambda tensor: self._agreement(self._last.name, tensor))

    def _in_order(self, layer: _core.Layer, step: _Step) -> tuple[str, ...]:
        """Return the tensors that a layer reads, in the order of the layer's inputs.

        For a sum this is the order in which more layers of the main branch and the shortcut agree.
        """
        if not isinstance(layer.definition, _core.Add):
            return step.inputs

        def agreement(tensors: tuple[str, ...]) -> int:
            pairs = zip(layer.inputs, tensors, strict=True)
            return sum(self._agreement(name, tensor) for name, tensor in pairs)

        return max(step.inputs, step.inputs[::-1], key=agreement)

    def _agreement(self, name: str, tensor: str) -> int:
        """Return how many layers in a row agree with the model, back to the next sum."""
        for count in range(len(self._layers)):
            layer = self._layers[name]
            try:
                step = self._step(layer, self._source(tensor))
            except _Mismatch:
                return count
            if len(step.inputs) != 1:
                return count + 1
            name, tensor = layer.inputs[0], step.inputs[0]
        return len(self._layers)

    def _step(self, layer: _core.Layer, tensor: str) -> _Step:
        definition = layer.definition
        match definition:
            case _core.Input():
                if tensor in self._producers or tensor in self._initialisers:
                    raise self._mismatch(layer, tensor)
                return _Step({}, ())
            case _core.Conv2d():
                return self._conv(layer, definition, tensor)
            case _core.BatchNorm2d():
                return self._batch_norm(layer, layer.name, definition.epsilon, tensor)
            case _core.Relu():
                return _Step({}, self._node(layer, tensor, "Relu").inputs[:1])
            case _core.Silu():
                return _Step({}, (self._silu(layer, tensor),))
            case _core.BlurPool2d():
                return self._blur(layer, definition.stride, tensor)
            case _core.PadChannels():
                return _Step({}, self._node(layer, tensor, "Pad").inputs[:1])
            case _core.MaxPool2d() | _core.AvgPool2d():
                return self._pool(layer, definition, tensor)
            case _core.GlobalAvgPool2d():
                return _Step({}, self._node(layer, tensor, *_MEANS).inputs[:1])
            case _core.Add():
                node = self._node(layer, tensor, "Add", "Sum")
                if len(node.inputs) != 2 or any(self._is_constant(name) for name in node.inputs):
                    raise self._mismatch(layer, tensor)
                return _Step({}, node.inputs)
            case _core.SplitAttention():
                return self._split_attention(layer, definition, tensor)
            case _core.SqueezeExcite():
                return self._squeeze_excite(layer, definition, tensor)
            case _core.EfficientChannelAttention():
                name = f"{layer.name}.conv.weight"
                source, gate = self._gated(layer, tensor)
                node, weight = self._convolution(layer, name, gate)
                self._check_mean(layer, node, source)
                return _Step({name: weight}, (source,))
            case _core.Quantize():
                integers = self._node(layer, tensor, "DequantizeLinear").inputs[0]
                return _Step({}, self._node(layer, integers, "QuantizeLinear").inputs[:1])
            case _core.Linear():
                return self._linear(layer, definition, tensor)
            case _:
                return assert_never(definition)

    def _conv(self, layer: _core.Layer, conv: _core.Conv2d, tensor: str) -> _Step:
        name = f"{layer.name}.weight"
        node, weight = self._convolution(layer, name, tensor, conv.groups)
        if not _has_window(node, conv.kernel, conv.stride, conv.padding):
            raise self._mismatch(layer, tensor)
        arrays = {name: weight}
        if conv.bias:
            arrays[f"{layer.name}.bias"] = self._bias(layer, node, conv.out_channels)
        return _Step(arrays, node.inputs[:1])

    def _batch_norm(
        self, layer: _core.Layer, name: str, epsilon: float, tensor: str, *, has_bias: bool = False
    ) -> _Step:
        """Match a batch normalisation, or a convolution into which it was folded.

        `has_bias` says whether the graph's convolution has a bias of its own.
        """
        node = self._node(layer, tensor, "BatchNormalization", "Conv")
        channels = _shape(layer, f"{name}.weight")[0]
        if node.op == "Conv":
            return _Step(
                _identity_norm(name, self._bias(layer, node, channels), epsilon), (tensor,)
            )
        arrays = [self._constant(layer, source) for source in node.inputs[1:5]]
        if [array.shape for array in arrays] != [(channels,)] * 4:
            raise self._mismatch(layer, tensor)
        weight, bias, mean, variance = arrays
        before = self._producers.get(self._source(node.inputs[0]))
        if before is not None and before.op == "Conv" and len(before.inputs) > 2 and not has_bias:
            mean = _plus(mean, -self._bias(layer, before, channels).astype(np.float64))
        own_epsilon = node.floats.get("epsilon", _DEFAULT_EPSILON)
        if own_epsilon != epsilon:
            variance = _plus(variance, own_epsilon - epsilon)
        return _Step(_norm(name, weight, bias, mean, variance), node.inputs[:1])

    def _pool(
        self, layer: _core.Layer, pool: _core.MaxPool2d | _core.AvgPool2d, tensor: str
    ) -> _Step:
        is_average = isinstance(pool, _core.AvgPool2d)
        node = self._node(layer, tensor, "AveragePool" if is_average else "MaxPool")
        if set(node.ints.get("kernel_shape", ())) != {pool.kernel}:
            raise self._mismatch(layer, tensor)
        ceil_mode = isinstance(pool, _core.AvgPool2d) and pool.ceil_mode
        if not _has_window(node, pool.kernel, pool.stride, pool.padding, ceil_mode=ceil_mode):
            raise self._mismatch(layer, tensor)
        if isinstance(pool, _core.AvgPool2d) and pool.padding > 0:
            counts_padding = bool(node.number("count_include_pad", 0))
            if counts_padding != pool.count_include_pad:
                raise self._mismatch(layer, tensor)
        return _Step({}, node.inputs[:1])

    def _split_attention(
        self, layer: _core.Layer, block: _core.SplitAttention, tensor: str
    ) -> _Step:
        fc1, fc2 = f"{layer.name}.fc1", f"{layer.name}.fc2"
        source, gate = self._gate(layer, tensor, "Softmax" if block.radix > 1 else "Sigmoid")
        node, weight = self._convolution(layer, f"{fc2}.weight", gate, block.cardinality)
        bias = self._bias(layer, node, block.radix * block.channels)
        arrays = {f"{fc2}.weight": weight, f"{fc2}.bias": bias}
        relu = self._node(layer, self._source(node.inputs[0]), "Relu")
        hidden = self._source(relu.inputs[0])
        is_folded = False
        if block.batch_norm:
            norm = self._batch_norm(
                layer, f"{layer.name}.bn1", block.epsilon, hidden, has_bias=block.fc1_bias
            )
            arrays.update(norm.arrays)
            is_folded = norm.inputs[0] == hidden
            hidden = self._source(norm.inputs[0])
        node, weight = self._convolution(layer, f"{fc1}.weight", hidden, block.cardinality)
        arrays[f"{fc1}.weight"] = weight
        if block.fc1_bias:
            bias = self._bias(layer, node, block.hidden)
            # A folded normalisation already adds the convolution's bias.
            arrays[f"{fc1}.bias"] = np.zeros_like(bias) if is_folded else bias
        self._check_reads_means(layer, node, source)
        return _Step(arrays, (source,))

    def _squeeze_excite(self, layer: _core.Layer, block: _core.SqueezeExcite, tensor: str) -> _Step:
        fc1, fc2 = f"{layer.name}.fc1", f"{layer.name}.fc2"
        source, gate = self._gated(layer, tensor)
        second, weight2 = self._convolution(layer, f"{fc2}.weight", gate)
        hidden = self._source(second.inputs[0])
        if block.silu:
            hidden = self._silu(layer, hidden)
        else:
            hidden = self._source(self._node(layer, hidden, "Relu").inputs[0])
        first, weight1 = self._convolution(layer, f"{fc1}.weight", hidden)
        self._check_mean(layer, first, source)
        arrays = {
            f"{fc1}.weight": weight1,
            f"{fc1}.bias": self._bias(layer, first, weight1.shape[0]),
            f"{fc2}.weight": weight2,
            f"{fc2}.bias": self._bias(layer, second, weight2.shape[0]),
        }
        return _Step(arrays, (source,))

    def _silu(self, layer: _core.Layer, tensor: str) -> str:
        """Return what a SiLU reads: x, if a tensor is x * sigmoid(x)."""
        node = self._node(layer, tensor, "Mul", "Swish")
        if node.op == "Swish":
            return self._source(node.inputs[0])
        for x, z in self._sigmoid_products(node):
            if x == z:
                return x
        raise self._mismatch(layer, tensor)

    def _blur(self, layer: _core.Layer, stride: int, tensor: str) -> _Step:
        """Match a convolution of a reflected border, which has the binomial weights."""
        node = self._node(layer, tensor, "Conv")
        channels = layer.shape[0]
        line = np.array([1, 2, 1], np.float32) / 4
        pad = self._node(layer, self._source(node.inputs[0]), "Pad")
        weight = self._constant(layer, node.inputs[1]) if len(node.inputs) > 1 else line
        is_blur = (
            node.number("group", 1) == channels
            and weight.shape == (channels, 1, 3, 3)
            and np.allclose(weight, np.outer(line, line))
            and pad.texts.get("mode") == "reflect"
        )
        if not is_blur or not pad.inputs or not _has_window(node, 3, stride, 0):
            raise self._mismatch(layer, tensor)
        return _Step({}, pad.inputs[:1])

    def _gated(self, layer: _core.Layer, tensor: str) -> tuple[str, str]:
        """Return x and the convolution's output z, if a tensor is x * sigmoid(z)."""
        for x, z in self._sigmoid_products(self._node(layer, tensor, "Mul")):
            # If x is a SiLU of y, the tensor may also seem to be sigmoid(y) * ....
            if x != z and self._op(z) == "Conv":
                return x, z
        raise self._mismatch(layer, tensor)

    def _sigmoid_products(self, node: Node) -> Iterable[tuple[str, str]]:
        """Yield the pairs (x, z) for which a product is x * sigmoid(z)."""
        if len(node.inputs) != 2:
            return
        for x, factor in (node.inputs, node.inputs[::-1]):
            gate = self._producers.get(self._source(factor))
            if gate is not None and gate.op == "Expand" and gate.inputs:
                gate = self._producers.get(self._source(gate.inputs[0]))
            if gate is not None and gate.op == "Sigmoid" and gate.inputs:
                yield self._source(x), self._source(gate.inputs[0])

    def _check_mean(self, layer: _core.Layer, node: Node, source: str) -> None:
        mean = self._node(layer, self._source(node.inputs[0]), *_MEANS)
        if self._source(mean.inputs[0]) != source:
            raise self._mismatch(layer, node.outputs[0])

    def _gate(self, layer: _core.Layer, tensor: str, activation: str) -> tuple[str, str]:
        """Return what an attention block reads, and the convolution that computes its weights."""
        ops, landmarks = self._back_to_landmarks(tensor)
        gates = [name for name in landmarks if self._op(name) == "Conv"]
        sources = [name for name in landmarks if self._op(name) != "Conv"]
        if len(gates) != 1 or len(sources) != 1 or not {activation, "Mul"} <= ops:
            raise self._mismatch(layer, tensor)
        return sources[0], gates[0]

    def _check_reads_means(self, layer: _core.Layer, node: Node, source: str) -> None:
        ops, landmarks = self._back_to_landmarks(node.inputs[0])
        if landmarks != {source} or not ops & set(_MEANS):
            raise self._mismatch(layer, node.outputs[0])

    def _back_to_landmarks(self, tensor: str) -> tuple[set[str], set[str]]:
        """Return the operators between a tensor and the landmarks before it, and these."""
        ops: set[str] = set()
        landmarks: set[str] = set()
        seen: set[str] = set()
        names = [tensor]
        while names:
            name = self._source(names.pop())
            if name in seen or not name or name in self._initialisers:
                continue
            seen.add(name)
            node = self._producers.get(name)
            if node is None or node.op in _LANDMARKS:
                landmarks.add(name)
            else:
                ops.add(node.op)
                names += node.inputs
        return ops, landmarks

    def _linear(self, layer: _core.Layer, linear: _core.Linear, tensor: str) -> _Step:
        """Match a Gemm, or a MatMul with or without an Add for the bias."""
        node = self._node(layer, tensor, "Gemm", "Add", "MatMul")
        bias: str | None = None
        if node.op == "Gemm":
            is_plain = (
                node.floats.get("alpha", 1) == node.floats.get("beta", 1) == 1
                and node.number("transA", 0) == 0
            )
            if not is_plain:
                raise self._mismatch(layer, tensor)
            bias = node.inputs[2] if len(node.inputs) > 2 else None
        elif node.op == "Add":
            constants = [name for name in node.inputs if self._is_constant(name)]
            others = [name for name in node.inputs if not self._is_constant(name)]
            if len(constants) != 1 or len(others) != 1:
                raise self._mismatch(layer, tensor)
            bias = constants[0]
            node = self._node(layer, self._source(others[0]), "MatMul")
        if len(node.inputs) < 2:
            raise self._mismatch(layer, tensor)
        weight = self._constant(layer, node.inputs[1])
        if not node.number("transB", 0):
            weight = weight.T
        features = linear.out_features
        offset = np.zeros(features, np.float32) if bias is None else self._constant(layer, bias)
        if weight.shape != _shape(layer, f"{layer.name}.weight") or offset.size != features:
            raise self._mismatch(layer, tensor)
        arrays = {f"{layer.name}.weight": weight, f"{layer.name}.bias": offset.reshape(features)}
        return _Step(arrays, node.inputs[:1])

    def _convolution(
        self, layer: _core.Layer, name: str, tensor: str, groups: int = 1
    ) -> tuple[Node, Array]:
        """Return the convolution that computes a tensor, and its weight, the parameter `name`."""
        node = self._node(layer, tensor, "Conv")
        if node.number("group", 1) != groups or len(node.inputs) < 2:
            raise self._mismatch(layer, tensor)
        weight = self._constant(layer, node.inputs[1])
        if weight.shape != _shape(layer, name):
            raise self._mismatch(layer, tensor)
        return node, weight

    def _bias(self, layer: _core.Layer, node: Node, channels: int) -> Array:
        if len(node.inputs) < 3 or not node.inputs[2]:
            return np.zeros(channels, np.float32)
        bias = self._constant(layer, node.inputs[2])
        if bias.shape != (channels,):
            raise self._mismatch(layer, node.outputs[0])
        return bias

    def _node(self, layer: _core.Layer, tensor: str, *ops: str) -> Node:
        """Return the node that computes a tensor, if it has one of these types and an input."""
        node = self._producers.get(tensor)
        if node is None or node.op not in ops or not node.inputs:
            raise self._mismatch(layer, tensor)
        return node

    def _op(self, tensor: str) -> str:
        node = self._producers.get(tensor)
        return "" if node is None else node.op

    def _source(self, tensor: str) -> str:
        """Return the tensor whose numbers this one repeats."""
        while (node := self._producers.get(tensor)) is not None and node.op in _PASSED:
            if not node.inputs:
                break
            tensor = node.inputs[0]
        return tensor

    def _is_constant(self, tensor: str) -> bool:
        return self._find_constant(tensor) is not None

    def _constant(self, layer: _core.Layer, tensor: str) -> Array:
        array = self._find_constant(tensor)
        if array is None:
            raise _Mismatch(f"{tensor!r}, a parameter of {_text(layer)}, is not a float constant")
        return array

    def _find_constant(self, tensor: str) -> Array | None:
        """Return a constant, which may be transposed on the way; None if it is not one."""
        transpositions: list[tuple[int, ...]] = []
        while (node := self._producers.get(tensor)) is not None and node.inputs:
            if node.op == "Transpose":
                transpositions.append(node.ints.get("perm", ()))
            elif node.op not in ("Identity", "Cast"):
                return None
            tensor = node.inputs[0]
        array = self._constants.get(tensor)
        for axes in reversed(transpositions):
            if array is None or (axes and sorted(axes) != list(range(array.ndim))):
                return None
            array = array.transpose(axes or None)
        return array

    def _mismatch(self, layer: _core.Layer, tensor: str, *more: str) -> _Mismatch:
        found = ", ".join((self._describe(tensor), *more))
        return _Mismatch(f"expected {_text(layer)}, found {found}")

    def _describe(self, tensor: str) -> str:
        node = self._producers.get(tensor)
        if node is None:
            return f"the input {tensor!r}"
        text = f"the {node.op} {node.name or tensor!r}"
        if node.op in ("Conv", "Gemm", "MatMul"):
            weight = self._find_constant(node.inputs[1]) if len(node.inputs) > 1 else None
            shape = None if weight is None else tuple(weight.shape)
            text += f" of weight {shape}"
        if node.op in ("Conv", "AveragePool", "MaxPool"):
            window: dict[str, object] = {
                "group": node.number("group", 1),
                "strides": list(node.ints.get("strides", (1, 1))),
                "pads": list(node.ints.get("pads", (0, 0, 0, 0))),
            }
            if node.op == "AveragePool":
                window["count_include_pad"] = node.number("count_include_pad", 0)
            text += "".join(f", {key} {value}" for key, value in window.items())
        return text


def _text(layer: _core.Layer) -> str:
    shapes = [parameter.shape for parameter in layer.parameters]
    weight = f" of weight {shapes[0]}" if shapes else ""
    return f"{layer.name}, {layer.definition!r}{weight}"


def _shape(layer: _core.Layer, name: str) -> tuple[int, ...]:
    return next(parameter.shape for parameter in layer.parameters if parameter.name == name)


def _has_window(
    node: Node, kernel: int, stride: int, padding: int, *, ceil_mode: bool = False
) -> bool:
    """Return whether a convolution or a pooling has this window, stride and padding."""
    if set(node.ints.get("strides", (1,))) != {stride}:
        return False
    if kernel > 1 and set(node.ints.get("dilations", (1,))) != {1}:
        return False
    rule = node.texts.get("auto_pad", "NOTSET")
    if rule == "VALID":
        return padding == 0
    if rule in ("SAME_UPPER", "SAME_LOWER"):
        if ceil_mode and kernel == stride == 2:
            # An odd side is padded at its end, which an average must not count.
            counts_padding = node.number("count_include_pad", 0) != 0
            return rule == "SAME_UPPER" and padding == 0 and not counts_padding
        return 2 * padding == kernel - 1 and stride == 1
    begins, ends = np.split(np.array(node.ints.get("pads", (0, 0, 0, 0))), [2])
    # Before ONNX had ceil_mode, exporters padded the end instead.
    most = padding + stride - 1 if ceil_mode else padding
    return bool((begins == padding).all() and (padding <= ends).all() and (ends <= most).all())


def _unfused(node: Node) -> Iterable[Node]:
    """Yield the nodes that ONNX Runtime fused: Conv, Add and Relu for a FusedConv."""
    activation = node.texts.get("activation", "")
    if node.op != "FusedConv" or not activation or len(node.outputs) != 1:
        yield node
        return
    output = node.outputs[0]
    # No exporter uses such names.
    partial = f"{output}\nConv"
    yield replace(node, op="Conv", inputs=node.inputs[:3], outputs=(partial,))
    if len(node.inputs) > 3:
        added = f"{output}\nAdd"
        yield replace(node, op="Add", inputs=(partial, node.inputs[3]), outputs=(added,))
        partial = added
    yield replace(node, op=activation, inputs=(partial,), outputs=(output,))


def _norm(name: str, weight: Array, bias: Array, mean: Array, variance: Array) -> dict[str, Array]:
    return {
        f"{name}.weight": weight,
        f"{name}.bias": bias,
        f"{name}.running_mean": mean,
        f"{name}.running_var": variance,
    }


def _identity_norm(name: str, bias: Array, epsilon: float) -> dict[str, Array]:
    """Return a normalisation that adds a bias and changes no other bit.

    The nearest float32 to 1 - epsilon differs by at most 2**-25, and the standard deviation, in
    float64, by half of that: too little to change a float32 that is divided by it.
    """
    ones = np.ones(bias.shape, np.float32)
    variance = np.full(bias.shape, 1 - epsilon, np.float32)
    return _norm(name, ones, bias, np.zeros_like(ones), variance)


def _plus(array: Array, offset: float | npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    return (array.astype(np.float64) + offset).astype(np.float32)
