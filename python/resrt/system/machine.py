"""The description of this machine, for `resrt doctor` and to accompany measurements."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from resrt import _core
from resrt.system import read

# The processor features that affect the speed of these networks.
_FEATURES = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "amx_int8",
    "amx_fp16",
)


_QUIET = 0.25  # runnable processes per core


@dataclass(frozen=True)
class Machine:
    """The machine on which a measurement was taken.

    `cores` is the number of logical processors that this process may use, `memory_gib` the
    installed memory, and `libraries` has versions by name.
    """

    processor: str
    features: tuple[str, ...]
    cores: int
    memory_gib: float
    system: str
    python: str
    libraries: dict[str, str]

    def __str__(self) -> str:
        features = f" ({', '.join(self.features)})" if self.features else ""
        libraries = ", ".join(f"{name} {found}" for name, found in self.libraries.items())
        return (
            f"{self.processor}{features}, {self.cores} cores, {self.memory_gib:.0f} GiB; "
            f"{self.system}; Python {self.python}; {libraries}"
        )


def load() -> float:
    """Return the average number of runnable processes in the last minute."""
    return os.getloadavg()[0]


def busy(load: float, cores: int) -> str | None:
    """Return the remark that a machine with that load was busy; None if it was not."""
    if load <= _QUIET * cores:
        return None
    return (
        f"the machine was busy: {load:.1f} runnable processes on {cores} cores before the "
        "measurement"
    )


def cores() -> int:
    """Return the number of logical processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def usable_cores() -> int:
    """Return how many threads this process can keep busy: its cores, within its CPU quota."""
    return _core.usable_cpus()


def describe(libraries: Iterable[str] = ("openvino", "numpy", "pillow")) -> Machine:
    """Describe this machine, with the versions of those libraries that are installed."""
    found = {"resrt": _core.__version__}
    for name in libraries:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    info = _cpuinfo()
    flags = info.get("flags", "").split()
    return Machine(
        processor=info.get("model name") or platform.processor() or platform.machine(),
        features=tuple(name for name in _FEATURES if name in flags),
        cores=cores(),
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        libraries=found,
    )


def _cpuinfo() -> dict[str, str]:
    """Return what Linux says about the first processor."""
    text = read(Path("/proc/cpuinfo"))
    pairs = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
