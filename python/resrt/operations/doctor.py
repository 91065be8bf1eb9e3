"""`resrt.doctor`: what this machine can run, what is missing, and what to do about it.

This must work when parts of resrt do not, so nothing that may be missing is imported at the top.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resrt import _core
from resrt._support.environment import cache_folder, is_offline
from resrt._support.files import file_kind, file_version, is_folder
from resrt.errors import Error, FileError
from resrt.system import gpus, limits, machine
from resrt.system.gpus import Gpus

# What the processor's features that `machine` reports are used for.
_FEATURES = {
    "avx2": "fp32, 8 values at a time",
    "avx512f": "fp32, 16 values at a time",
    "avx512_bf16": "bf16",
    "amx_bf16": "bf16 in matrix units",
    "avx512_fp16": "fp16",
    "amx_fp16": "fp16 in matrix units",
    "avx512_vnni": "int8",
    "amx_int8": "int8 in matrix units",
}

_EXTRAS_FOR_DEVELOPERS = ("dev", "docs", "fuzz", "test")


@dataclass(frozen=True)
class Feature:
    """A feature of the processor, whether it is present, and what it is used for."""

    name: str
    is_present: bool
    good_for: str


@dataclass(frozen=True)
class Backend:
    """A backend: the version of its library and the native precisions, the fastest first.

    `problem` is why it cannot be used, with what to do; None if a small network ran on it.
    """

    name: str
    version: str
    precisions: tuple[str, ...]
    runs_on_gpu: bool
    problem: str | None


@dataclass(frozen=True)
class Package:
    """A distribution that resrt requires (`extra` is None) or that one of its extras installs.

    `version` is None if it is not installed; `problem` is why it cannot be used, or None.
    """

    name: str
    extra: str | None
    version: str | None
    problem: str | None


@dataclass(frozen=True)
class Cache:
    """The folder of downloaded weights and built engines, and its size in bytes.

    `is_offline` is whether RESRT_OFFLINE or HF_HUB_OFFLINE forbid downloads. `problem` is why
    nothing can be written there, or None.
    """

    folder: str
    exists: bool
    size: int
    is_offline: bool
    problem: str | None


@dataclass(frozen=True)
class Diagnosis:
    """The result of `resrt.doctor`. The `problem` of a part says what to do about it."""

    resrt: str
    folder: str
    executable: str
    machine: machine.Machine
    limits: limits.Limits
    features: tuple[Feature, ...]
    backends: tuple[Backend, ...]
    packages: tuple[Package, ...]
    cache: Cache
    gpus: Gpus

    @property
    def is_fit(self) -> bool:
        """Whether engines can be built and run here: everything that this requires is present."""
        required = [package for package in self.packages if package.extra is None]
        return all(package.problem is None for package in required) and any(
            backend.problem is None for backend in self.backends
        )

    def document(self) -> dict[str, Any]:
        """Return everything as a document for JSON."""
        return {"is_fit": self.is_fit, **dataclasses.asdict(self)}


def doctor() -> Diagnosis:
    """Report what this machine can run, what is missing, and what to do about it.

    This takes a moment: a small network is built and run on each backend, and the packages of the
    extras are imported. Failures are reported in the result; nothing is raised.
    """
    here = machine.describe()
    return Diagnosis(
        resrt=_core.__version__,
        folder=str(Path(_core.__file__).parent),
        executable=sys.executable,
        machine=here,
        limits=limits.find(),
        features=tuple(
            Feature(name, name in here.features, good_for) for name, good_for in _FEATURES.items()
        ),
        backends=tuple(_backend(status) for status in _statuses()),
        packages=tuple(_packages(_requirements())),
        cache=_cache(),
        gpus=gpus.find(),
    )


def _statuses() -> list[_core.BackendStatus]:
    try:
        from resrt.engine import backends
    except ImportError:  # a package is missing; the core finds most libraries without it
        return _core.backends()
    return backends.backends()


def _backend(status: _core.BackendStatus) -> Backend:
    if status.why_build_only is not None:
        problem: str | None = (
            f"{status.version} can build engines here, but not run them: {status.why_build_only}"
        )
    else:
        problem = status.why_not or _trial(status.name)
    return Backend(
        name=status.name,
        version=status.version,
        precisions=tuple(status.precisions),
        runs_on_gpu=status.runs_on_gpu,
        problem=problem,
    )


def _trial(backend: str) -> str | None:
    """Run a small network, and return why it failed, or None."""
    try:
        import numpy as np

        from resrt.catalog.models import build_graph
        from resrt.operations.build import build

        graph = build_graph(_core.ResNet(depths=[1], width=8), classes=2, input_size=32)
        small = build(graph, "random", backend=backend, max_batch=1)
        logits = small.infer(np.ones((1, 3, 32, 32), np.float32))
    except (Error, ImportError) as error:
        return str(error)
    return None if np.isfinite(logits).all() else "the logits of a small network are not finite"


def _requirements() -> list[str]:
    """Return the requirements in the installed distribution's metadata."""
    try:
        return importlib.metadata.requires("resrt") or []
    except importlib.metadata.PackageNotFoundError:  # not run from an installation
        return []


def _packages(requirements: Iterable[str]) -> Iterator[Package]:
    modules = _modules()
    for requirement in requirements:
        wanted, _, condition = requirement.partition(";")
        name = _matched(r"[\w.-]+", wanted)
        extra = _matched(r"extra *== *['\"]([\w-]+)", condition) or None
        if name == "resrt" or extra in _EXTRAS_FOR_DEVELOPERS:
            continue
        package = _package(name, wanted.strip(), extra, modules)
        if package.version is None and "python_version" in condition:
            continue  # it is for another version of Python
        yield package


def _package(name: str, wanted: str, extra: str | None, modules: dict[str, str]) -> Package:
    install = f"pip install '{wanted if extra is None else f'resrt[{extra}]'}'"
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Package(name, extra, None, f"not installed; {install}")
    try:
        importlib.import_module(modules.get(_normalised(name), name))
    except Exception as error:  # an import can fail in any way
        problem = f"cannot be imported ({error}); {install} --force-reinstall"
        return Package(name, extra, version, problem)
    return Package(name, extra, version, None)


def _modules() -> dict[str, str]:
    """Return the module that each installed distribution provides, by its normalised name."""
    modules: dict[str, str] = {}
    for module, distributions in importlib.metadata.packages_distributions().items():
        for distribution in map(_normalised, distributions):
            if distribution not in modules or _normalised(module) == distribution:
                modules[distribution] = module
    return modules


def _cache() -> Cache:
    try:
        folder = cache_folder()
    except FileError as error:
        return Cache("none", exists=False, size=0, is_offline=is_offline(), problem=str(error))
    existing = next(
        path for path in (folder, *folder.absolute().parents) if file_kind(path) is not None
    )
    try:
        with tempfile.TemporaryFile(dir=existing):
            problem = None
    except OSError as error:
        problem = (
            f"'{existing}' is not writable ({error.strerror}); name another folder in RESRT_CACHE"
        )
    return Cache(
        folder=str(folder),
        exists=is_folder(folder),
        size=sum(
            file_version(os.path.join(here, name))[0] or 0  # noqa: PTH118 - what os.walk gives
            for here, _, names in os.walk(folder)
            for name in names
        ),
        is_offline=is_offline(),
        problem=problem,
    )


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _matched(pattern: str, text: str) -> str:
    """Return the first group of a pattern's match, or the whole match; "" if there is none."""
    match = re.search(pattern, text)
    return "" if match is None else match[match.re.groups]
