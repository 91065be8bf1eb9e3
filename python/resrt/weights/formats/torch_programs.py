"""The parameters in PyTorch's archives of whole programs: TorchScript, and torch.export's .pt2.

Only tensors are read. The programs, which are source code or graphs beside them, are not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from resrt.weights.formats.checkpoint import (
    Malformed,
    checked_shape,
    checked_sizes,
    shorten,
)
from resrt.weights.formats.inert import Settings
from resrt.weights.formats.torch_tensors import ELEMENTS, Storage, Storages, Tensor, known_names
from resrt.weights.formats.unpickler import Unpickler

# A module may contain others many times over, so that a small file would have endless names.
_MOST_MEMBERS = 50_000
_LONGEST_NAME = 1000
_LONGEST_CONFIG = 4 << 20

# torch.export's numbers of dtypes (torch/_export/serde/schema.py).
_EXPORTED_DTYPES = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    12: "bool",
    13: "bfloat16",
}

Find = Callable[[str], memoryview]


class _ScriptNames(dict[str, "Callable[..., object] | None"]):
    """The names that a TorchScript pickle may ask for: the classes of its modules as well."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or str(name).startswith("__torch__.")

    def __missing__(self, name: str) -> Callable[..., object]:
        return Settings


def script_tensors(content: memoryview, member: Find) -> dict[str, Tensor]:
    """Return the parameters and buffers of a TorchScript module by name; none if it has none.

    `member` returns a member of the archive. Raises Malformed or Refused.
    """
    names = _ScriptNames(known_names(content))
    storages = Storages(lambda key: member(f"data/{key}"))
    module = Unpickler(member("data.pkl"), names, storages, passes_foreign=True).load()
    tensors: dict[str, Tensor] = {}
    left = [("", module)]
    count = 0
    while left:
        prefix, value = left.pop()
        if isinstance(value, Tensor):
            tensors[prefix] = value
        if not isinstance(value, Settings):
            continue
        # The last member is taken from the list first.
        for name, part in reversed(value.values.items()):
            count += 1
            if count > _MOST_MEMBERS or len(prefix) > _LONGEST_NAME:
                raise Malformed(f"its modules have more than {_MOST_MEMBERS} members")
            if isinstance(name, str):
                left.append((f"{prefix}.{name}" if prefix else name, part))
    return tensors


def exported_tensors(member: Find) -> dict[str, Tensor]:
    """Return the state of a program that torch.export saved. Raises Malformed."""
    config = _json(member("data/weights/model_weights_config.json")).get("config")
    if not isinstance(config, dict) or len(config) > _MOST_MEMBERS:
        raise Malformed("its list of weights is invalid")
    return {name: _exported(name, entry, member) for name, entry in config.items()}


def _exported(name: str, entry: object, member: Find) -> Tensor:
    match entry:
        case {"use_pickle": True}:
            raise Malformed(f"{shorten(name)} is stored as a pickle of its own")
        case {
            "path_name": str() as path,
            "tensor_meta": {
                "dtype": int() as number,
                "sizes": [*sizes],
                "strides": [*strides],
                "storage_offset": offset,
            },
        } if number in _EXPORTED_DTYPES:
            element = ELEMENTS[_EXPORTED_DTYPES[number]]
        case _:
            raise Malformed(f"the entry of {shorten(name)} has no supported dtype, sizes and path")
    data = member(f"data/weights/{path}")
    shape = checked_shape([_as_int(size) for size in sizes])
    steps = checked_sizes([_as_int(stride) for stride in strides])
    (start,) = checked_sizes([_as_int(offset)])
    if len(steps) != len(shape):
        raise Malformed(f"the entry of {shorten(name)} has {len(steps)} strides")
    storage = Storage(element, len(data) // element.dtype.itemsize)
    storage.fill(data)
    return Tensor(storage, element, start, shape, steps)


def _as_int(value: object) -> object:
    return value.get("as_int") if isinstance(value, dict) else value


def _json(content: memoryview) -> Mapping[str, object]:
    if len(content) > _LONGEST_CONFIG:
        raise Malformed(f"its list of weights has {len(content)} bytes")
    try:
        document = json.loads(str(content, "utf-8"))
    except (ValueError, RecursionError):
        raise Malformed("its list of weights is not valid JSON") from None
    if not isinstance(document, dict):
        raise Malformed("its list of weights is not a JSON object")
    return document
