"""tools/build_engine.py, an example of building an engine file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import resrt
from support.paths import ROOT

SCRIPT = ROOT / "tools" / "build_engine.py"


@pytest.mark.skipif(not SCRIPT.exists(), reason="there is no tools folder")
def test_it_writes_an_engine_file(tmp_path: Path) -> None:
    output = tmp_path / "x.engine"
    command = [sys.executable, SCRIPT, "regnetx_002", "random", output, "--max-batch", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "regnetx_002: 3x224x224 -> 1000 classes" in done.stdout
    assert resrt.load(output).info.max_batch == 2
