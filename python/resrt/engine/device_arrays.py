"""Batches in GPU memory, read through the protocols by which libraries exchange arrays.

These are DLPack (https://dmlc.github.io/dlpack) and, for libraries without it, the CUDA array
interface (https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html).
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from resrt import _core
from resrt.errors import InputError

DEFAULT_STREAM = 1  # the number of CUDA's default stream in both protocols

# DLPack's device types.
_HOST = (1, 3, 11)  # ordinary memory, and memory that is pinned for CUDA or ROCm
_CUDA = (2, 13)  # a GPU's own memory, and managed memory


class OnDevice(Protocol):
    """An array in GPU memory, of PyTorch, CuPy, Numba or JAX."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Batch:
    """A batch as its library describes it; `device` is None if unknown.

    The batch is ready in `stream`, and `owner` keeps its memory alive.
    """

    pointer: int
    shape: tuple[int, ...]
    is_float32: bool
    is_contiguous: bool
    device: int | None
    stream: int
    owner: object


def is_on_device(array: object) -> bool:
    """Return whether an array says that it is not in host memory."""
    if isinstance(array, np.ndarray):
        return False
    if hasattr(array, "__dlpack_device__"):
        return array.__dlpack_device__()[0] not in _HOST
    return hasattr(array, "__cuda_array_interface__")


def infer(core: _core.Engine, array: Any, stream: int | None) -> _core.LogitsOnDevice:
    """Return the logits of a batch in GPU memory; see `resrt.Engine.infer`."""
    batch = _read(array, None if stream is None else _checked(stream))
    info = core.info
    expected = ("N", *info.input_shape)
    if len(batch.shape) != len(expected) or batch.shape[1:] != info.input_shape:
        raise InputError(
            f"{info.model} requires a batch of shape {_text(expected)}, not {batch.shape}"
        )
    if not batch.is_float32:
        raise InputError(f"{info.model} requires a float32 batch; convert it with .float()")
    if not batch.is_contiguous:
        raise InputError(
            f"{info.model} requires a batch that is contiguous in GPU memory; copy it with "
            ".contiguous()"
        )
    device = batch.device
    if device is None:  # an empty array may have no pointer
        device = core.device_of(batch.pointer) if batch.shape[0] else core.device
    if core.device is not None and device != core.device:
        raise InputError(
            f"the batch is in the memory of cuda:{device}, but the engine runs on "
            f"cuda:{core.device}; copy the batch there, or load the engine with "
            f"device='cuda:{device}'"
        )
    return core.infer_on_device(batch.pointer, batch.shape[0], batch.stream, batch.owner)


def _read(array: Any, stream: int | None) -> Batch:
    if hasattr(array, "__dlpack__"):
        return _from_dlpack(array, DEFAULT_STREAM if stream is None else stream)
    return _from_interface(array.__cuda_array_interface__, stream, array)


def _from_dlpack(array: Any, stream: int) -> Batch:
    """Read an array. Its library makes it ready in `stream`."""
    kind, device = array.__dlpack_device__()
    if kind not in _CUDA:
        raise InputError(
            "the batch is neither in host memory nor in an NVIDIA GPU's memory (its DLPack device "
            f"type is {int(kind)}); copy it to one of these"
        )
    try:
        foreign = _core.ForeignArray(array.__dlpack__(stream=stream))
    except (BufferError, RuntimeError) as error:
        raise InputError(f"cannot read the batch's memory: {error}") from None
    return Batch(
        pointer=foreign.pointer,
        shape=foreign.shape,
        is_float32=foreign.is_float32,
        is_contiguous=foreign.is_contiguous,
        device=device,
        stream=stream,
        owner=foreign,
    )


def _from_interface(interface: dict[str, Any], stream: int | None, owner: object) -> Batch:
    """Read an array. It is ready in the caller's stream, or else in the one that it names."""
    shape = tuple(interface["shape"])
    pointer, _ = interface["data"]
    if interface.get("mask") is not None:
        raise InputError("the batch has a mask, which engines do not support; remove the mask")
    own = interface.get("stream")
    if stream is None:
        stream = DEFAULT_STREAM if own is None else own
    return Batch(
        pointer=pointer,
        shape=shape,
        is_float32=interface["typestr"] == "<f4",
        is_contiguous=_is_contiguous(shape, interface.get("strides")),
        device=None,
        stream=stream,
        owner=owner,
    )


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...] | None) -> bool:
    """Return whether float32 values are contiguous; the stride of an axis of 1 is irrelevant."""
    return strides is None or all(
        size == 1 or stride == 4 * math.prod(shape[axis + 1 :])
        for axis, (size, stride) in enumerate(zip(shape, strides, strict=True))
    )


def _checked(stream: object) -> int:
    """Return a stream's handle; PyTorch and CuPy call the default stream 0."""
    try:
        handle = operator.index(stream)  # type: ignore[arg-type]
    except TypeError:
        handle = -1
    if isinstance(stream, bool) or not 0 <= handle < 2**64:
        raise InputError(
            "stream must be the handle of a CUDA stream, such as "
            f"torch.cuda.current_stream().cuda_stream, not {stream!r}"
        )
    return handle or DEFAULT_STREAM


def _text(shape: tuple[object, ...]) -> str:
    return f"({', '.join(map(str, shape))})"
