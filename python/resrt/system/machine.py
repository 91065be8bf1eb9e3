"""What this machine is: for measurements, which mean nothing without it, and for `resrt doctor`."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from resrt import _core

# Of the processor's features, those that matter to these networks.
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


@dataclass(frozen=True)
class Machine:
    """The machine that a measurement was taken on.

    `cores` are the logical processors that this process may use, `memory_gib` the installed memory,
    `libraries` the versions of what ran, by name.
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


def cores() -> int:
    """Return how many logical processors this process may run on."""
    return len(os.sched_getaffinity(0))


def describe(libraries: Iterable[str] = ("openvino", "numpy", "pillow")) -> Machine:
    """Return what this machine is, with the versions of those of the libraries that are here."""
    found = {"resrt": _core.__version__}
    for name in libraries:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
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
    """What Linux says of the first processor."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
