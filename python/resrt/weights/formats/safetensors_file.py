"""The safetensors format (https://huggingface.co/docs/safetensors), as timm publishes weights."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import safetensors

from resrt.errors import WeightsError
from resrt.weights.formats.checkpoint import Array, Checkpoint, reported, shaped, widen_bfloat16

FORMAT = "safetensors"

# Python's objects for a header take up to 20 times its size.
_LONGEST_HEADER = 2 << 20

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


def read(content: memoryview, path: str) -> Checkpoint:
    """Return the arrays, views of the content. Raises WeightsError.

    bfloat16 is widened to float32.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    if _LONGEST_HEADER < end <= len(content):
        raise WeightsError(
            f"'{path}' has a header of {end} bytes; resrt reads up to {_LONGEST_HEADER}, enough "
            "for more arrays than any network has. Save only the network's weights"
        )
    try:
        # The library checks that each array fills its shape and that all of them fill the file.
        with safetensors.safe_open(path, framework="np"):
            pass
    except (safetensors.SafetensorError, OSError) as error:
        raise WeightsError(
            f"'{path}' is not a valid safetensors file ({error}); copy or download it again"
        ) from None
    header: dict[str, dict[str, Any]] = json.loads(bytes(content[8:end]))
    metadata = header.pop("__metadata__", {})
    arrays: dict[str, Array] = {}
    for name, entry in header.items():
        if entry["dtype"] not in _DTYPES:
            raise WeightsError(
                f"'{path}': {name} has the unsupported dtype {entry['dtype']}; resrt reads "
                f"{', '.join(_DTYPES)}"
            )
        begin, stop = entry["data_offsets"]
        array = np.frombuffer(content[end + begin : end + stop], _DTYPES[entry["dtype"]])
        with reported(path, "safetensors file"):
            array = shaped(array, entry["shape"])
        arrays[name] = widen_bfloat16(array) if entry["dtype"] == "BF16" else array
    return Checkpoint(FORMAT, arrays, metadata)
