"""The processors and memory that Linux lets this process use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from os import fspath
from pathlib import Path

from resrt import _core
from resrt.system import machine, read

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Limits:
    """What this process may use.

    `cores` is the number of logical processors that it may run on, of the `cores_of_machine`.
    `cpu_quota` is how many of them it may keep busy over time, as set by a container's --cpus, or
    None; engines use as many threads. `memory_limit` is the limit of the container in bytes, or
    None, and `memory_available` the free memory of the machine in bytes.
    """

    cores: int
    cores_of_machine: int
    cpu_quota: float | None
    memory_limit: int | None
    memory_available: int | None


def find(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> Limits:
    """Return the limits of this process. Limits that the system does not report are None."""
    cores = machine.cores()
    # The strictest limit of the nested control groups applies.
    memories = map(_memory_limit, _groups(proc, cgroups))
    return Limits(
        cores=cores,
        cores_of_machine=os.cpu_count() or cores,
        cpu_quota=_core.cpu_quota(fspath(proc), fspath(cgroups)),
        memory_limit=min(filter(None, memories), default=None),
        memory_available=_memory_available(proc),
    )


def _groups(proc: Path, cgroups: Path) -> Iterator[Path]:
    """Yield the folders of the control groups that may limit memory, the innermost first.

    Version 2 has a single hierarchy, "0::/path", and version 1 one per controller,
    "4:memory:/path". In a container, the path may be that of the host, and only the root exists.
    """
    for line in read(proc / "self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            root = cgroups
        elif "memory" in controllers.split(","):
            root = cgroups / "memory"
        else:
            continue
        innermost = root / path.lstrip("/")
        yield from (f for f in (innermost, *innermost.parents) if f.is_relative_to(root))


def _memory_limit(group: Path) -> int | None:
    text = read(group / "memory.max") or read(group / "memory.limit_in_bytes") or "max"
    # Version 1 represents "unlimited" as a number that is larger than any memory.
    return None if text == "max" or int(text) >= 2**60 else int(text)


def _memory_available(proc: Path) -> int | None:
    for line in read(proc / "meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None
