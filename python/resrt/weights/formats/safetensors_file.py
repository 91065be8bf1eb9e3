"""The safetensors format (https://huggingface.co/docs/safetensors), as timm publishes weights."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from resrt.errors import WeightsError
from resrt.weights.formats.checkpoint import (
    Array,
    Checkpoint,
    Malformed,
    reported,
    shaped,
    shorten,
    shown,
    widen_bfloat16,
)
from resrt.weights.formats.content import File
from resrt.weights.metadata import ours

FORMAT = "safetensors"

# Python's objects for a header take up to 20 times its size.
_LONGEST_HEADER = 2 << 20
_MOST_OBJECTS = 40_000

_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # widened below: NumPy has no bfloat16
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


def recognises(content: memoryview) -> bool:
    """Return whether this begins with the length of a header and the header's brace."""
    is_length = int.from_bytes(content[:8], "little") < 1 << 40  # unlike a text or another format
    return len(content) > 8 and is_length and content[8] == ord("{")


def check_size(file: File, path: str) -> None:
    """Raise WeightsError unless the file has the size that its header implies.

    Only the header is read.
    """
    end = 8 + int.from_bytes(file.read(0, 8), "little")
    _check_header_size(end, file.size, path)
    with reported(path, "safetensors file"):
        _check_truncated(end, file.size)
        header, _ = _header(file.read(0, end), end)
        _check_adjacent(
            {name: _place(name, entry) for name, entry in header.items()}, file.size - end
        )


def read(content: memoryview, path: str) -> Checkpoint:
    """Return the arrays, views of the content. Raises WeightsError.

    bfloat16 is widened to float32.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    _check_header_size(end, len(content), path)
    with reported(path, "safetensors file"):
        header, metadata = _header(content, end)
        data = content[end:]
        places = {name: _place(name, entry) for name, entry in header.items()}
        _check_adjacent(places, len(data))
        arrays: dict[str, Array] = {}
        for name, (begin, stop) in places.items():
            dtype = header[name]["dtype"]
            if dtype not in _DTYPES:
                raise WeightsError(
                    f"'{path}': {shown(name)} has the unsupported dtype {shorten(dtype)}; resrt "
                    f"reads {', '.join(_DTYPES)}"
                )
            if (stop - begin) % _DTYPES[dtype].itemsize:
                raise Malformed(f"{shorten(name)} of {dtype} has {stop - begin} bytes")
            array = np.frombuffer(data[begin:stop], _DTYPES[dtype])
            array = shaped(array, header[name]["shape"])
            arrays[name] = widen_bfloat16(array) if dtype == "BF16" else array
    return Checkpoint(FORMAT, arrays, ours(metadata))


def _check_header_size(end: int, size: int, path: str) -> None:
    if _LONGEST_HEADER < end <= size:
        raise WeightsError(
            f"'{path}' has a header of {end} bytes; resrt reads up to {_LONGEST_HEADER}, enough "
            "for more arrays than any network has. Save only the network's weights"
        )


def _check_truncated(end: int, size: int) -> None:
    if end > size:
        raise Malformed(f"it is truncated: its header ends at byte {end} of {size}")


def _header(content: memoryview, end: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the entries of the arrays, which are not checked, and the metadata."""
    _check_truncated(end, len(content))
    objects = 0

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal objects
        objects += 1
        if objects > _MOST_OBJECTS:
            raise Malformed(f"its header has more than {_MOST_OBJECTS} objects")
        found = dict(pairs)
        if len(found) < len(pairs):
            raise Malformed("its header has two entries with the same name")
        return found

    try:
        header = json.loads(str(content[8:end], "utf-8"), object_pairs_hook=unique)
        metadata = header.pop("__metadata__", {})
        # JSON can also contain other values than texts, and texts with half of a character.
        "".join([*header, *metadata, *metadata.values()]).encode()
    except (AttributeError, TypeError, ValueError, RecursionError):
        raise Malformed("its header is not valid JSON, or its metadata are not texts") from None
    return header, metadata


def _place(name: str, entry: object) -> tuple[int, int]:
    """Return where an array begins and ends."""
    match entry:
        case {"dtype": str(), "shape": [*shape], "data_offsets": [begin, stop]}:
            if all(type(number) is int for number in (*shape, begin, stop)):
                return begin, stop
    raise Malformed(f"the entry of {shorten(name)} has no valid dtype, shape and data_offsets")


def _check_adjacent(places: dict[str, tuple[int, int]], size: int) -> None:
    """Raise Malformed if arrays overlap, have gaps between them or do not fill the file."""
    position = 0
    for begin, stop in sorted(places.values()):
        if begin != position or stop < begin:
            raise Malformed(f"an array begins at byte {begin}, expected {position}")
        position = stop
    if position != size:
        raise Malformed(f"its arrays have {position} bytes, but {size} follow its header")
