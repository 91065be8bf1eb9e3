"""`resrt compare`."""

from __future__ import annotations

import json

import pytest

from resrt import cli
from resrt.operations.compare import competitors
from resrt.operations.compare.competitors import Competitor


def test_output(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["compare", "resnet18", "--weights", "random", "--input-size", "32", "--batch", "1"]
    arguments += ["--rounds", "2", "--threads", "1", "--with", "onnxruntime"]
    assert cli.main(arguments) == 0
    captured = capsys.readouterr()
    assert "resnet18, images 3 x 32 x 32" in captured.out
    assert "ONNX Runtime" in captured.out
    assert captured.err == ""
    assert cli.main([*arguments, "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in document["measurements"]] == ["resrt", "onnxruntime"]
    assert document["machine"]["cores"] >= 1
    assert cli.main([*arguments, "--with", "mxnet"]) == 2
    assert "unknown competitor 'mxnet'" in capsys.readouterr().err


def test_failing_library(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Competitor("broken", "Broken", "no_such_module", (), "")
    monkeypatch.setattr(competitors, "ALL", (broken,))
    arguments = ["compare", "resnet18", "--weights", "random", "--input-size", "32", "--batch", "1"]
    assert cli.main([*arguments, "--rounds", "1", "--threads", "1"]) == 3
    assert "Broken" in capsys.readouterr().out
