"""`resrt demo`, and errors of commands."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import resrt
from resrt import cli
from resrt.operations import demo


def test_the_trained_network_classifies_held_out_digits() -> None:
    out = io.StringIO()
    result = demo.demo(out=out)
    text = out.getvalue()
    assert result.total == 1797 // 5
    assert result.accuracy >= 0.97
    assert f"{result.accuracy:.2%} accuracy" in text
    assert "@@" in text  # pictures
    assert re.search(r"batch 1: median \d+\.\d+ ms", text)


def test_every_precision_is_accurate() -> None:
    scans, digits = demo.held_out()
    precisions = [name for name in resrt.backends()[0].precisions if name != "int8"]
    assert "fp32" in precisions
    for precision in precisions:
        predictions = demo.build_engine(precision).classify(list(scans), topk=1)
        assert np.mean([row[0].index for row in predictions] == digits) >= 0.97


def test_random_weights_are_inaccurate() -> None:
    """Only the trained weights make the demo accurate."""
    scans, digits = demo.held_out()
    engine = resrt.build(demo.graph(), "random", preprocessing=demo.PREPROCESSING)
    predictions = engine.classify(list(scans), topk=1)
    assert np.mean([row[0].index for row in predictions] == digits) < 0.5


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--precision", "fp32", "--threads", "1"]) == 0
    assert "fp32 on openvino" in capsys.readouterr().out


def test_command_reports_errors_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--threads", "0"], ["--precision", "fp64"]):
        with pytest.raises(SystemExit, match="2"):
            cli.main(["demo", *arguments])
    assert (
        "argument --threads: must be an integer of at least 1, not '0'" in capsys.readouterr().err
    )
    assert cli.main(["inspect", "no.engine"]) == 1
    assert capsys.readouterr().err == "resrt: cannot read 'no.engine': No such file or directory\n"
    with pytest.raises(resrt.FileError):
        cli.main(["--debug", "inspect", "no.engine"])


def test_module_and_version() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "resrt", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout == f"resrt {resrt.__version__}\n"


def test_build_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "resnet18.engine"
    arguments = ["build", "resnet18", "--weights", "random", "--input-size", "64", "-o", str(out)]
    assert cli.main([*arguments, "--max-batch", "2", "--precision", "fp32"]) == 0
    assert re.search(
        r"resnet18: 3x64x64 -> 1000 classes, fp32 .*\npreprocessing: .*\n.*MB in",
        capsys.readouterr().out,
    )
    assert resrt.load(out).info.max_batch == 2


def test_build_command_without_weights_or_a_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESRT_OFFLINE", "")  # so that the value set by the command is undone
    monkeypatch.setenv("RESRT_CACHE", str(tmp_path))
    out = tmp_path / "x.engine"
    assert cli.main(["build", "ResNeSt50", "--offline", "-o", str(out)]) == 1
    error = capsys.readouterr().err
    assert "ResNeSt50_pretrained.pdparams" in error
    assert str(tmp_path / "ResNeSt50") in error
    assert not out.exists()
