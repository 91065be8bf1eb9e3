"""tools/interrupts.py prints how soon each operation ends."""

from __future__ import annotations

import subprocess
import sys

from support.paths import ROOT


def test_times_are_printed() -> None:
    script = ROOT / "tools" / "interrupts.py"
    options = ["--network", "regnetx_002", "--rounds", "1", "--operations", "infer", "classify"]
    done = subprocess.run(
        [sys.executable, script, *options], capture_output=True, text=True, check=True
    )
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [row[0] for row in rows] == ["infer", "classify"]
    for _, taken, raised, ended in rows:
        assert 0 <= float(raised) <= float(ended)
        assert float(raised) < float(taken)
