"""Folders and indices of weights in several files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import resrt
from resrt import _core, weights


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    return dict(_core.random_weights(resrt.build_graph("resnet18", classes=7), 0))


def shard(folder: Path, arrays: dict[str, np.ndarray], name: str = "model.safetensors") -> Path:
    names = sorted(arrays)
    listed = {}
    for index, part in enumerate((names[:50], names[50:])):
        file = f"model-{index + 1:05}-of-00002.safetensors"
        save_file({f"model.{key}": arrays[key] for key in part}, folder / file)
        listed |= {f"model.{key}": file for key in part}
    path = folder / f"{name}.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": listed}))
    return path


def test_a_folder_and_its_index(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    index = shard(tmp_path, arrays)
    graph = resrt.build_graph("resnet18", classes=7)
    for path in (tmp_path, index):
        fitted = weights.load(path, graph)
        for name, array in arrays.items():
            np.testing.assert_array_equal(fitted[name], array)
    checksum = weights.read(index).sha256
    assert resrt.build("resnet18", tmp_path, input_size=32).info.weights_sha256 == checksum
    assert resrt.convert(tmp_path, tmp_path / "out")["network"] == "resnet18"


def test_a_folder_with_one_file(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    save_file(arrays, tmp_path / "pytorch_model.bin")
    (tmp_path / "optimizer.bin").write_bytes(b"x")
    assert weights.read(tmp_path).arrays.keys() == arrays.keys()


def test_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(resrt.FileError, match=r"as a folder it has none of model.safetensors, "):
        weights.read(tmp_path)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "no weight_map"),
        ('{"weight_map": {}}', "no weight_map"),
        ('{"weight_map": {"a": 3}}', "its weight_map has 3 for 'a'"),
        ('{"weight_map": {"a": "../x"}}', "outside of its own folder"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "outside of its own folder"),
        ('{"weight_map": {"a": ".."}}', "outside of its own folder"),
    ],
)
def test_invalid_indices(document: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.index.json"
    path.write_text(document)
    with pytest.raises(resrt.WeightsError, match=message):
        weights.read(path)


def test_missing_parts(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    index = shard(tmp_path, arrays)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(resrt.FileError, match="model-00002-of-00002.safetensors': No such file"):
        weights.read(index)
    save_file({"x": np.zeros(1)}, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(resrt.WeightsError, match=r"lists \d+ arrays that its files do not have"):
        weights.read(index)


def test_a_lone_part(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    index = shard(tmp_path, arrays)
    part = tmp_path / "model-00002-of-00002.safetensors"
    with pytest.raises(
        resrt.WeightsError, match="is part 2 of 2 of a checkpoint in several files"
    ) as caught:
        resrt.build("resnet18", part)
    assert f"give its index, '{index}', or the folder" in str(caught.value)
    index.unlink()
    with pytest.raises(resrt.WeightsError, match=f"copy the others and the index, '{index.name}'"):
        weights.read(part)
    # The only one is whole.
    save_file(arrays, tmp_path / "model-00001-of-00001.safetensors")
    assert len(weights.read(tmp_path / "model-00001-of-00001.safetensors").arrays) == len(arrays)
    with pytest.raises(resrt.FileError, match="No such file"):
        weights.read(tmp_path / "model-00003-of-00003.safetensors")


def test_the_configs_in_a_folder(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    """They are beside the weights, and not beside the folder."""
    folder = tmp_path / "model"
    folder.mkdir()
    shard(folder, arrays)
    config = {"architecture": "resnet18", "pretrained_cfg": {"mean": [0.5] * 3, "crop_pct": 1}}
    (folder / "config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", "mean": [0] * 3}))
    info = resrt.build("resnet18", folder).info
    assert (info.preprocessing.mean, info.preprocessing.resize) == ([0.5] * 3, 224)
