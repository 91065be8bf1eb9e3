"""The logic of tools/gpu_check.py, with OpenVINO engines in place of a GPU's."""

from __future__ import annotations

import ctypes
import functools
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from support.paths import ROOT

TOOLS = ROOT / "tools"
if not TOOLS.exists():
    pytest.skip("there is no tools folder", allow_module_level=True)

import gpu_check  # noqa: E402
from gpu_checks import checks, latency  # noqa: E402
from gpu_checks.driver import Gpu  # noqa: E402
from gpu_checks.engines import Array, EngineStore  # noqa: E402

# A module that the processes of checks and contenders import.
FAKES = """
import os, time
from gpu_checks import checks
from gpu_checks.latency import Ready
from resrt.measuring import rounds

def skip(_):
    raise checks.NotRunError("this GPU is too old")

def crash(_):
    os.abort()

def hang(_):
    time.sleep(60)

clock = 0.0

def prepare(seconds, fault, task):
    rounds.perf_counter = lambda: clock

    def run():
        global clock
        clock += seconds[task.network]

    logits = task.engines.reference(task.network, task.images())
    return Ready(run, lambda _: fault * logits)
"""


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "fakes_of_gpu_check.py").write_text(FAKES)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("fakes_of_gpu_check")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EngineStore:
    return EngineStore("openvino", tmp_path_factory.mktemp("engines"), max_batch=3, input_size=64)


@dataclass(frozen=True)
class FakeStore(EngineStore):
    """Engines that compute in float32, whatever is asked for; `fault` makes them wrong."""

    fault: Callable[[Array], Array] = field(kw_only=True)

    def status(self) -> Any:
        return SimpleNamespace(version="1.2.3", precisions=["fp16", "fp32"])

    def engine(self, network: str, precision: str, **options: Any) -> Any:
        infer = super().engine(network, "fp32").infer
        return SimpleNamespace(infer=lambda batch: self.fault(infer(batch)))

    def reference(self, network: str, images: Array) -> Array:
        return super().engine(network, "fp32").infer(images)


def right(logits: Array) -> Array:
    return logits


def mixed_up(logits: Array) -> Array:
    return np.roll(logits, 1, axis=0)


def wrong_in_the_third_image(logits: Array) -> Array:
    logits[2:3] *= 1.05
    return logits


LOGITS = functools.partial(checks.logits, checks.SMALLEST, "fp16")


@pytest.mark.parametrize(
    ("run", "fault", "outcome", "detail"),
    [
        (LOGITS, right, "ok", r"error 0\.0"),
        (LOGITS, mixed_up, "failed", "the error of the logits is .*, more than 3e-03"),
        (LOGITS, wrong_in_the_third_image, "failed", "the error of the logits is .*e-02"),
        (checks.every_batch, right, "ok", "0 to 7"),
        (checks.every_batch, wrong_in_the_third_image, "failed", "batch 3: the error"),
    ],
)
def test_wrong_logits_are_detected(
    run: Callable[[EngineStore], str],
    fault: Callable[[Array], Array],
    outcome: str,
    detail: str,
    store: EngineStore,
) -> None:
    result = checks.run_here(checks.Check("a check", run), FakeStore(**vars(store), fault=fault))
    assert result.outcome == outcome
    assert re.match(detail, result.detail)


@pytest.mark.parametrize(
    ("function", "limit", "outcome", "detail"),
    [
        ("skip", 60, "not run", "this GPU is too old"),
        ("crash", 60, "failed", "its process ended by signal 6"),
        ("hang", 1, "failed", "no result within 1 s"),
    ],
)
def test_a_check_has_its_own_process(
    function: str, limit: float, outcome: str, detail: str, fakes: Any, store: EngineStore
) -> None:
    result = checks.run(checks.Check("a check", getattr(fakes, function)), store, limit)
    assert (result.name, result.outcome) == ("a check", outcome)
    assert result.detail.startswith(detail)


def test_latencies_and_ratios(
    fakes: Any, store: EngineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = ("ResNet34", "ResNet18")
    monkeypatch.setattr(latency, "RATIO", networks)
    monkeypatch.setattr(latency, "SPLIT_ATTENTION", "ResNet34")
    seconds = {"ResNet18": 0.002, "ResNet34": 0.003}

    def contender(name: str, seconds: dict[str, float], fault: float = 1.0) -> latency.Contender:
        prepare = functools.partial(fakes.prepare, seconds, fault)
        return latency.Contender(name, "host", prepare, has_plugin="plugin" in name)

    contenders = [
        contender("tensorrt", seconds),
        contender("tensorrt, plugin", {"ResNet34": 0.001}),
        contender("wrong", seconds, fault=1.1),
        latency.Contender("crashing", "host", fakes.crash),
    ]
    found, ratios = latency.measure(store, contenders, (*networks, "ResNet17"), "fp16", 3, 60)
    rows = {(row.network, row.contender): row for row in found}
    assert len(rows) == 12
    medians = {key: row.ms.median for key, row in rows.items() if row.ms is not None}
    assert medians == {
        ("ResNet34", "tensorrt"): pytest.approx(3.0),
        ("ResNet18", "tensorrt"): pytest.approx(2.0),
        ("ResNet34", "tensorrt, plugin"): pytest.approx(1.0),
    }
    for key, error in {
        ("ResNet18", "tensorrt, plugin"): "ResNet18 has no split attention",
        ("ResNet18", "wrong"): "the error of the logits is 1.0e-01, more than 3e-03",
        ("ResNet34", "crashing"): "its process ended by signal 6",
        ("ResNet17", "tensorrt"): "there is no network named 'ResNet17'",
    }.items():
        assert str(rows[key].error).startswith(error)
    assert {ratio.contender: ratio.ratio.median for ratio in ratios} == {
        "tensorrt": pytest.approx(1.5),
        "tensorrt, plugin": pytest.approx(0.5),
    }


def test_the_file_is_written_after_each_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "report.json"
    written: list[int] = []

    def count() -> None:
        document = json.loads(output.read_text()) if output.exists() else {"checks": {}}
        rows = [*document["checks"].values(), document.get("latencies", [])]
        written.append(sum(map(len, rows)))

    def run(check: checks.Check, engines: EngineStore, limit: float) -> checks.Result:
        count()
        is_missing = (engines.backend, check.name) == ("tensorrt", checks.FIRST.name)
        return checks.Result(check.name, "not run" if is_missing else "ok", "the reason")

    def measure(engines: EngineStore, contenders: Any, networks: Any, *_: Any) -> Any:
        count()
        assert {one.backend for one in contenders} == {"tensorrt_rtx", None}
        return [latency.Latency(networks[0], "fp16", 1, "a contender", "host", error="slow")], []

    driver = SimpleNamespace(gpu=lambda: Gpu("a GPU", 86, 24.0, "1.0", "13.0"))
    monkeypatch.setattr(gpu_check, "Driver", lambda: driver)
    monkeypatch.setattr(checks, "run", run)
    monkeypatch.setattr(latency, "measure", measure)
    monkeypatch.setattr(latency, "engines_to_build", lambda *_: 0)
    arguments = ["--output", str(output), "--only", "every batch*", "--batch", "8"]
    assert gpu_check.main([*arguments, "--precisions", "fp16"]) == 0
    # tensorrt; tensorrt_rtx and its check, after tensorrt's checks that were not run; two parts
    assert written == [0, 2, 3, 4, 5]
    document = json.loads(output.read_text())
    assert document["gpu"]["name"] == "a GPU"
    assert [result["outcome"] for result in document["checks"]["tensorrt"]] == ["not run"] * 2
    assert [row["network"] for row in document["latencies"]] == ["ResNet50", "RegNetX_4GF"]
    monkeypatch.setattr(checks, "run", lambda check, *_: checks.Result(check.name, "failed", ""))
    assert gpu_check.main([*arguments, "--no-latencies"]) == 1


def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path: Path) -> None:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        pass
    else:
        pytest.skip("NVIDIA's driver is installed")
    done = subprocess.run(
        [sys.executable, TOOLS / "gpu_check.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    why = "no GPU can be used here: NVIDIA's driver, libcuda.so.1, is not installed\n"
    assert (done.stdout, done.stderr) == ("", why)
    assert not list(tmp_path.iterdir())
