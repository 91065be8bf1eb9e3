"""Weights: a reader per file format, and the renaming of each source's parameters to ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from os import PathLike, fspath
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from resrt import _core
from resrt.errors import WeightsError
from resrt.weights import names, npz, pdparams, pytorch, safetensors_file, wts
from resrt.weights.checkpoint import Array, Checkpoint, map_file

__all__ = ["Checkpoint", "Weights", "fit", "load", "read"]

Weights: TypeAlias = dict[str, npt.NDArray[np.float32]]


class _Reader(Protocol):
    """What the module of each format has."""

    FORMAT: str  # as an error or a listing calls it

    def recognises(self, content: memoryview) -> bool: ...
    def read(self, content: memoryview, path: str) -> Checkpoint: ...


_READERS: tuple[_Reader, ...] = (safetensors_file, pdparams, pytorch, npz, wts)


def read(path: str | PathLike[str]) -> Checkpoint:
    """Read every array of a weights file, under the names that the file gives them.

    The format is recognised from the content: safetensors, PyTorch's .pth, NumPy's .npz,
    PaddleClas's .pdparams or TensorRTx's .wts. Nothing in a file is executed, and where the format
    allows it the arrays are a map of the file. Raises FileError where it cannot be read,
    WeightsError where it is of no known format or malformed.
    """
    file = fspath(path)
    content = map_file(file)
    for reader in _READERS:
        if reader.recognises(content):
            return reader.read(content, file)
    formats = ", ".join(reader.FORMAT for reader in _READERS)
    raise WeightsError(
        f"'{file}' is of no weights format that resrt knows ({formats}); "
        "convert it to safetensors, for instance with safetensors.torch.save_file"
    )


def load(path: str | PathLike[str], graph: _core.Graph) -> Weights:
    """Read a weights file for a graph: renamed to its parameters' names, float32, checked.

    Raises what `read` raises, and one WeightsError that lists every parameter that is missing,
    unexpected or of another shape.
    """
    checkpoint = read(path)
    return fit(checkpoint.arrays, graph, origin=f"'{fspath(path)}'", flat=checkpoint.flat)


def fit(
    arrays: Mapping[str, Array], graph: _core.Graph, *, origin: str = "they", flat: bool = False
) -> Weights:
    """Rename arrays to the graph's parameters, convert them to float32, and check them.

    `origin` is what an error calls the arrays. `flat` arrays, which have lost their shapes, take
    those of the parameters whose sizes they have. Raises WeightsError as `load` does.
    """
    ours = names.to_ours(arrays, graph)
    if flat:
        ours = _unflatten(ours, graph)
    weights = {name: _float32(name, array, origin) for name, array in ours.items()}
    try:
        _core.check_weights(graph, weights)
    except WeightsError as error:
        raise WeightsError(f"{origin}: {error}") from None
    return weights


def _unflatten(arrays: Mapping[str, Array], graph: _core.Graph) -> dict[str, Array]:
    shapes = {parameter.name: parameter.shape for parameter in graph.parameters}
    return {
        name: array.reshape(shapes[name])
        if name in shapes and array.size == math.prod(shapes[name])
        else array
        for name, array in arrays.items()
    }


def _float32(name: str, array: Array, origin: str) -> npt.NDArray[np.float32]:
    if not np.issubdtype(array.dtype, np.floating):
        raise WeightsError(f"{origin}: {name} has dtype {array.dtype}; parameters are floats")
    return np.ascontiguousarray(array, dtype=np.float32)
