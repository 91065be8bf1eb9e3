"""Tensors in the pickles that torch.save writes: views of storages.

`known_names` lists every name that such a pickle may ask for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from resrt.weights.formats.checkpoint import (
    Array,
    Malformed,
    checked_shape,
    checked_sizes,
    shorten,
    widen_bfloat16,
)
from resrt.weights.formats.inert import Settings, containers, inert, numpy_arrays, same
from resrt.weights.formats.unpickler import AllowList, Foreign, Known


@dataclass(frozen=True)
class Element:
    """A type of numbers. `widen` means that NumPy has only their bits, which become float32."""

    dtype: np.dtype[np.generic]
    widen: bool = False


ELEMENTS = {
    name: Element(np.dtype(code), widen=name == "bfloat16")
    for name, code in {
        "float64": "<f8",
        "float32": "<f4",
        "float16": "<f2",
        "bfloat16": "<u2",
        "int64": "<i8",
        "int32": "<i4",
        "int16": "<i2",
        "int8": "i1",
        "uint8": "u1",
        "bool": "?",
    }.items()
}
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
}
# Names of dtypes that may occur in a checkpoint besides the weights, and names whose objects and
# results are ignored.
_OTHER_DTYPES = ("double", "float", "half", "long", "int", "short", "uint16", "uint32", "uint64")
_SETTINGS = ("argparse.Namespace", "types.SimpleNamespace")
_INERT = (
    "collections.defaultdict",
    "collections.Counter",
    "collections.deque",
    "datetime.date",
    "datetime.datetime",
    "datetime.timedelta",
    *(
        f"{module}.{system}Path"
        for module in ("pathlib", "pathlib._local")
        for system in ("", "Posix", "Windows", "PurePosix", "PureWindows")
    ),
    *(
        f"{builtins}.{kind}"
        for builtins in ("builtins", "__builtin__")
        for kind in ("set", "frozenset", "complex", "slice", "range", "list", "dict")
    ),
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "torch.device",
    "torch.torch_version.TorchVersion",
)


@dataclass(eq=False, slots=True)
class Storage:
    """The numbers that tensors are views of. `find` returns them when a tensor needs them."""

    element: Element
    size: int
    find: Callable[[], memoryview] | None = None
    data: memoryview | None = None
    _flat: dict[Element, Array] | None = None

    def fill(self, data: memoryview) -> None:
        """Receive the bytes, of which any excess is ignored. Raises Malformed."""
        nbytes = self.size * self.element.dtype.itemsize
        if len(data) < nbytes:
            raise Malformed(f"a storage has {len(data)} bytes, expected {nbytes}")
        self.data = data[:nbytes]

    def flat(self, element: Element) -> Array:
        """Return all numbers. Tensors that share a storage also share its widened numbers."""
        if self.data is None and self.find is not None:
            self.fill(self.find())
        if self.data is None:
            raise Malformed("a tensor's storage is missing")
        self._flat = self._flat or {}
        if element not in self._flat:
            itemsize = element.dtype.itemsize
            whole = len(self.data) // itemsize * itemsize
            bits = np.frombuffer(self.data[:whole], element.dtype)
            self._flat[element] = widen_bfloat16(bits) if element.widen else bits
        return self._flat[element]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage."""

    storage: Storage
    element: Element
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """The size of the tensor's numbers in the file."""
        return math.prod(self.shape) * self.element.dtype.itemsize

    def array(self) -> Array:
        """Return the tensor as a view of its storage. Raises Malformed."""
        flat = self.storage.flat(self.element)
        if 0 in self.shape:
            return np.zeros(self.shape, flat.dtype)
        steps = zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((size - 1) * stride for size, stride in steps)
        if last >= flat.size:
            raise Malformed(
                f"a tensor of shape {self.shape} ends at element {last} of its storage, which has "
                f"{flat.size}"
            )
        # The stride of an axis with one element may be any number.
        strides = [
            stride * flat.itemsize if size > 1 else 0
            for size, stride in zip(self.shape, self.strides, strict=True)
        ]
        return np.lib.stride_tricks.as_strided(
            flat[self.offset :], self.shape, strides, writeable=False
        )


def known_names(content: memoryview) -> AllowList:
    """Return what the pickle of a checkpoint may ask for."""
    rebuild = "torch._utils._rebuild_"
    known: dict[str, Callable[..., object] | None] = dict.fromkeys(_INERT, inert)
    known |= dict.fromkeys(_SETTINGS, Settings)
    known |= {f"torch.{name}": None for name in (*ELEMENTS, *_OTHER_DTYPES)}
    known |= {
        f"{module}.{name}": None
        for name in _STORAGES
        for module in ("torch", "torch.cuda", "torch.storage")
    }
    known |= dict.fromkeys(
        ("builtins.int", "builtins.float", "__builtin__.int", "__builtin__.float", "torch.Tensor")
    )
    known |= {
        f"{rebuild}tensor": _rebuild_tensor,
        f"{rebuild}tensor_v2": _rebuild_tensor,
        f"{rebuild}tensor_v3": _rebuild_tensor_of,
        "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
        f"{rebuild}parameter": _first,
        f"{rebuild}parameter_with_state": _first,
        "torch.nn.parameter.Parameter": _first,
        "torch.Size": same,
    }
    return {**known, **containers(), **numpy_arrays(limit=len(content))}


def _first(data: object, *_: object) -> object:
    """Replace a parameter by its tensor."""
    return data


def _rebuild_tensor(
    storage: object, offset: object, shape: object, strides: object, *_: object
) -> Tensor | Foreign:
    if isinstance(storage, Foreign):
        return storage
    if not isinstance(storage, Storage):
        raise Malformed("a tensor has no storage")
    return _view(storage, storage.element, offset, shape, strides)


def _rebuild_tensor_of(
    storage: object,
    offset: object,
    shape: object,
    strides: object,
    _requires_grad: object,
    _hooks: object,
    dtype: object,
    *_: object,
) -> Tensor | Foreign:
    """Return a tensor whose dtype has no class of storages."""
    for part in (storage, dtype):
        if isinstance(part, Foreign):
            return part
    name = dtype.name.removeprefix("torch.") if isinstance(dtype, Known) else ""
    if not isinstance(storage, Storage) or name not in ELEMENTS:
        raise Malformed(f"a tensor has the unsupported dtype {shorten(name)}")
    return _view(storage, ELEMENTS[name], offset, shape, strides)


def _rebuild_from_type(function: object, _type: object, arguments: object, *_: object) -> object:
    """Replace a tensor of some class or with attributes by a plain one."""
    if isinstance(function, Foreign):
        return function
    # No other function may be called: one that calls a function in turn might never end.
    rebuild = function.call if isinstance(function, Known) else None
    if rebuild not in (_rebuild_tensor, _rebuild_tensor_of) or not isinstance(arguments, tuple):
        raise Malformed("a tensor is created by an unsupported call")
    return rebuild(*arguments[:16])


def _view(
    storage: Storage, element: Element, offset: object, shape: object, strides: object
) -> Tensor:
    sizes, steps = checked_shape(shape), checked_sizes(strides)
    if not isinstance(offset, int) or not 0 <= offset < 1 << 48 or len(steps) != len(sizes):
        raise Malformed(f"a tensor of shape {sizes} has an invalid offset or strides")
    return Tensor(storage, element, offset, sizes, steps)


class Storages:
    """The storages that a checkpoint refers to, by their keys."""

    def __init__(self, find: Callable[[str], memoryview] | None = None) -> None:
        self.by_key: dict[str, Storage] = {}
        self._find = find

    def __call__(self, reference: object) -> Storage | Foreign:
        """Return the storage of a persistent id. Raises Malformed.

        The id is ('storage', class, key, device, size, view of another). It may also be of a
        module's class, with its source, or of a class of storages that is not supported.
        """
        match reference:
            case (_, Foreign() as foreign, *_):
                return foreign
        if not isinstance(reference, tuple) or not 5 <= len(reference) <= 6:
            raise Malformed("it refers to an external object that is not a storage")
        _, kind, key, _, size = reference[:5]
        name = kind.name.rpartition(".")[2] if isinstance(kind, Known) else ""
        if name not in _STORAGES or not isinstance(key, str):
            raise Malformed("it refers to a storage of an unsupported class")
        if not isinstance(size, int) or not 0 <= size < 1 << 48:
            raise Malformed(f"it refers to a storage of {shorten(size)} elements")
        if reference[5:] not in ((), (None,)):
            raise Malformed("a storage is a view of another, which is not supported")
        return self._storage(key, ELEMENTS[_STORAGES[name]], size)

    def _storage(self, key: str, element: Element, size: int) -> Storage:
        if key not in self.by_key:
            find = None if self._find is None else partial(self._find, key)
            self.by_key[key] = Storage(element, size, find)
        storage = self.by_key[key]
        if storage.element != element or storage.size != size:
            raise Malformed(f"its storage {shorten(key)} has two different sizes or types")
        return storage
