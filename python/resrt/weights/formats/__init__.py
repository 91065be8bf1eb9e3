"""Weights files: one reader per format."""

from __future__ import annotations

import dataclasses
import os
from os import PathLike
from typing import Protocol

from resrt._support.arguments import path as checked_path
from resrt.errors import WeightsError
from resrt.weights.formats import npz, onnx_file, pdparams, pytorch, safetensors_file, wts
from resrt.weights.formats.checkpoint import Checkpoint
from resrt.weights.formats.content import opened


class _Reader(Protocol):
    """What the module of each format provides."""

    FORMAT: str  # the name for users

    def recognises(self, content: memoryview) -> bool: ...
    def read(self, content: memoryview, path: str) -> Checkpoint: ...


_READERS: tuple[_Reader, ...] = (safetensors_file, pdparams, pytorch, npz, onnx_file, wts)

_BEGINNING = 1024  # bytes, from which every format is recognised


def read(path: str | PathLike[str]) -> Checkpoint:
    """Read all arrays of a weights file, under the file's own names.

    The format is recognised from the content: safetensors, PyTorch's .pth, PaddleClas's .pdparams,
    ONNX, NumPy's .npz or TensorRTx's .wts. Nothing in a file is executed. The file is read into
    memory, once, and if the format allows it, the arrays are views of that memory. Raises FileError
    if the file cannot be read or changes meanwhile, and WeightsError if its format is not supported
    or it is not valid.
    """
    file = os.fsdecode(checked_path(path))
    with opened(file) as source:
        # A file of another format is refused before the rest of it is read.
        _reader_of(source.read(0, min(source.size, _BEGINNING)), file)
        content = source.read(0, source.size)
    checkpoint = _reader_of(content, file).read(content, file)
    return dataclasses.replace(checkpoint, contents=(content, *checkpoint.contents))


def _reader_of(content: memoryview, file: str) -> _Reader:
    for reader in _READERS:
        if reader.recognises(content):
            return reader
    formats = ", ".join(reader.FORMAT for reader in _READERS)
    raise WeightsError(
        f"unsupported weights format: '{file}' is none of {formats}; convert it to safetensors, "
        "for example with safetensors.torch.save_file"
    )
