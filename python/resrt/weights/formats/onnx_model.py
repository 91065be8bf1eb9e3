"""Decodes the parts of an ONNX model (https://onnx.ai/onnx/repo-docs/IR.html) that weights need.

These are the nodes with their attributes, and the constants with types that parameters have. The
rest of the file is skipped.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from resrt.weights.formats.checkpoint import Array, Malformed, widen_bfloat16
from resrt.weights.formats.protobuf import (
    LONGEST_NAME,
    Value,
    Wire,
    as_bytes,
    as_int,
    as_ints,
    as_text,
    varints,
)

# Several times what an export of the deepest network has. Without limits, a file of two-byte
# entries would take a hundred times its size in memory.
_MOST_FIELDS = 300_000
_MOST_NODES = 50_000
_MOST_TENSORS = 50_000
_MOST_DIMENSIONS = 8

# The producer_name of models that resrt wrote. The metadata of others is ignored.
_PRODUCER = "resrt"
_MOST_PROPERTIES = 16
_LONGEST_PROPERTY = 1 << 20  # several times the labels of ImageNet-21k

_BFLOAT16 = 16
_DTYPES: dict[int, np.dtype[np.generic]] = {
    1: np.dtype("<f4"),
    10: np.dtype("<f2"),
    11: np.dtype("<f8"),
    _BFLOAT16: np.dtype("<u2"),  # widened below: NumPy has no bfloat16
}


@dataclass(frozen=True)
class Node:
    """An operator. Its inputs and outputs are names of tensors, "" for an omitted one."""

    op: str
    name: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ints: Mapping[str, tuple[int, ...]]  # a single number is a tuple of one
    floats: Mapping[str, float]
    texts: Mapping[str, str]

    def number(self, name: str, default: int) -> int:
        """Return the attribute of that name if it is a single number, else the default."""
        values = self.ints.get(name, (default,))
        return values[0] if len(values) == 1 else default


@dataclass(frozen=True)
class Model:
    """The nodes in topological order, and the constants that are arrays of floats.

    Constants are initialisers and outputs of Constant nodes; `initialisers` are the names of the
    former. `metadata` is what resrt wrote as the model's metadata_props.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    initialisers: frozenset[str]
    outputs: tuple[str, ...]
    functions: frozenset[str]
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class Location:
    """The position of an external tensor's bytes. A length of None means to the file's end."""

    file: str
    offset: int
    length: int | None


# Returns the bytes at a location.
Fetch: TypeAlias = Callable[[Location], memoryview]


def decode(content: memoryview, fetch: Fetch) -> Model:
    """Decode a ModelProto. Raises Malformed and what `fetch` raises."""
    return _Decoder(fetch).model(content)


@dataclass
class _Tensor:
    """A TensorProto: its shape, and its elements in one of several fields."""

    name: str = ""
    data_type: int = 0
    shape: list[int] = field(default_factory=list)
    raw: memoryview | None = None
    fixed: memoryview | bytearray = field(default_factory=bytearray)  # float_data, double_data
    halves: bytearray = field(default_factory=bytearray)  # int32_data, as bits of 16-bit floats
    external: dict[str, str] = field(default_factory=dict)
    is_external: bool = False


class _Decoder:
    def __init__(self, fetch: Fetch) -> None:
        self._wire = Wire(_MOST_FIELDS)
        self._fetch = fetch
        self._nodes: list[Node] = []
        self._constants: dict[str, Array] = {}
        self._initialisers: set[str] = set()
        self._inputs: set[str] = set()
        self._outputs: list[str] = []
        self._functions: set[str] = set()
        self._tensors = 0

    def model(self, content: memoryview) -> Model:
        has_graph = False
        producer = ""
        properties: list[Value] = []
        for number, value in self._wire.fields(content):
            if number == 2:
                producer = as_text(value)
            elif number == 7:
                has_graph = True
                self._graph(value)
            elif number == 14 and len(properties) < _MOST_PROPERTIES:
                properties.append(value)
            elif number == 25:
                self._functions.add(self._name(value))
        if not has_graph:
            raise Malformed("it has no graph")
        self._check_order()
        return Model(
            nodes=tuple(self._nodes),
            constants=self._constants,
            initialisers=frozenset(self._initialisers),
            outputs=tuple(self._outputs),
            functions=frozenset(self._functions),
            metadata=self._metadata(properties if producer == _PRODUCER else ()),
        )

    def _metadata(self, properties: Iterable[Value]) -> dict[str, str]:
        return dict(self._entry(value, longest=_LONGEST_PROPERTY) for value in properties)

    def _graph(self, message: Value) -> None:
        for number, value in self._wire.fields(message):
            if number == 1:
                self._node(value)
            elif number == 5:
                name = self._constant(value)
                self._initialisers.add(name)
            elif number == 11:
                self._inputs.add(self._name(value))
            elif number == 12:
                self._outputs.append(self._name(value))

    def _name(self, message: Value) -> str:
        """Return the name, the first field, of a ValueInfoProto or a FunctionProto."""
        names = (as_text(value) for number, value in self._wire.fields(message) if number == 1)
        return next(names, "")

    def _node(self, message: Value) -> None:
        if len(self._nodes) == _MOST_NODES:
            raise Malformed(f"it has more than {_MOST_NODES} nodes")
        inputs: list[str] = []
        outputs: list[str] = []
        texts = {3: "", 4: "", 7: ""}  # name, op_type, domain
        attributes: list[Value] = []
        for number, value in self._wire.fields(message):
            if number == 1:
                inputs.append(as_text(value))
            elif number == 2:
                outputs.append(as_text(value))
            elif number in texts:
                texts[number] = as_text(value)
            elif number == 5:
                attributes.append(value)
        if not texts[4].isidentifier():
            raise Malformed(f"a node has the invalid type {texts[4][:100]!r}")
        node = Node(texts[4], texts[3], texts[7], tuple(inputs), tuple(outputs), {}, {}, {})
        self._nodes.append(self._with_attributes(node, attributes))

    def _with_attributes(self, node: Node, attributes: Iterable[Value]) -> Node:
        all_ints: dict[str, tuple[int, ...]] = {}
        floats: dict[str, float] = {}
        texts: dict[str, str] = {}
        for attribute in attributes:
            name = ""
            ints: list[int] = []
            for number, value in self._wire.fields(attribute):
                if number == 1:
                    name = as_text(value)
                elif number == 2:
                    floats[name] = _float(value)
                elif number == 4 and len(as_bytes(value)) < 100:
                    texts[name] = as_text(value)
                elif number == 5 and node.op == "Constant" and len(node.outputs) == 1:
                    self._constant(value, node.outputs[0])
                elif number in (3, 8) and len(ints) <= 2 * _MOST_DIMENSIONS:
                    ints += as_ints(value)
            if 0 < len(ints) <= 2 * _MOST_DIMENSIONS:
                all_ints[name] = tuple(ints)
        return replace(node, ints=all_ints, floats=floats, texts=texts)

    def _constant(self, message: Value, name: str | None = None) -> str:
        """Store a tensor's array, if it has floats, under `name` or its own name."""
        self._tensors += 1
        if self._tensors > _MOST_TENSORS:
            raise Malformed(f"it has more than {_MOST_TENSORS} tensors")
        tensor = self._tensor(message)
        if name is None:
            name = tensor.name
        if tensor.data_type in _DTYPES:
            self._constants[name] = self._array(tensor)
        return name

    def _tensor(self, message: Value) -> _Tensor:
        tensor = _Tensor()
        for number, value in self._wire.fields(message):
            if number == 1:
                tensor.shape += as_ints(value)
                if len(tensor.shape) > _MOST_DIMENSIONS:
                    raise Malformed(f"a tensor has {len(tensor.shape)} dimensions")
            elif number == 2:
                tensor.data_type = as_int(value)
            elif number in (4, 10):
                tensor.fixed = _joined(tensor.fixed, as_bytes(value))
            elif number == 5 and isinstance(value, int):
                tensor.halves += (value & 0xFFFF).to_bytes(2, "little")
            elif number == 5:
                for piece in varints(as_bytes(value)):
                    tensor.halves += piece.astype("<u2").tobytes()
            elif number == 8:
                tensor.name = as_text(value)
            elif number == 9:
                tensor.raw = as_bytes(value)
            elif number == 13:
                key, text = self._entry(value)
                tensor.external[key] = text
            elif number == 14:
                tensor.is_external = as_int(value) == 1
        return tensor

    def _entry(self, message: Value, longest: int = LONGEST_NAME) -> tuple[str, str]:
        """Return the key and the value of a StringStringEntryProto."""
        entry = {1: "", 2: ""}
        for number, value in self._wire.fields(message):
            if number in entry:
                entry[number] = as_text(value, longest)
        return entry[1], entry[2]

    def _array(self, tensor: _Tensor) -> Array:
        shape = tuple(tensor.shape)
        if not all(0 <= size < 1 << 31 for size in shape):
            raise Malformed(f"the tensor {tensor.name!r} has the invalid shape {shape}")
        dtype = _DTYPES[tensor.data_type]
        content = self._elements(tensor, dtype)
        if math.prod(shape) * dtype.itemsize != len(content):
            raise Malformed(
                f"the tensor {tensor.name!r} of shape {shape} has {len(content)} bytes, expected "
                f"{math.prod(shape) * dtype.itemsize}"
            )
        array = np.frombuffer(content, dtype).reshape(shape)
        return widen_bfloat16(array) if tensor.data_type == _BFLOAT16 else array

    def _elements(self, tensor: _Tensor, dtype: np.dtype[np.generic]) -> memoryview | bytearray:
        if tensor.is_external:
            return self._fetch(_location(tensor))
        if tensor.raw is not None:
            return tensor.raw
        return tensor.halves if dtype.itemsize == 2 else tensor.fixed

    def _check_order(self) -> None:
        """Raise Malformed if a node reads what none before it writes, or writes a tensor again."""
        known = {"", *self._inputs, *self._initialisers}
        for node in self._nodes:
            for name in node.inputs:
                if name not in known:
                    raise Malformed(
                        f"the node {node.name!r} reads {name!r}, which nothing before it writes"
                    )
            for name in node.outputs:
                if name and name in known:
                    raise Malformed(f"the node {node.name!r} writes {name!r} a second time")
                known.add(name)


def _joined(before: memoryview | bytearray, more: memoryview) -> memoryview | bytearray:
    """Append to a field's bytes, which stay a view while there is only one part."""
    if not before:
        return more
    joined = before if isinstance(before, bytearray) else bytearray(before)
    joined += more
    return joined


def _float(value: Value) -> float:
    content = as_bytes(value)
    if len(content) != 4:
        raise Malformed(f"a float has {len(content)} bytes")
    number: float = struct.unpack("<f", content)[0]
    return number


def _location(tensor: _Tensor) -> Location:
    numbers = {key: tensor.external.get(key, "0") for key in ("offset", "length")}
    for key, text in numbers.items():
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise Malformed(f"the tensor {tensor.name!r} has the invalid {key} {text[:100]!r}")
    has_length = "length" in tensor.external
    return Location(
        file=tensor.external.get("location", ""),
        offset=int(numbers["offset"]),
        length=int(numbers["length"]) if has_length else None,
    )
