"""`resrt export`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from resrt import cli


def run(path: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": images})[0]


def test_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "resnet18.onnx"
    arguments = ["export", "resnet18", "--weights", "random", "--input-size", "32", "-o", str(path)]
    assert cli.main([*arguments, "--classes", "5", "--batch", "2"]) == 0
    text = capsys.readouterr().out
    assert "images 2 x 3 x 32 x 32 -> logits 2 x 5, opset 17" in text
    assert f"ONNX Runtime {onnxruntime.__version__}" in text
    assert run(path, np.zeros((2, 3, 32, 32), np.float32)).shape == (2, 5)
    assert cli.main([*arguments, "--no-verify", "--quiet", "--overwrite"]) == 0
    assert capsys.readouterr().out == ""
    assert run(path, np.zeros((5, 3, 32, 32), np.float32)).shape == (5, 1000)
    assert cli.main(["export", "resnet18", "--weights", str(tmp_path / "no"), "-o", "x"]) == 1
    assert "cannot read the weights" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        cli.main([*arguments, "--batch", "many"])
