"""Decodes the programs of models that Paddle exported for inference: its operators and parameters.

Paddle 3 writes a program as JSON (PIR, https://github.com/PaddlePaddle/Paddle), earlier versions as
a protocol buffer, framework.proto's ProgramDesc. Both are translated into ONNX's operators, so that
`onnx_match` can follow either.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from resrt.weights.formats.checkpoint import Array, Malformed, shorten
from resrt.weights.formats.onnx_model import Model, Node
from resrt.weights.formats.protobuf import Value, Wire, as_bytes, as_int, as_ints, as_text

# Several times what the deepest network has.
_MOST_FIELDS = 1_000_000
_MOST_OPS = 50_000
# In bytes. JSON takes up to twenty times its size in memory.
_LONGEST_JSON = 3 << 20
LONGEST = 32 << 20

# Paddle's operators, in programs of both kinds, and those of ONNX that compute the same from the
# same inputs. `_node` translates those with attributes.
_SAME = {
    "relu": "Relu",
    "flatten": "Flatten",
    "flatten_contiguous_range": "Flatten",
    "reshape": "Reshape",
    "reshape2": "Reshape",
    "squeeze": "Squeeze",
    "squeeze2": "Squeeze",
    "unsqueeze": "Unsqueeze",
    "unsqueeze2": "Unsqueeze",
    "softmax": "Softmax",
    "sigmoid": "Sigmoid",
    "silu": "Swish",
    "swish": "Swish",
    "add": "Add",
    "elementwise_add": "Add",
    "multiply": "Mul",
    "elementwise_mul": "Mul",
    "mean": "ReduceMean",
    "reduce_mean": "ReduceMean",
    "sum": "ReduceSum",
    "reduce_sum": "ReduceSum",
    "dropout": "Dropout",
    "assign": "Identity",
    "cast": "Cast",
}
_CONVOLUTIONS = ("conv2d", "depthwise_conv2d")
_PRODUCTS = ("matmul", "matmul_v2")
_NORMS = ("batch_norm", "batch_norm_")


@dataclass(frozen=True)
class _Op:
    """An operator of a program. Inputs are in the order of ONNX's, and names are unique."""

    type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Program:
    """The operators of a program in the order in which they run, and its parameters' shapes."""

    ops: tuple[_Op, ...]
    outputs: tuple[str, ...]
    parameters: Mapping[str, tuple[int, ...]]

    def model(self, arrays: Mapping[str, Array]) -> Model:
        """Return the program with arrays of its parameters, as a model of ONNX's operators."""
        nodes, made = _with_convolutions([_node(op) for op in self.ops], arrays)
        return Model(
            nodes=tuple(nodes),
            constants={**arrays, **made},
            initialisers=frozenset(self.parameters) | made.keys(),
            outputs=self.outputs,
            functions=frozenset(),
            metadata={},
        )


def decode(content: memoryview) -> Program:
    """Decode a program of either kind. Raises Malformed."""
    is_json = bytes(content[:1]) == b"{"
    if len(content) > (_LONGEST_JSON if is_json else LONGEST):
        raise Malformed(f"it has {len(content)} bytes")
    if is_json:
        return _Json(content).program()
    return _Protobuf(content).program()


class _Json:
    """A program in PIR. Values are numbered, and the builtin operator "p" is a parameter."""

    def __init__(self, content: memoryview) -> None:
        try:
            self._document = json.loads(bytes(content))
        except (ValueError, RecursionError) as error:
            raise Malformed(f"it is not valid JSON: {error}") from None
        self._names: dict[int, str] = {}
        self._lists: dict[int, tuple[int, ...]] = {}
        self._parameters: dict[str, tuple[int, ...]] = {}
        self._outputs: list[str] = []

    def program(self) -> Program:
        try:
            if self._document["base_code"]["magic"] != "pir":
                raise Malformed("it is not a program of Paddle's")
            (region,) = self._document["program"]["regions"]
            (block,) = region["blocks"]
            described = block["ops"]
            if not isinstance(described, list) or len(described) > _MOST_OPS:
                raise Malformed(f"it has more than {_MOST_OPS} operators, or none")
            ops = tuple(op for one in described for op in self._op(one))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else error
            raise Malformed(f"its operators are invalid: {reason}") from None
        return Program(ops, tuple(self._outputs), self._parameters)

    def _op(self, described: Mapping[str, Any]) -> Iterator[_Op]:
        kind = described["#"]
        if kind == "p":
            name, value = described["A"][3], described["O"]
            if not isinstance(name, str) or name in self._parameters:
                raise Malformed(f"it has a parameter without a name of its own, {shorten(name)}")
            self._parameters[name] = _shape(value["TT"]["D"][1])
            self._names[_number(value)] = name
            return
        kind = kind.rpartition(".")[2]
        attributes = {one["N"]: _attribute(one["AT"]) for one in described["A"]}
        numbers = [_number(one) for one in described["I"]]
        if kind == "full_int_array":
            (made,) = described["O"]
            self._lists[_number(made)] = _ints(attributes["value"])
            return
        # Other inputs, such as a shape, are numbers and no parameters.
        inputs = [self._names[number] for number in numbers if number in self._names]
        if kind == "fetch":
            self._outputs += inputs
            return
        if kind == "batch_norm_":
            x, mean, variance, scale, bias = inputs
            inputs = [x, scale, bias, mean, variance]
        if kind == "pool2d":
            attributes["ksize"] = next(self._lists[n] for n in numbers if n in self._lists)
        outputs = []
        for one in described["O"]:
            number = _number(one)
            if number in self._names:
                raise Malformed(f"its value {number} is written a second time")
            self._names[number] = f"value {number}"
            outputs.append(self._names[number])
        if kind in ("data", "feed"):
            return
        yield _Op(kind, tuple(inputs), tuple(outputs), attributes)


def _number(value: Mapping[str, Any]) -> int:
    number = value["%"]
    if not isinstance(number, int):
        raise Malformed(f"a value has the number {shorten(number)}")
    return number


def _attribute(described: Mapping[str, Any]) -> Any:
    """Return a number, a text, or a list of these; None for anything else."""
    value = described.get("D")
    if isinstance(value, list):
        return [one.get("D") if isinstance(one, Mapping) else one for one in value]
    return value if isinstance(value, (int, float, str)) else None


def _ints(value: object) -> tuple[int, ...]:
    most = 8
    values = value if isinstance(value, (list, tuple)) else [value]
    numbers = tuple(int(one) for one in values if isinstance(one, int))
    if len(values) > most or len(numbers) != len(values):
        raise Malformed(f"an attribute is {shorten(value)} instead of whole numbers")
    return numbers


def _shape(value: object) -> tuple[int, ...]:
    shape = _ints(value)
    if not all(0 <= size < 1 << 31 for size in shape):
        raise Malformed(f"a parameter has the invalid shape {shape}")
    return shape


class _Protobuf:
    """A ProgramDesc. Variables have names, which an operator may write again."""

    # The names of the inputs of operators in the order of ONNX's, and the one of their output.
    _INPUTS = ("Input", "X", "Filter", "Y", "Scale", "Bias", "Mean", "Variance")
    _OUTPUTS = ("Output", "Out", "Y")

    def __init__(self, content: memoryview) -> None:
        self._wire = Wire(_MOST_FIELDS)
        self._content = content
        self._parameters: dict[str, tuple[int, ...]] = {}
        self._outputs: list[str] = []
        self._versions: Counter[str] = Counter()

    def program(self) -> Program:
        blocks = [value for number, value in self._wire.fields(self._content) if number == 1]
        if len(blocks) != 1:
            raise Malformed(f"it has {len(blocks)} blocks, expected 1")
        described: list[Value] = []
        for number, value in self._wire.fields(blocks[0]):
            if number == 3:
                self._variable(value)
            elif number == 4:
                described.append(value)
        if len(described) > _MOST_OPS:
            raise Malformed(f"it has more than {_MOST_OPS} operators")
        ops = tuple(op for one in described for op in self._op(one))
        return Program(ops, tuple(self._outputs), self._parameters)

    def _variable(self, message: Value) -> None:
        name, kind, is_kept = "", None, False
        for number, value in self._wire.fields(message):
            if number == 1:
                name = as_text(value)
            elif number == 2:
                kind = value
            elif number == 3:
                is_kept = bool(as_int(value))
        if not is_kept or kind is None or name in ("feed", "fetch"):
            return
        shape: list[int] = []
        for number, tensor in self._wire.fields(kind):
            if number != 3:  # a LoDTensorDesc
                continue
            for which, described in self._wire.fields(tensor):
                if which != 1:
                    continue
                for part, value in self._wire.fields(described):
                    if part == 2:
                        shape += as_ints(value)
        self._parameters[name] = _shape(shape)

    def _op(self, message: Value) -> Iterator[_Op]:
        kind = ""
        inputs: dict[str, list[str]] = {}
        outputs: dict[str, list[str]] = {}
        attributes: dict[str, Any] = {}
        for number, value in self._wire.fields(message):
            if number in (1, 2):
                name, names = self._arguments(value)
                (inputs if number == 1 else outputs)[name] = names
            elif number == 3:
                kind = as_text(value)
            elif number == 4:
                name, found = self._attribute(value)
                attributes[name] = found
        if kind == "feed":
            return
        read = tuple(self._now(one) for name in self._INPUTS for one in inputs.get(name, ()))
        if kind == "fetch":
            self._outputs += read
            return
        written = next((outputs[name] for name in self._OUTPUTS if name in outputs), [])
        for name in written:
            self._versions[name] += 1
        yield _Op(kind, read, tuple(self._now(name) for name in written), attributes)

    def _now(self, name: str) -> str:
        """Return a name for the present value of a variable: its own for a parameter's."""
        version = self._versions[name]
        return name if version == 0 and name in self._parameters else f"{name}\n{version}"

    def _arguments(self, message: Value) -> tuple[str, list[str]]:
        parameter, names = "", []
        for number, value in self._wire.fields(message):
            if number == 1:
                parameter = as_text(value)
            elif number == 2:
                names.append(as_text(value))
        return parameter, names

    def _attribute(self, message: Value) -> tuple[str, Any]:
        name = ""
        single: int | float | str | None = None
        several: list[int] = []
        for number, value in self._wire.fields(message):
            if number == 1:
                name = as_text(value)
            elif number in (3, 10, 13):  # i, b and l
                single = as_int(value)
            elif number == 4:
                single = _float(value)
            elif number == 5 and len(as_bytes(value)) < 100:
                single = as_text(value)
            elif number in (6, 15):  # ints and longs
                several += as_ints(value)
        return name, several or single


def _float(value: Value) -> float:
    content = as_bytes(value)
    if len(content) != 4:
        raise Malformed(f"a float has {len(content)} bytes")
    number: float = struct.unpack("<f", content)[0]
    return number


def _node(op: _Op) -> Node:
    """Return an operator as one of ONNX's; under its own name if ONNX has none that is needed."""
    attributes = op.attributes
    ints: dict[str, tuple[int, ...]] = {}
    floats: dict[str, float] = {}
    texts: dict[str, str] = {}
    kind = _SAME.get(op.type, op.type)
    if _changes_values(op):
        kind = op.type
    elif op.type in _CONVOLUTIONS:
        kind = "Conv"
        ints = {"group": _ints(attributes.get("groups", 1)), **_window(attributes, texts)}
        ints["dilations"] = _ints(attributes.get("dilations", (1, 1)))
    elif op.type in _NORMS:
        kind = "BatchNormalization"
        epsilon = attributes.get("epsilon", 1e-5)
        if not isinstance(epsilon, (int, float)):
            raise Malformed(f"an epsilon is {shorten(epsilon)}")
        floats["epsilon"] = float(epsilon)
    elif op.type in _PRODUCTS:
        kind = "MatMul"
        names = ("transpose_x", "transpose_y", "trans_x", "trans_y")
        if any(attributes.get(name) for name in names):
            kind = op.type  # of no network here
    elif op.type == "scale":  # by 1, at the outputs of programs before Paddle 3
        if attributes.get("scale") == 1 and not attributes.get("bias"):
            kind = "Identity"
    elif op.type == "pool2d":
        kind = "AveragePool" if attributes.get("pooling_type") == "avg" else "MaxPool"
        size = _ints(attributes.get("ksize", ()))
        is_adaptive = bool(attributes.get("adaptive"))
        if attributes.get("global_pooling") or (is_adaptive and set(size) == {1}):
            kind = f"Global{kind}"
        elif is_adaptive:
            kind = op.type
        ints = {"kernel_shape": size, **_window(attributes, texts)}
        ints["count_include_pad"] = (int(not attributes.get("exclusive", True)),)
        if set(size) == set(ints["strides"]) == {1} and kind.startswith(("Average", "Max")):
            kind = "Identity"  # as PaddleClas has it before shortcuts without a stride
    return Node(kind, "", "", op.inputs, op.outputs, ints, floats, texts)


def _changes_values(op: _Op) -> bool:
    """Return whether an attribute makes an operator another than that of ONNX."""
    if op.type == "swish":
        return op.attributes.get("beta") not in (None, 1)
    scales = ("mode", "dropout_implementation")
    return op.type == "dropout" and "downscale_in_infer" in map(op.attributes.get, scales)


def _window(attributes: Mapping[str, Any], texts: dict[str, str]) -> dict[str, tuple[int, ...]]:
    """Return the strides and the padding, which may be a rule in `texts`, by ONNX's names."""
    rule = {"SAME": "SAME_UPPER", "VALID": "VALID"}.get(str(attributes.get("padding_algorithm")))
    if rule is not None:
        texts["auto_pad"] = rule
    pads = _ints(attributes.get("paddings", (0, 0)))
    if len(pads) == 4:  # top, bottom, left, right
        pads = (pads[0], pads[2], pads[1], pads[3])
    elif len(pads) == 2:
        pads *= 2
    else:
        raise Malformed(f"it pads by {pads}")
    return {"strides": _ints(attributes.get("strides", (1, 1))), "pads": pads}


def _with_convolutions(
    nodes: list[Node], arrays: Mapping[str, Array]
) -> tuple[list[Node], dict[str, Array]]:
    """Replace each matrix product, with its bias and an activation after it, by a convolution.

    PaddleClas computes a squeeze-and-excitation by linear layers, and ONNX's exporters by
    convolutions of 1x1 pixels. Also returns the weights of these.
    """
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    replaced: dict[str, Node | None] = {}  # by the output of the node; None: removed
    made: dict[str, Array] = {}
    for node in nodes:
        if node.op != "MatMul" or len(node.inputs) != 2 or len(node.outputs) != 1:
            continue
        x, weight = node.inputs
        array = arrays.get(weight)
        following = readers.get(node.outputs[0], [])
        if array is None or array.ndim != 2 or len(following) != 1 or following[0].op != "Add":
            continue
        (added,) = following
        biases = [name for name in added.inputs if name in arrays]
        after = readers.get(added.outputs[0], []) if len(added.outputs) == 1 else []
        if len(biases) != 1 or {one.op for one in after} not in ({"Relu"}, {"Sigmoid"}):
            continue
        made[f"{weight}\n1x1"] = array.T[:, :, None, None]
        replaced[node.outputs[0]] = None
        replaced[added.outputs[0]] = replace(
            added, op="Conv", inputs=(x, f"{weight}\n1x1", biases[0])
        )
    kept = (replaced.get(node.outputs[0], node) if node.outputs else node for node in nodes)
    return [node for node in kept if node is not None], made
