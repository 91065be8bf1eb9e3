"""`resrt.inspect`: what an engine file contains, without running it."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from resrt import _core
from resrt._support.arguments import path
from resrt.engine.backends import backends
from resrt.weights.metadata import fields


@dataclass(frozen=True)
class EngineFile:
    """An engine file of `size` bytes. `why_not` is why it cannot run here; None if it can."""

    path: str
    size: int
    info: _core.EngineInfo
    why_not: str | None

    def document(self, *, labels: bool = False, layers: bool = False) -> dict[str, Any]:
        """Return everything as a document for JSON, with the labels and layers only if asked."""
        info = self.info
        lists = {"labels": info.labels} if labels else {}
        if layers:
            lists["layers"] = info.layers.splitlines()
        return {
            "path": self.path,
            "size": self.size,
            "model": info.model,
            "backend": info.backend,
            "backend_version": info.backend_version,
            "runs_here": self.why_not is None,
            "why_not": self.why_not,
            "precision": info.precision,
            "input_shape": info.input_shape,
            "classes": info.classes,
            "outputs": info.outputs,
            "max_batch": info.max_batch,
            "kernels": [_kernel(choice) for choice in info.kernels],
            "kernels_processor": info.kernels_processor,
            "weights": info.weights,
            "weights_sha256": info.weights_sha256,
            "preprocessing": fields(info.preprocessing),
            "preprocessing_source": info.preprocessing_source,
            **lists,
        }


def inspect(file: str | PathLike[str]) -> EngineFile:
    """Return what an engine file contains, and whether it can run here.

    The backend that it was built for need not be installed. Raises FileError if there is no such
    file, and EngineFileError if it is damaged or not an engine file.
    """
    info = _core.inspect(path(file))
    return EngineFile(fspath(file), Path(file).stat().st_size, info, _why_not(info))


def _kernel(choice: _core.KernelChoice) -> dict[str, Any]:
    return {
        "kind": choice.kind,
        "layers": choice.layers,
        "kernel": choice.kernel,
        "is_default": choice.is_default,
        "times": [
            {"batch": time.batch, "ms": time.ms, "default_ms": time.default_ms}
            for time in choice.times
        ],
    }


def _why_not(info: _core.EngineInfo) -> str | None:
    backend = next((one for one in backends() if one.name == info.backend), None)
    if backend is None:
        return f"this version of resrt does not support the backend {info.backend}"
    if backend.why_not is not None:
        return backend.why_not
    if backend.why_build_only is not None:
        return backend.why_build_only
    is_portable = info.version_compatible or backend.loads_other_versions
    if backend.version != info.backend_version and not is_portable:
        return (
            f"it was built with version {info.backend_version}, but {backend.version} is installed"
        )
    if info.precision not in backend.precisions:
        return f"this device does not support {info.precision} natively"
    return None
