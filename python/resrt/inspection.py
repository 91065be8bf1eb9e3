"""What an engine file is, found out without running it."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path

from resrt import _core
from resrt._arguments import path
from resrt.engine import backends


@dataclass(frozen=True)
class EngineFile:
    """An engine file of `size` bytes. `why_not` says why it cannot run here; None: it can."""

    path: str
    size: int
    info: _core.EngineInfo
    why_not: str | None


def inspect(file: str | PathLike[str]) -> EngineFile:
    """Return what an engine file is, and whether it can be run here.

    The backend that it was built for need not be installed. Raises FileError where there is no such
    file, EngineFileError where it is no engine, or damaged.
    """
    info = _core.inspect(path(file))
    return EngineFile(fspath(file), Path(file).stat().st_size, info, _why_not(info))


def _why_not(info: _core.EngineInfo) -> str | None:
    backend = next((one for one in backends() if one.name == info.backend), None)
    if backend is None:
        return f"this resrt has no backend {info.backend}"
    if backend.why_not is not None:
        return backend.why_not
    if backend.why_build_only is not None:
        return backend.why_build_only
    if backend.version != info.backend_version and not info.version_compatible:
        return f"it was built with version {info.backend_version}, and here is {backend.version}"
    if info.precision not in backend.precisions:
        return f"this device does not compute {info.precision} natively"
    return None
