"""The safetensors format (https://huggingface.co/docs/safetensors), as timm publishes weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors

from resrt.errors import WeightsError

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


def recognises(content: bytes) -> bool:
    """Whether it begins as such a file does: the length of a header, and the header's brace."""
    return len(content) > 8 and content[8:9] == b"{"


def read(content: bytes, path: str) -> dict[str, npt.NDArray[np.generic]]:
    """Every array by its name; bfloat16 is widened to float32. Raises WeightsError."""
    try:
        entries: list[tuple[str, dict[str, Any]]]
        entries = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise WeightsError(
            f"'{path}' is no sound safetensors file ({error}); copy or download it again"
        ) from None
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for name, entry in entries:
        if entry["dtype"] not in _DTYPES:
            raise WeightsError(
                f"'{path}': {name} has the dtype {entry['dtype']}; resrt reads {', '.join(_DTYPES)}"
            )
        array = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
        arrays[name] = widen_bfloat16(array) if entry["dtype"] == "BF16" else array
    return arrays


def widen_bfloat16(bits: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """float32 from the bits of bfloat16, which are its upper half."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
