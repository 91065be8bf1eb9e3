"""`resrt.doctor`, `resrt doctor`, and the limits of a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import resrt
from resrt import cli
from resrt.operations import doctor as diagnosis
from resrt.system import limits


def _write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_this_machine_is_fit() -> None:
    found = resrt.doctor()
    assert found.is_fit
    assert [(b.name, b.version, b.precisions) for b in found.backends] == [
        (b.name, b.version, tuple(b.precisions)) for b in resrt.backends()
    ]
    assert found.resrt == resrt.__version__
    assert found.limits.cores == len(os.sched_getaffinity(0))
    present = {feature.name for feature in found.features if feature.is_present}
    assert present == set(found.machine.features)
    assert json.loads(json.dumps(found.document()))["is_fit"] is True


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"resrt {resrt.__version__}"
    assert lines[-1] == "This machine can run resrt."
    [openvino] = [line for line in lines if "ran a small network" in line]
    assert openvino.split()[:3] == ["ok", "openvino", f"{resrt.backends()[0].version}:"]
    assert cli.main(["doctor", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["backends"][0]["name"] == "openvino"


@pytest.mark.parametrize("module", ["numpy", "PIL", "safetensors"])
def test_it_works_where_resrt_does_not(module: str) -> None:
    script = (
        f"import sys; sys.modules['{module}'] = None\n"
        "from resrt import cli; sys.exit(cli.main(['doctor', '--quiet']))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    # ONNX Runtime, where it is installed, has a word of its own for a broken numpy.
    assert "Traceback" not in result.stderr
    assert f"import of {module}" in result.stdout
    assert result.stdout.endswith("This machine cannot run resrt yet: see what is marked no.\n")


def test_a_backend_that_cannot_run_is_told_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise resrt.BackendError("the device is on fire")

    monkeypatch.setattr("resrt.engine.engine.build", fail)
    openvino, *_ = resrt.doctor().backends
    assert openvino.problem == "the device is on fire"
    assert cli.main(["doctor", "--quiet"]) == 1
    out = capsys.readouterr().out
    assert "no openvino" in out
    assert "the device is on fire" in out


def test_another_backend_that_is_missing_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backends = {
        "openvino": diagnosis.Backend("openvino", "1", ("fp32",), None),
        "other": diagnosis.Backend("other", "", (), "not installed; pip install other"),
    }
    monkeypatch.setattr(diagnosis, "_statuses", lambda: list(backends))
    monkeypatch.setattr(diagnosis, "_backend", backends.__getitem__)
    assert cli.main(["doctor"]) == 0
    assert "-  other" in capsys.readouterr().out
    backends["openvino"] = diagnosis.Backend("openvino", "1", ("fp32",), "broken")
    assert cli.main(["doctor"]) == 1


def test_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(
        tmp_path,
        {
            "resrt_test_broken.py": "raise RuntimeError('it lacks a library')",
            "resrt_test_broken-2.0.dist-info/METADATA": "Name: resrt-test-broken\nVersion: 2.0\n",
            "resrt_test_broken-2.0.dist-info/top_level.txt": "resrt_test_broken\n",
        },
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    requirements = [
        "numpy>=1.23",
        'resrt-test-absent>=1; python_version < "3.11"',
        'resrt-test-absent>=1.5; extra == "more"',
        "resrt-test-broken ; extra == 'more'",
        'resrt[more]; extra == "test"',
        'pytest>=8; extra == "test"',
    ]
    numpy, absent, broken = diagnosis._packages(requirements)
    assert (numpy.name, numpy.extra, numpy.problem) == ("numpy", None, None)
    assert numpy.version
    assert (absent.version, absent.problem) == (None, "not installed; pip install 'resrt[more]'")
    assert (broken.extra, broken.version) == ("more", "2.0")
    assert broken.problem is not None
    assert "cannot be imported (it lacks a library)" in broken.problem


def test_a_required_package_that_is_missing() -> None:
    [package] = diagnosis._packages(["resrt-test-absent>=1.5"])
    assert package.problem == "not installed; pip install 'resrt-test-absent>=1.5'"


def test_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path, {"a/weights": "x" * 1000, "b": "x" * 24})
    monkeypatch.setenv("RESRT_CACHE", str(tmp_path))
    monkeypatch.setenv("RESRT_OFFLINE", "1")
    before = sorted(tmp_path.rglob("*"))
    cache = diagnosis._cache()
    assert cache == diagnosis.Cache(str(tmp_path), True, 1024, True, None)
    assert sorted(tmp_path.rglob("*")) == before
    monkeypatch.setenv("RESRT_CACHE", str(tmp_path / "new/folder"))
    monkeypatch.setenv("RESRT_OFFLINE", "0")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert diagnosis._cache() == diagnosis.Cache(
        str(tmp_path / "new/folder"), False, 0, False, None
    )
    monkeypatch.setenv("RESRT_CACHE", str(tmp_path / "b/folder"))
    problem = diagnosis._cache().problem
    assert problem is not None
    assert f"'{tmp_path / 'b'}' cannot be written (Not a directory)" in problem
    assert "RESRT_CACHE" in problem


CARD = {
    "sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n",
    "sys/bus/pci/devices/0000:01:00.0/class": "0x030200\n",
    # Its sound is no card of its own, and another maker's is none.
    "sys/bus/pci/devices/0000:01:00.1/vendor": "0x10de\n",
    "sys/bus/pci/devices/0000:01:00.1/class": "0x040300\n",
    "sys/bus/pci/devices/0000:02:00.0/vendor": "0x1002\n",
    "sys/bus/pci/devices/0000:02:00.0/class": "0x030000\n",
}
DRIVER = {
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue\n"
    "GCC version: gcc version 12.2.0 (Debian)\n",
    "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA H100 80GB HBM3\n",
}
DEVICES = {"dev/nvidia0": "", "dev/nvidiactl": "", "dev/nvidia-uvm": ""}


def test_gpus_without_a_library(tmp_path: Path) -> None:
    gpus = diagnosis.gpus(_write(tmp_path, {**CARD, **DRIVER, **DEVICES}))
    assert gpus == diagnosis.Gpus(
        1, "550.54.15", ("NVIDIA H100 80GB HBM3",), (str(tmp_path / "dev/nvidia0"),), None
    )


def test_the_driver_of_open_kernel_modules(tmp_path: Path) -> None:
    text = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n"
    gpus = diagnosis.gpus(_write(tmp_path, {"proc/driver/nvidia/version": text}))
    assert gpus.driver == "570.86.15"


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({}, None),
        (CARD, "the driver is not loaded; install NVIDIA's driver"),
        ({**CARD, **DRIVER}, "start the container with --gpus all"),
        ({"dev/dxg": ""}, None),
    ],
)
def test_gpus_that_cannot_be_used(
    tmp_path: Path, files: dict[str, str], problem: str | None
) -> None:
    found = diagnosis.gpus(_write(tmp_path, files)).problem
    assert found is None if problem is None else problem in (found or "")


def test_the_command_says_which_backend_uses_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpus = diagnosis.gpus(_write(tmp_path, {**CARD, **DRIVER, **DEVICES}))
    monkeypatch.setattr(diagnosis, "gpus", lambda: gpus)
    cli.main(["doctor"])
    assert "NVIDIA H100 80GB HBM3; driver 550.54.15" in capsys.readouterr().out
    backend = diagnosis.Backend("tensorrt", "11", ("fp16",), None)
    monkeypatch.setattr(diagnosis, "_statuses", lambda: ["tensorrt"])
    monkeypatch.setattr(diagnosis, "_backend", lambda _: backend)
    cli.main(["doctor"])
    assert [line.split() for line in capsys.readouterr().out.splitlines() if "used by" in line] == [
        ["used", "by", "tensorrt"]
    ]


MEMINFO = "MemTotal:       8000000 kB\nMemAvailable:   4000000 kB\n"


def _limits(root: Path) -> limits.Limits:
    return limits.find(root / "proc", root / "cgroup")


def test_limits_of_control_groups_version_2(tmp_path: Path) -> None:
    """The strictest of a group and those that it is in holds."""
    _write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/service/job\n",
            "proc/meminfo": MEMINFO,
            "cgroup/service/job/cpu.max": "max 100000\n",
            "cgroup/service/cpu.max": "50000 100000\n",
            "cgroup/service/job/memory.max": "2147483648\n",
            "cgroup/service/memory.max": "max\n",
        },
    )
    found = _limits(tmp_path)
    assert (found.cpu_quota, found.memory_limit) == (0.5, 2**31)
    assert found.memory_available == 4_000_000 * 1024
    assert found.problem is not None
    assert "--threads 1" in found.problem


def test_limits_of_control_groups_version_1(tmp_path: Path) -> None:
    _write(
        tmp_path,
        {
            # The path is the host's; in the container its folder is the root.
            "proc/self/cgroup": "4:memory:/docker/1f\n3:cpu,cpuacct:/docker/1f\n0::/\n",
            "cgroup/cpu/cpu.cfs_quota_us": "150000\n",
            "cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "cgroup/memory/memory.limit_in_bytes": "1073741824\n",
        },
    )
    found = _limits(tmp_path)
    assert (found.cpu_quota, found.memory_limit) == (1.5, 2**30)


def test_no_limits(tmp_path: Path) -> None:
    found = _limits(tmp_path)
    assert (found.cpu_quota, found.memory_limit, found.memory_available) == (None, None, None)
    _write(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/\n3:cpu,cpuacct:/\n",
            "cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    found = _limits(tmp_path)
    assert (found.cpu_quota, found.memory_limit, found.problem) == (None, None, None)


def test_affinity_is_a_limit() -> None:
    script = (
        "import os, resrt.limits\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "print(resrt.limits.find().cores)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout == "1\n"


def test_a_backend_that_only_builds_is_no_failure_and_not_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    status = SimpleNamespace(
        name="gpu", version="7", precisions=["fp16"], why_not=None, why_build_only="there is no GPU"
    )
    found = diagnosis._backend(status)  # type: ignore[arg-type]
    assert found.problem == "7 builds engines here, but runs none: there is no GPU"
    assert found.precisions == ("fp16",)
