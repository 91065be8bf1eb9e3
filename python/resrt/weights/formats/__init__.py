"""Weights files: one reader per format."""

from __future__ import annotations

import dataclasses
import os
from os import PathLike
from pathlib import Path
from typing import Protocol

from resrt._support.arguments import path as checked_path
from resrt.errors import WeightsError
from resrt.weights import hub
from resrt.weights.formats import (
    npz,
    onnx_file,
    pdiparams,
    pdparams,
    pytorch,
    safetensors_file,
    wts,
)
from resrt.weights.formats.checkpoint import Checkpoint, shown
from resrt.weights.formats.content import opened
from resrt.weights.formats.shards import architecture_beside, files_of
from resrt.weights.formats.states import select


class _Reader(Protocol):
    """What the module of each format provides."""

    FORMAT: str  # the name for users

    def recognises(self, content: memoryview) -> bool: ...
    def read(self, content: memoryview, path: str) -> Checkpoint: ...


_READERS: tuple[_Reader, ...] = (
    safetensors_file,
    pdparams,
    pdiparams,
    pytorch,
    npz,
    onnx_file,
    wts,
)

_FROM_KERAS = "load it where it was made, and save its arrays by name with numpy.savez"
_FROM_SOURCE = "give the weights or the ONNX file that it was made from"
_PROGRAM = "the program of a model that Paddle exported for inference, without its parameters"
# What else a file may be: where its mark is, the mark, what it is, and what to do.
_OTHERS = (
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (.h5), as Keras writes", _FROM_KERAS),
    (4, b"TFL3", "a TensorFlow Lite model (.tflite)", _FROM_SOURCE),
    (4, b"ORTM", "an ONNX Runtime model (.ort)", _FROM_SOURCE),
    (0, b"GGUF", "a GGUF file", _FROM_SOURCE),
    (0, b"<?xml", "an XML file, such as OpenVINO's IR", _FROM_SOURCE),
    (0, b'{"base_code"', _PROGRAM, "give the .pdiparams file beside it"),
    (0, b"ftrt", "a TensorRT engine", _FROM_SOURCE),
    (0, b"version https://git-lfs", "a pointer of Git LFS", "download the file with git lfs pull"),
    (0, b"<!DOCTYPE", "a web page", "download the file itself"),
    (0, b"<html", "a web page", "download the file itself"),
    (0, b"\x1f\x8b", "compressed with gzip", "decompress it first"),
)

# Files without a mark, by the ends of their names.
_NAMED = (
    (
        (".onnx.data", ".onnx_data"),
        "the external data of an ONNX file, without the names and shapes of its arrays",
        "give the .onnx file that belongs to it, beside which it lies",
    ),
    (
        (".pdmodel",),
        _PROGRAM,
        "give the .pdiparams file beside it",
    ),
)

_BEGINNING = 1024  # bytes, from which every format is recognised


def read(path: str | PathLike[str], *, key: str | None = None) -> Checkpoint:
    """Read the arrays of a network from a weights file, under the file's own names.

    The prefixes of wrappers, such as "module.", are removed from the names, and what does not
    belong to the network is left aside. If a file has several state dicts or networks, the moving
    average is preferred; `key` names another entry of a checkpoint ("state_dict"), or a prefix of
    names ("teacher"). A folder, or an index of several files (model.safetensors.index.json), as
    Transformers and Accelerate write them, is read as one file. "hf-hub:owner/name" names a
    repository on the Hugging Face hub, which is downloaded by huggingface_hub.

    The format is recognised from the content: safetensors, PyTorch's .pth, PaddleClas's .pdparams,
    Paddle's .pdiparams with its program beside it, ONNX, NumPy's .npz or TensorRTx's .wts. Nothing
    in a file is executed. The file is read into memory, once, and if the format allows it, the
    arrays are views of that memory. Raises FileError if the file cannot be read or changes
    meanwhile, and WeightsError if its format is not supported or it is not valid. Raises
    DownloadError and PackageError for weights on the hub.
    """
    if isinstance(path, str) and hub.is_name(path):
        return dataclasses.replace(read(hub.fetch(path), key=key), file=hub.short(path))
    file = os.fsdecode(checked_path(path))
    files, listed = files_of(file)
    folder = str(Path(files[0]).parent)
    beside = architecture_beside(folder)
    if not listed:
        one = _read(files[0], key)
        own = {**beside, **one.metadata}
        return dataclasses.replace(one, file=Path(file).name, folder=folder, metadata=own)
    parts = [_read(part, None, selects=False) for part in files]
    arrays = {name: array for part in parts for name, array in part.arrays.items()}
    if missing := sorted(listed - arrays.keys()):
        raise WeightsError(
            f"'{file}' lists {len(missing)} arrays that its files do not have, such as "
            f"{shown(missing[0])}; copy or download all files again"
        )
    contents = tuple(content for part in parts for content in part.contents)
    whole = dataclasses.replace(
        parts[0],
        arrays=arrays,
        metadata={**beside, **parts[0].metadata},
        contents=contents,
        left_aside=(),
        file=Path(file).name,
        folder=folder,
    )
    return select(whole, file, key)


def _read(file: str, key: str | None, *, selects: bool = True) -> Checkpoint:
    """Read a single file."""
    with opened(file) as source:
        # A file of another format is refused before the rest of it is read.
        reader = _reader_of(source.read(0, min(source.size, _BEGINNING)), file)
        if reader is safetensors_file:
            safetensors_file.check_size(source, file)
        content = source.read(0, source.size)
    reader = _reader_of(content, file)
    checkpoint = _content(reader, content, file, key) if selects else reader.read(content, file)
    return dataclasses.replace(
        checkpoint,
        contents=(content, *checkpoint.contents),
    )


def _content(reader: _Reader, content: memoryview, file: str, key: str | None) -> Checkpoint:
    """Return the arrays of the network in a file's content."""
    if reader is not pytorch:
        return select(reader.read(content, file), file, key)
    checkpoint = pytorch.read(content, file, key)
    return select(checkpoint, file, None if checkpoint.metadata.get("entry") == key else key)


def _reader_of(content: memoryview, file: str) -> _Reader:
    for reader in _READERS:
        if reader.recognises(content):
            return reader
    for at, magic, kind, advice in _OTHERS:
        if bytes(content[at : at + len(magic)]) == magic:
            raise WeightsError(
                f"unsupported weights format: '{file}' is {kind}, not a weights file that resrt "
                f"reads; {advice}"
            )
    for ends, kind, advice in _NAMED:
        if file.endswith(ends):
            raise WeightsError(f"unsupported weights format: '{file}' is {kind}; {advice}")
    formats = ", ".join(reader.FORMAT for reader in _READERS)
    raise WeightsError(
        f"unsupported weights format: '{file}' is none of {formats}; convert it to safetensors, "
        "for example with safetensors.torch.save_file"
    )
