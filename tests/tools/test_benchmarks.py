"""The scripts in benchmarks/ run, in a small form."""

from __future__ import annotations

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


def test_the_readme_lists_every_script() -> None:
    listed = (BENCHMARKS / "README.md").read_text()
    scripts = {path.name for path in BENCHMARKS.glob("*.py")} - {"shared.py"}
    assert scripts == set(SCRIPTS)
    assert all(f"benchmarks/{name}" in listed for name in scripts)
