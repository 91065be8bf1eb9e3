"""`resrt.doctor` and `resrt doctor`: what this machine can run and what is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import resrt
from resrt import cli
from resrt.operations import doctor
from resrt.system.gpus import Gpus
from support.files import write_files


def backend(name: str = "openvino", **changes: Any) -> doctor.Backend:
    fields = {"version": "1", "precisions": ("fp32",), "runs_on_gpu": False, "problem": None}
    return doctor.Backend(name, **{**fields, **changes})


def set_backends(monkeypatch: pytest.MonkeyPatch, *backends: doctor.Backend) -> None:
    """Replace the backends that the doctor finds."""
    monkeypatch.setattr(doctor, "_statuses", lambda: list(backends))
    monkeypatch.setattr(doctor, "_backend", lambda status: status)


def test_this_machine_is_fit() -> None:
    found = resrt.doctor()
    assert found.is_fit
    assert [(b.name, b.version, b.precisions, b.runs_on_gpu) for b in found.backends] == [
        (b.name, b.version, tuple(b.precisions), b.runs_on_gpu) for b in resrt.backends()
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
def test_it_works_without_a_required_package(module: str) -> None:
    script = (
        f"import sys; sys.modules['{module}'] = None\n"
        "from resrt import cli; sys.exit(cli.main(['doctor', '--quiet']))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    # ONNX Runtime, if installed, prints a message of its own about a broken numpy.
    assert "Traceback" not in result.stderr
    assert f"import of {module}" in result.stdout
    assert result.stdout.endswith("This machine cannot run resrt yet: see the lines marked no.\n")


def test_backend_that_fails_to_run_a_network(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise resrt.BackendError("the device is on fire")

    monkeypatch.setattr("resrt.operations.build.build", fail)
    openvino, *_ = resrt.doctor().backends
    assert openvino.problem == "the device is on fire"
    assert cli.main(["doctor", "--quiet"]) == 1
    out = capsys.readouterr().out
    assert "no openvino" in out
    assert "the device is on fire" in out


def test_one_working_backend_is_enough(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = backend("other", version="", precisions=(), problem="not installed; pip install other")
    set_backends(monkeypatch, backend(), other)
    assert cli.main(["doctor"]) == 0
    assert "-  other" in capsys.readouterr().out
    set_backends(monkeypatch, backend(problem="broken"), other)
    assert cli.main(["doctor"]) == 1
    assert "no other" in capsys.readouterr().out


def test_backend_that_can_only_build() -> None:
    status = SimpleNamespace(
        name="gpu",
        version="7",
        precisions=["fp16"],
        runs_on_gpu=True,
        why_not=None,
        why_build_only="there is no GPU",
    )
    found = doctor._backend(status)  # type: ignore[arg-type]
    assert found.problem == "7 can build engines here, but not run them: there is no GPU"
    assert (found.precisions, found.runs_on_gpu) == (("fp16",), True)


def test_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(
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
    numpy, absent, broken = doctor._packages(requirements)
    assert (numpy.name, numpy.extra, numpy.problem) == ("numpy", None, None)
    assert numpy.version
    assert (absent.version, absent.problem) == (None, "not installed; pip install 'resrt[more]'")
    assert (broken.extra, broken.version) == ("more", "2.0")
    assert broken.problem == (
        "cannot be imported (it lacks a library); pip install 'resrt[more]' --force-reinstall"
    )


def test_missing_required_package() -> None:
    [package] = doctor._packages(["resrt-test-absent>=1.5"])
    assert package.problem == "not installed; pip install 'resrt-test-absent>=1.5'"


def test_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, {"a/weights": "x" * 1000, "b": "x" * 24})
    monkeypatch.setenv("RESRT_CACHE", str(tmp_path))
    monkeypatch.setenv("RESRT_OFFLINE", "1")
    before = sorted(tmp_path.rglob("*"))
    assert doctor._cache() == doctor.Cache(str(tmp_path), True, 1024, True, None)
    assert sorted(tmp_path.rglob("*")) == before
    monkeypatch.setenv("RESRT_CACHE", str(tmp_path / "new/folder"))
    monkeypatch.setenv("RESRT_OFFLINE", "0")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert doctor._cache() == doctor.Cache(str(tmp_path / "new/folder"), False, 0, False, None)
    # Such as the home folder of another user, which may not be looked into.
    monkeypatch.setenv("RESRT_CACHE", str(tmp_path / ("a" * 300)))
    found = doctor._cache()
    assert (found.exists, found.size) == (False, 0)
    assert "is not writable (File name too long)" in (found.problem or "")
    monkeypatch.setenv("RESRT_CACHE", str(tmp_path / "b/folder"))
    assert doctor._cache().problem == (
        f"'{tmp_path / 'b/folder'}' is not writable (Not a directory); name another folder in "
        "RESRT_CACHE"
    )


def test_command_reports_which_backend_uses_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpus = Gpus(1, "550.54.15", ("NVIDIA H100 80GB HBM3",), ("/dev/nvidia0",), None)
    monkeypatch.setattr("resrt.system.gpus.find", lambda: gpus)

    def lines() -> list[str]:
        cli.main(["doctor"])
        return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]

    set_backends(monkeypatch, backend())
    assert "- found NVIDIA H100 80GB HBM3; driver 550.54.15" in lines()
    assert "used by no backend that works here" in lines()
    set_backends(monkeypatch, backend(), backend("tensorrt", runs_on_gpu=True))
    assert "ok found NVIDIA H100 80GB HBM3; driver 550.54.15" in lines()
    assert "used by tensorrt" in lines()


def test_command_reports_a_gpu_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpus = Gpus(1, None, (), (), "the driver is not loaded; install NVIDIA's driver")
    monkeypatch.setattr("resrt.system.gpus.find", lambda: gpus)
    set_backends(monkeypatch, backend())
    assert cli.main(["doctor", "--quiet"]) == 0
    assert "the driver is not loaded; install NVIDIA's driver" in capsys.readouterr().out
