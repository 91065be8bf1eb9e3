"""The processors and memory that Linux lets a process use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from resrt.system import limits
from support.files import write_files


def find(root: Path) -> limits.Limits:
    return limits.find(root / "proc", root / "cgroup")


def test_control_groups_version_2(tmp_path: Path) -> None:
    """The strictest limit of a group and its parents applies."""
    write_files(
        tmp_path,
        {
            "proc/self/cgroup": "0::/service/job\n",
            "proc/meminfo": "MemTotal:       8000000 kB\nMemAvailable:   4000000 kB\n",
            "cgroup/service/job/cpu.max": "max 100000\n",
            "cgroup/service/cpu.max": "50000 100000\n",
            "cgroup/service/job/memory.max": "2147483648\n",
            "cgroup/service/memory.max": "max\n",
        },
    )
    found = find(tmp_path)
    assert (found.cpu_quota, found.memory_limit) == (0.5, 2**31)
    assert found.memory_available == 4_000_000 * 1024


def test_control_groups_version_1(tmp_path: Path) -> None:
    write_files(
        tmp_path,
        {
            # The path is that of the host. In the container, its folder is the root.
            "proc/self/cgroup": "4:memory:/docker/1f\n3:cpu,cpuacct:/docker/1f\n0::/\n",
            "cgroup/cpu/cpu.cfs_quota_us": "150000\n",
            "cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "cgroup/memory/memory.limit_in_bytes": "1073741824\n",
        },
    )
    found = find(tmp_path)
    assert (found.cpu_quota, found.memory_limit) == (1.5, 2**30)


def test_no_limits(tmp_path: Path) -> None:
    found = find(tmp_path)
    assert (found.cpu_quota, found.memory_limit, found.memory_available) == (None, None, None)
    write_files(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/\n3:cpu,cpuacct:/\n",
            "cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    found = find(tmp_path)
    assert (found.cpu_quota, found.memory_limit) == (None, None)


def test_affinity() -> None:
    script = (
        "import os\n"
        "from resrt.system import limits\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "print(limits.find().cores)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout == "1\n"
