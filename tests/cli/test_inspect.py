"""`resrt inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import resrt
from resrt import cli

CONFIG = resrt.ResNet(depths=[1, 1], width=8)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("inspect") / "x.engine"
    resrt.build(CONFIG, "random", input_size=32, precision="fp32", max_batch=2).save(path)
    return str(path)


def test_text(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", file]) == 0
    text = capsys.readouterr().out
    for expected in (
        f"ResNet, {len(resrt.build_graph(CONFIG))} layers",
        "float32 (N, 3, 32, 32), up to 2 images at once",
        "precision      fp32",
        "runs here      yes",
        "weights        random\n",
        "as torchvision: short side to 36",
        "labels         1000\n",
    ):
        assert expected in text
    assert "Conv2d(" not in text
    assert "tench" not in text
    assert cli.main(["inspect", file, "--labels"]) == 0
    assert "\n    0  tench, Tinca tinca\n    1  goldfish" in capsys.readouterr().out
    assert cli.main(["inspect", file, "--layers"]) == 0
    assert "layer1.0.conv1" in capsys.readouterr().out


def test_json(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", file, "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["input_shape"] == [3, 32, 32]
    assert document["runs_here"] is True
    assert not {"labels", "layers"} & document.keys()
    assert cli.main(["inspect", file, "--format", "json", "--labels", "--layers"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert len(listed["labels"]) == listed["classes"] == 1000
    assert len(listed["layers"]) > len(resrt.build_graph(CONFIG))
    assert listed.items() >= document.items()
    assert document["preprocessing"]["mean"] == pytest.approx([0.485, 0.456, 0.406])


def test_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").write_text("not an engine")
    assert cli.main(["inspect", str(tmp_path / "x")]) == 1
    assert "is not a resrt engine file" in capsys.readouterr().err
