"""What this process may use of the machine: processors and memory, as Linux limits them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from resrt.system import machine

Limit = TypeVar("Limit", int, float)

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Limits:
    """What this process may use.

    `cores` are the logical processors that it may run on, of the machine's `cores_of_machine`;
    `cpu_quota` how many of them it may keep busy over time, None where nothing limits that, as a
    container's --cpus does. `memory_limit` is a container's limit in bytes, or None, and
    `memory_available` what the machine can give now. `problem` is what to do about a quota that
    slows down what has a thread for each core, or None.
    """

    cores: int
    cores_of_machine: int
    cpu_quota: float | None
    memory_limit: int | None
    memory_available: int | None
    problem: str | None


def find(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> Limits:
    """Return the limits of this process. What the system does not say is None."""
    cores = machine.cores()
    quota = min(_each(_cpu_quota, "cpu", proc, cgroups), default=None)
    return Limits(
        cores=cores,
        cores_of_machine=os.cpu_count() or cores,
        cpu_quota=quota,
        memory_limit=min(_each(_memory_limit, "memory", proc, cgroups), default=None),
        memory_available=_memory_available(proc),
        problem=None if quota is None or quota >= cores else _throttled(quota, cores),
    )


def _throttled(quota: float, cores: int) -> str:
    threads = max(1, int(quota))
    return (
        f"with a thread for each of {cores} cores, engines are held up by a quota of {quota:g}; "
        f"load them with threads={threads} (--threads {threads})"
    )


def _each(
    read: Callable[[Path], Limit | None], controller: str, proc: Path, cgroups: Path
) -> Iterator[Limit]:
    """What is read in each of this process's control groups: the strictest of them holds."""
    for folder in _groups(controller, proc, cgroups):
        if (limit := read(folder)) is not None:
            yield limit


def _groups(controller: str, proc: Path, cgroups: Path) -> Iterator[Path]:
    """Return the folders of the control groups that this process is in, the innermost first.

    Version 2 has one hierarchy, "0::/path"; version 1 one for each controller, "4:memory:/path".
    Within a container the path may be the host's, of which only the root is to be seen.
    """
    for line in (_text(proc / "self/cgroup") or "").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            root = cgroups
        elif controller in controllers.split(","):
            root = cgroups / controller
        else:
            continue
        innermost = root / path.lstrip("/")
        yield from (f for f in (innermost, *innermost.parents) if f.is_relative_to(root))


def _cpu_quota(group: Path) -> float | None:
    """Version 2 has quota and period, in microseconds, in one file, and version 1 in two."""
    quota, period = (_text(group / "cpu.max") or "max 1").split()
    if v1 := _text(group / "cpu.cfs_quota_us"):
        quota, period = v1.replace("-1", "max"), _text(group / "cpu.cfs_period_us") or "1"
    return None if quota == "max" else int(quota) / int(period)


def _memory_limit(group: Path) -> int | None:
    text = _text(group / "memory.max") or _text(group / "memory.limit_in_bytes") or "max"
    # Version 1 has no word for "unlimited", only a number that no machine has memory for.
    return None if text == "max" or int(text) >= 2**60 else int(text)


def _memory_available(proc: Path) -> int | None:
    for line in (_text(proc / "meminfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def _text(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:
        return None
