"""Weights: a reader per file format, and the renaming of each source's parameters to ours."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from resrt import _core
from resrt.errors import FileError, WeightsError
from resrt.weights import names, pdparams, safetensors_file


class _Reader(Protocol):
    """What each reader's module has."""

    def recognises(self, content: bytes) -> bool: ...
    def read(self, content: bytes, path: str) -> dict[str, npt.NDArray[np.generic]]: ...


Arrays: TypeAlias = dict[str, npt.NDArray[np.float32]]

_READERS: tuple[_Reader, ...] = (safetensors_file, pdparams)

__all__ = ["fit", "load", "read"]


def read(path: str | PathLike[str]) -> dict[str, npt.NDArray[np.generic]]:
    """Read every array of a weights file, under the names that the file gives them.

    The format is recognised from the content: safetensors, or PaddleClas's .pdparams. Nothing in
    a file is executed. Raises FileError where it cannot be read, WeightsError where it is of no
    known format or malformed.
    """
    file = Path(path)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise FileError(f"cannot read the weights '{file}': {error.strerror}") from None
    for reader in _READERS:
        if reader.recognises(content):
            return reader.read(content, fspath(path))
    raise WeightsError(
        f"'{file}' is of no weights format that resrt knows: safetensors or PaddleClas's "
        ".pdparams. Convert it to safetensors, for instance with safetensors.torch.save_file"
    )


def load(path: str | PathLike[str], graph: _core.Graph) -> Arrays:
    """Read a weights file for a graph: renamed to its parameters' names, float32, checked.

    Raises what `read` raises, and one WeightsError that lists every parameter that is missing,
    unexpected or of another shape.
    """
    return fit(read(path), graph, origin=f"'{fspath(path)}'")


def fit(
    arrays: Mapping[str, npt.NDArray[np.generic]], graph: _core.Graph, *, origin: str = "they"
) -> Arrays:
    """Rename arrays to the graph's parameters, convert them to float32, and check them.

    `origin` is what an error calls the arrays. Raises WeightsError as `load` does.
    """
    weights = {
        name: _float32(name, array, origin) for name, array in names.to_ours(arrays, graph).items()
    }
    try:
        _core.check_weights(graph, weights)
    except WeightsError as error:
        raise WeightsError(f"{origin}: {error}") from None
    return weights


def _float32(name: str, array: npt.NDArray[np.generic], origin: str) -> npt.NDArray[np.float32]:
    if not np.issubdtype(array.dtype, np.floating):
        raise WeightsError(f"{origin}: {name} has dtype {array.dtype}; parameters are floats")
    return np.ascontiguousarray(array, dtype=np.float32)
