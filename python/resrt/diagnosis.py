"""`resrt.doctor`: what this machine can run, what is missing, and what to do about it.

It must work where parts of resrt do not, so nothing is imported here that may be missing.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resrt import _core, limits, machine, pretrained
from resrt.errors import Error
from resrt.files import cache_folder

# Of the processor's features that `machine` looks for: what they are good for here.
_FEATURES = {
    "avx2": "fp32, 8 values at a time",
    "avx512f": "fp32, 16 values at a time",
    "avx512_bf16": "bf16",
    "amx_bf16": "bf16 in matrix units",
    "avx512_fp16": "fp16",
    "amx_fp16": "fp16 in matrix units",
    "avx512_vnni": "8-bit integers, a precision that resrt does not have",
    "amx_int8": "8-bit integers in matrix units, a precision that resrt does not have",
}

_EXTRAS_FOR_DEVELOPERS = ("dev", "fuzz", "test")


@dataclass(frozen=True)
class Feature:
    """A feature of the processor, whether it has it, and what that is good for."""

    name: str
    is_present: bool
    good_for: str


@dataclass(frozen=True)
class Backend:
    """A backend: the version of its library, the precisions it computes natively, fastest first.

    `problem` is why it cannot be used, with what to do, or None where a small network ran on it.
    """

    name: str
    version: str
    precisions: tuple[str, ...]
    problem: str | None


@dataclass(frozen=True)
class Package:
    """A distribution that resrt needs (`extra` None) or that one of its extras brings.

    `version` is None where it is not installed, `problem` why it cannot be used, or None.
    """

    name: str
    extra: str | None
    version: str | None
    problem: str | None


@dataclass(frozen=True)
class Cache:
    """The folder that downloaded weights and built engines are kept in, and its size in bytes.

    `is_offline`: whether RESRT_OFFLINE or HF_HUB_OFFLINE forbid downloads. `problem` is why
    nothing can be kept there, or None.
    """

    folder: str
    exists: bool
    size: int
    is_offline: bool
    problem: str | None


@dataclass(frozen=True)
class Gpus:
    """The NVIDIA GPUs, as the system's files tell of them, without any library.

    `cards` are those on the PCI bus, `driver` the version of the driver that is loaded, or None,
    `models` what it calls them, `devices` the files by which this process would reach them.
    `problem` is why no backend could use them, or None.
    """

    cards: int
    driver: str | None
    models: tuple[str, ...]
    devices: tuple[str, ...]
    problem: str | None


@dataclass(frozen=True)
class Diagnosis:
    """What `resrt.doctor` found. Where something has a `problem`, that says what to do."""

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
        """Whether engines can be built and run here: all that this needs is there."""
        required = [package for package in self.packages if package.extra is None]
        return all(package.problem is None for package in required) and any(
            backend.problem is None for backend in self.backends
        )

    def document(self) -> dict[str, Any]:
        """Return everything as what JSON can hold."""
        return {"is_fit": self.is_fit, **dataclasses.asdict(self)}


def doctor() -> Diagnosis:
    """Look at this machine: what it can run, what is missing, and what to do about it.

    Takes a moment, because a small network is built and run on each backend, and what the extras
    bring is imported. What fails is told of in the result; nothing is raised.
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
        gpus=gpus(),
    )


def _statuses() -> list[_core.BackendStatus]:
    try:
        from resrt import engine
    except ImportError:  # of a package that is missing; the core finds most libraries without it
        return _core.backends()
    return engine.backends()


def _backend(status: _core.BackendStatus) -> Backend:
    if status.why_build_only is not None:
        problem: str | None = (
            f"{status.version} builds engines here, but runs none: {status.why_build_only}"
        )
    else:
        problem = status.why_not or _trial(status.name)
    return Backend(status.name, status.version, tuple(status.precisions), problem)


def _trial(backend: str) -> str | None:
    """Run a small network, and return why it failed, or None."""
    try:
        import numpy as np

        from resrt import engine, models

        graph = models.build_graph(_core.ResNet(depths=[1], width=8), classes=2, input_size=32)
        small = engine.build(graph, "random", backend=backend, max_batch=1)
        logits = small.infer(np.ones((1, 3, 32, 32), np.float32))
    except (Error, ImportError) as error:
        return str(error)
    return None if np.isfinite(logits).all() else "a small network gave no finite numbers"


def _requirements() -> list[str]:
    """Return what the installed distribution requires, as its metadata has it."""
    try:
        return importlib.metadata.requires("resrt") or []
    except importlib.metadata.PackageNotFoundError:  # run from where it is not installed
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
            continue  # it is for another Python
        yield package


def _package(name: str, wanted: str, extra: str | None, modules: dict[str, str]) -> Package:
    install = f"pip install '{wanted if extra is None else f'resrt[{extra}]'}'"
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Package(name, extra, None, f"not installed; {install}")
    try:
        importlib.import_module(modules.get(_normalised(name), name))
    except Exception as error:  # whatever it does when it is imported
        problem = f"cannot be imported ({error}); {install} --force-reinstall"
        return Package(name, extra, version, problem)
    return Package(name, extra, version, None)


def _modules() -> dict[str, str]:
    """Return the module that each installed distribution brings, by its normalised name."""
    modules: dict[str, str] = {}
    for module, distributions in importlib.metadata.packages_distributions().items():
        for distribution in map(_normalised, distributions):
            if distribution not in modules or _normalised(module) == distribution:
                modules[distribution] = module
    return modules


def _cache() -> Cache:
    folder = cache_folder()
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            problem = None
    except OSError as error:
        problem = (
            f"'{existing}' cannot be written ({error.strerror}); name another folder in RESRT_CACHE"
        )
    return Cache(
        folder=str(folder),
        exists=folder.is_dir(),
        size=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        is_offline=pretrained.is_offline(),
        problem=problem,
    )


def gpus(root: Path = Path("/")) -> Gpus:
    """Return what the system says of NVIDIA's GPUs; no library of NVIDIA's is needed."""
    driver = root / "proc/driver/nvidia"
    version = _matched(r"Module.*?\s(\d+\.[\d.]+)", _text(driver / "version"))
    information = [_text(file) for file in sorted(driver.glob("gpus/*/information"))]
    cards = sum(
        _text(device / "vendor").strip() == "0x10de" and _text(device / "class").startswith("0x03")
        for device in (root / "sys/bus/pci/devices").glob("*")
    )
    # In the Windows Subsystem for Linux the GPU is behind /dev/dxg, and the driver is Windows's.
    files = [*(root / "dev").glob("nvidia[0-9]*"), *(root / "dev").glob("dxg")]
    devices = tuple(sorted(map(str, files)))
    return Gpus(
        cards=cards,
        driver=version or None,
        models=tuple(_matched(r"Model:\s*(.+)", text) for text in information),
        devices=devices,
        problem=_gpu_problem(cards, version, devices),
    )


def _gpu_problem(cards: int, driver: str, devices: tuple[str, ...]) -> str | None:
    if driver and not devices:
        return "the driver's devices are not here; start the container with --gpus all"
    if cards and not devices:
        return "the driver is not loaded; install NVIDIA's driver for it"
    return None


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _matched(pattern: str, text: str) -> str:
    """Return a pattern's first group, or all of its match; "" where there is none."""
    match = re.search(pattern, text)
    return "" if match is None else match[match.re.groups]


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
