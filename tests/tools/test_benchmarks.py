"""The scripts in benchmarks/ run, in a small form."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import PHOTOS, ROOT

BENCHMARKS = ROOT / "benchmarks"
if not BENCHMARKS.exists():
    pytest.skip("there is no benchmarks folder", allow_module_level=True)

SCRIPTS = {
    "classify.py": "regnetx_002 --count 2 --rounds 1",
    "dynamic_batch.py": "regnetx_002 --rounds 1",
    "layers.py": "regnetx_002 --rounds 1",
    "loading.py": "regnetx_002 --batch 1 2 --rounds 1",
    "loading_under_load.py": "demo --rounds 1 --callers 2 --busy 0",
    "reduced_decoding.py": str(PHOTOS),
    "throughput.py": "regnetx_002 --rounds 1 --inferences 4 --callers 2",
    "startup.py": "--network regnetx_002 --rounds 1",
}


def run(script: str, arguments: str, output: Path) -> dict[str, dict[str, float]]:
    command = [sys.executable, BENCHMARKS / script, *arguments.split(), "--output", output]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(output.read_text())
    found: dict[str, dict[str, float]] = document.get("results", document)
    return found


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_script_writes_its_results(script: str, tmp_path: Path) -> None:
    found = run(script, SCRIPTS[script], tmp_path / "found.json")
    medians = [spread["median"] for spread in found.values() if "median" in spread]
    assert any(median > 0 for median in medians) or script == "reduced_decoding.py"


def test_the_onnx_export_can_be_profiled(tmp_path: Path) -> None:
    if importlib.util.find_spec("onnx") is None:
        pytest.skip("onnx is not installed")
    found = run("layers.py", "regnetx_002 --rounds 1 --onnx", tmp_path / "found.json")
    assert found["convolutions (ms)"]["median"] > 0


def modelled(*arguments: str) -> float:
    command = [sys.executable, BENCHMARKS / "gpu_model.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    label, ratio = done.stdout.splitlines()[-1].split()
    assert label == "ratio:"
    return float(ratio)


def test_the_model_of_a_gpu_gains_from_fewer_launches_and_bytes() -> None:
    ordinary, passes, cluster = (
        modelled("--design", design) for design in ("ordinary", "passes", "cluster")
    )
    assert ordinary > passes > cluster > 1
    assert modelled() == cluster
    # A T4 has no clusters.
    assert modelled("--device", "T4", "--design", "cluster") == modelled(
        "--device", "T4", "--design", "passes"
    )


LISTED = """Name: a_myl0_1, LayerType: correlation, Inputs: [ { Name: x, Dimensions: [1,64,2,2], \
Strides: [], Datatype: Half, Format: (NHWC) }], Constants: [ { Name: w, Dimensions: [64,64,1,1], \
Strides: [], Datatype: Half }], Outputs: [ { Name: y, Dimensions: [1,64,2,2], Datatype: Half }]
Name: __myl_Cast_myl0_2, LayerType: kgen, Inputs: [ { Name: y, Dimensions: [1,8], \
Datatype: Float }], Constants: [], Outputs: [ { Name: z, Dimensions: [1,8], Datatype: Half }]
"""


def test_kernels_are_read_from_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    rtx_plans = importlib.import_module("rtx_plans")
    log = LISTED.replace("\\\n", "")
    assert rtx_plans.read_kernels(log) == rtx_plans.Kernels(2, 2 * 256 * 2 + 8 * 4 + 8 * 2, 1)


def test_the_readme_lists_every_script() -> None:
    listed = (BENCHMARKS / "README.md").read_text()
    scripts = {path.name for path in BENCHMARKS.glob("*.py")} - {"shared.py"}
    # These require a library or a server that the tests do without.
    others = {"cluster.py", "gpu_model.py", "int8.py", "rtx_plans.py", "serving.py"}
    assert scripts == set(SCRIPTS) | others
    assert all(f"benchmarks/{name}" in listed for name in scripts)
