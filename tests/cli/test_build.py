"""`resrt build`."""

from __future__ import annotations

from pathlib import Path

import pytest

import resrt
from resrt import cli


def test_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RESRT_CACHE", str(tmp_path / "cache"))
    out = str(tmp_path / "x.engine")
    arguments = ["build", "resnet18", "--weights", "random", "--input-size", "64", "-o", out]
    arguments += ["--max-batch", "1"]
    for options, from_cache in [([], False), ([], True), (["--no-cache"], False)]:
        assert cli.main([*arguments, *options]) == 0
        text = capsys.readouterr().out
        assert text.startswith("resnet18: 3x64x64 -> 1000 classes, ")
        assert ("from the cache" in text) == from_cache
    assert cli.main([*arguments, "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_labels(tmp_path: Path) -> None:
    out, labels = tmp_path / "x.engine", tmp_path / "labels.txt"
    labels.write_text("\n".join(f"class {i}" for i in range(1000)))
    arguments = ["build", "resnet18", "--weights", "random", "--input-size", "64", "--no-cache"]
    assert cli.main([*arguments, "-o", str(out), "--labels", str(labels), "--quiet"]) == 0
    assert resrt.inspect(out).info.labels[7] == "class 7"


def test_tensorrt_options_reach_the_backend(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "x.engine")
    arguments = ["build", "resnet18", "--weights", "random", "-o", out, "--no-cache"]
    assert cli.main([*arguments, "--workspace", "64"]) == 1
    assert "TensorRT" in capsys.readouterr().err
