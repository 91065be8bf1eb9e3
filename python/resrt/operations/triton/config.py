"""Triton's configuration of a model, as the text of its config.pbtxt."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias


class Enum(str):
    """A value that the text has without quotes, such as TYPE_FP32."""


Value: TypeAlias = "str | int | bool | Enum | Fields | Sequence[Any]"
Fields: TypeAlias = Mapping[str, Any]


def text(fields: Fields) -> str:
    """Return the fields of a protobuf message in its text format."""
    return "".join(f"{line}\n" for line in _lines(fields, ""))


def _lines(fields: Fields, indent: str) -> Iterator[str]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _message(f"{indent}{name}", value, indent)
        elif isinstance(value, (list, tuple)):
            if value and isinstance(value[0], Mapping):
                for one in value:
                    yield from _message(f"{indent}{name}", one, indent)
            else:
                yield f"{indent}{name}: [{', '.join(map(_scalar, value))}]"
        else:
            yield f"{indent}{name}: {_scalar(value)}"


def _message(name: str, fields: Fields, indent: str) -> Iterator[str]:
    yield f"{name} {{"
    yield from _lines(fields, f"{indent}  ")
    yield f"{indent}}}"


def _scalar(value: str | int | bool) -> str:
    # JSON writes numbers, booleans and texts in ASCII as this format does.
    return value if isinstance(value, Enum) else json.dumps(value)


def tensor(name: str, data_type: str, dims: Sequence[int]) -> dict[str, Any]:
    """Return the description of an input or output; `dims` are those of one image."""
    return {"name": name, "data_type": Enum(f"TYPE_{data_type}"), "dims": list(dims)}


def parameters(values: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return parameters for the backend, by their names."""
    return [{"key": key, "value": {"string_value": value}} for key, value in values.items()]


def warm_up(sizes: Sequence[int], images: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one inference of each batch size for a model with that one input."""
    value = {name: images[name] for name in ("data_type", "dims")} | {"zero_data": True}
    return [
        {
            "name": f"batch of {size}",
            "batch_size": size,
            "inputs": {"key": images["name"], "value": value},
        }
        for size in sizes
    ]
