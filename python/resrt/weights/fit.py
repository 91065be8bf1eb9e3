"""From a checkpoint's arrays to the parameters of a graph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from os import PathLike, fspath
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from resrt import _core
from resrt.errors import WeightsError
from resrt.weights import identify, names
from resrt.weights.formats import read
from resrt.weights.formats.checkpoint import Array, Checkpoint

Weights: TypeAlias = dict[str, npt.NDArray[np.float32]]


def load(path: str | PathLike[str], graph: _core.Graph) -> Weights:
    """Read a weights file for a graph: renamed to its parameters' names, float32, checked.

    A file that does not fit by its names, but has more to go by (ONNX), is fitted by that. Raises
    what `read` raises, and one WeightsError that lists every parameter that is missing, unexpected
    or of another shape, or says where an ONNX file leaves the graph.
    """
    return fit_checkpoint(read(path), graph, origin=f"'{fspath(path)}'")


def fit_checkpoint(checkpoint: Checkpoint, graph: _core.Graph, *, origin: str) -> Weights:
    """Do as `load` does, with what a file held."""
    arrays = checkpoint.arrays
    if checkpoint.fit is not None and not _fits_by_name(arrays, graph):
        arrays = checkpoint.fit(graph)
    return fit(arrays, graph, origin=origin, flat=checkpoint.flat)


def fit(
    arrays: Mapping[str, Array], graph: _core.Graph, *, origin: str = "they", flat: bool = False
) -> Weights:
    """Rename arrays to the graph's parameters, convert them to float32, and check them.

    `origin` is what an error calls the arrays. `flat` arrays, which have lost their shapes, take
    those of the parameters whose sizes they have. Raises WeightsError as `load` does.
    """
    arrays = {_name(name, origin): _array(name, array, origin) for name, array in arrays.items()}
    ours = names.to_ours(arrays, graph)
    if flat:
        ours = _unflatten(ours, graph)
    weights = {name: _float32(name, array, origin) for name, array in ours.items()}
    try:
        _core.check_weights(graph, weights)
    except WeightsError as error:
        raise WeightsError(f"{origin}: {error}{_better_match(arrays, graph)}") from None
    return weights


def _better_match(arrays: Mapping[str, Array], graph: _core.Graph) -> str:
    """A hint, if the arrays are those of another network of the catalog."""
    matches = identify.nearest_networks(arrays)
    if not matches or graph.name in [match.network for match in matches]:
        return ""
    return f" They look like the weights of {matches[0].network}."


def _name(name: object, origin: str) -> str:
    if not isinstance(name, str):
        raise WeightsError(f"{origin}: parameters have names, not {type(name).__name__} keys")
    return name


def _array(name: str, array: object, origin: str) -> Array:
    try:
        return np.asarray(array)
    except Exception as error:
        # What is no array converts itself, and fails in its own way: a tensor of bfloat16, say.
        raise WeightsError(
            f"{origin}: {name} is no NumPy array, nor becomes one: {error}"
        ) from None


def _fits_by_name(arrays: Mapping[str, Array], graph: _core.Graph) -> bool:
    shapes = {name: array.shape for name, array in names.to_ours(arrays, graph).items()}
    return shapes == {parameter.name: parameter.shape for parameter in graph.parameters}


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
    return np.require(array, np.float32, ["C_CONTIGUOUS", "ALIGNED"])
