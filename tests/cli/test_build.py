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


def test_preprocessing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "x.engine")
    arguments = ["build", "resnet18", "--weights", "random", "--input-size", "64", "--no-cache"]
    arguments += ["--max-batch", "1", "-o", out]
    for options, expected in (
        (
            [],
            "short side to 67, bicubic; crop 64x64; mean 0.485 0.456 0.406, std 0.229 0.224 0.225; "
            "assumed as for resnet18.a1_in1k",
        ),
        (
            [
                "--mean",
                ".5",
                ".25",
                "1",
                "--std",
                "0.5",
                "--crop-pct",
                "0.8",
                "--interpolation",
                "bilinear",
                "--crop-mode",
                "squash",
            ],
            "as squash: short side to 80, bilinear; crop 64x64; "
            "mean 0.5 0.25 1, std 0.5 0.5 0.5; mean, std, crop_pct, crop_mode, interpolation as "
            "given",
        ),
        (
            ["--like", "resnet18.tv_in1k", "--resize", "70"],
            "short side to 70, bilinear; crop 64x64; "
            "mean 0.485 0.456 0.406, std 0.229 0.224 0.225; resize as given; the rest as for "
            "resnet18.tv_in1k",
        ),
    ):
        Path(out).unlink(missing_ok=True)
        assert cli.main([*arguments, *options]) == 0
        assert expected in capsys.readouterr().out
        assert cli.main(["inspect", out]) == 0
        assert expected in capsys.readouterr().out
    for options in (["--resize", "70", "--crop-pct", "1"], ["--crop-mode", "border"]):
        with pytest.raises(SystemExit, match="2"):
            cli.main([*arguments, *options])


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
