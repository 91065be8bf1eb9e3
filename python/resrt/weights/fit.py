"""From the arrays of a checkpoint to the parameters of a graph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from resrt import _core
from resrt.errors import WeightsError
from resrt.weights import identify, names
from resrt.weights.formats import read
from resrt.weights.formats.checkpoint import Array, Checkpoint, shown

Weights: TypeAlias = dict[str, npt.NDArray[np.float32]]


def load(path: str | PathLike[str], graph: _core.Graph) -> Weights:
    """Read a weights file for a graph: as float32, under the names of the graph's parameters.

    An ONNX file whose names do not fit is matched by its graph. Raises what `read` raises, and one
    WeightsError that lists every parameter that is missing, unexpected or has another shape, or
    says where an ONNX file differs from the graph.
    """
    return fit_checkpoint(read(path), graph, origin=f"'{fspath(path)}'")


def fit_checkpoint(checkpoint: Checkpoint, graph: _core.Graph, *, origin: str) -> Weights:
    """Fit the content of a file to a graph, as `load` does."""
    identify.check_told(checkpoint, graph, origin)
    arrays = checkpoint.arrays
    if checkpoint.fit is not None:
        shapes = {name: array.shape for name, array in names.to_ours(arrays, graph).items()}
        if shapes != _shapes(graph):
            arrays = checkpoint.fit(graph)
    return fit(arrays, graph, origin=origin, flat=checkpoint.flat)


def fit(
    arrays: Mapping[str, Array],
    graph: _core.Graph,
    *,
    origin: str = "the arrays",
    flat: bool = False,
) -> Weights:
    """Rename arrays to the graph's parameters, convert them to float32, and check them.

    `origin` is what an error calls the arrays. If they are `flat`, because a format lost their
    shapes, they take those of parameters with the same size. Raises WeightsError as `load` does.
    """
    checked = as_arrays(arrays, origin)
    ours = names.to_ours(checked, graph)
    if flat:
        ours = _unflatten(ours, graph)
    weights = {name: _float32(name, array, origin) for name, array in ours.items()}
    try:
        known = _shapes(graph)
        _core.check_weights(
            graph, {k if k in known else shown(k): array for k, array in weights.items()}
        )
    except WeightsError as error:
        raise WeightsError(f"{origin}: {error}{_better_match(checked, graph)}") from None
    return weights


def as_arrays(arrays: Mapping[str, object], origin: str) -> dict[str, Array]:
    """Convert what a caller gives as arrays. Raises WeightsError."""
    converted: dict[str, Array] = {}
    for name, value in arrays.items():
        if not isinstance(name, str):
            raise WeightsError(f"{origin}: parameter names must be str, not {type(name).__name__}")
        try:
            array = np.asarray(_on_the_cpu(value))
        except Exception as error:
            # Other libraries' arrays convert themselves and fail in their own ways, for example a
            # tensor of bfloat16.
            raise WeightsError(
                f"{origin}: {shown(name)} cannot be converted to a NumPy array: {error}"
            ) from None
        if array.dtype == object:
            raise WeightsError(
                f"{origin}: {shown(name)} must be an array of numbers, not {type(value).__name__}"
            )
        converted[name] = array
    return converted


def _on_the_cpu(value: Any) -> Any:
    """Return a PyTorch tensor as one that NumPy converts, and anything else as it is.

    NumPy has no bfloat16, and converts no tensor with a gradient or on a GPU.
    """
    if not all(hasattr(value, name) for name in ("detach", "cpu", "dtype")):
        return value
    tensor = value.detach().cpu()
    return tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor


def _better_match(arrays: Mapping[str, Array], graph: _core.Graph) -> str:
    """Return a hint if the arrays are those of another network of the catalog."""
    matches = identify.nearest_networks(arrays)
    if not matches or graph.name in [match.network for match in matches]:
        return ""
    return f" They look like the weights of {matches[0].network}."


def _shapes(graph: _core.Graph) -> dict[str, tuple[int, ...]]:
    return {parameter.name: parameter.shape for parameter in graph.parameters}


def _unflatten(arrays: Mapping[str, Array], graph: _core.Graph) -> dict[str, Array]:
    shapes = _shapes(graph)
    return {
        name: array.reshape(shapes[name])
        if name in shapes and array.size == math.prod(shapes[name])
        else array
        for name, array in arrays.items()
    }


def _float32(name: str, array: Array, origin: str) -> npt.NDArray[np.float32]:
    if not np.issubdtype(array.dtype, np.floating):
        raise WeightsError(
            f"{origin}: {shown(name)} has the dtype {array.dtype}; parameters are floats"
        )
    try:
        with np.errstate(over="ignore"):  # what becomes infinite is an error of its own
            return np.require(array, np.float32, ["C_CONTIGUOUS", "ALIGNED"])
    except MemoryError:
        raise WeightsError(
            f"{origin}: {shown(name)} of shape {array.shape} is larger than this machine's memory"
        ) from None
