"""`resrt.convert`; tests/weights/test_names.py converts weights of other naming conventions."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import resrt
from resrt import _core

LABELS = [f"class {i}" for i in range(7)]
STEPS = resrt.Preprocessing(
    resize=40, interpolation="bicubic", mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6]
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    graph = resrt.build_graph("resnet18", classes=7)
    path = tmp_path_factory.mktemp("convert") / "source.safetensors"
    save_file(_core.random_weights(graph, 0), path)
    return path


def test_result(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "output.safetensors"
    metadata = resrt.convert(source, output, names=LABELS)
    assert metadata["network"] == "resnet18"
    assert metadata["source"].startswith("source.safetensors: ")
    assert json.loads(metadata["labels"]) == LABELS
    assert json.loads(metadata["input_size"]) == [224, 224]
    before, after = load_file(source), load_file(output)
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)
    info = resrt.build("resnet18", output, max_batch=1).info
    assert (info.labels, info.classes, info.input_shape) == (LABELS, 7, (3, 224, 224))


def test_preprocessing_is_scaled_with_the_input_size(source: Path, tmp_path: Path) -> None:
    """Converted weights are built with the same preprocessing as the source, at any size."""
    output = tmp_path / "output.safetensors"
    resrt.convert(source, output)
    for size in (224, 288):
        ours, theirs = (
            resrt.build("resnet18", weights, input_size=size, max_batch=1).info.preprocessing
            for weights in (output, source)
        )
        assert ours.resize == theirs.resize
        assert (ours.mean, ours.std, ours.interpolation) == (
            theirs.mean,
            theirs.std,
            theirs.interpolation,
        )


def test_metadata_of_the_source_is_kept(tmp_path: Path) -> None:
    exported, output = tmp_path / "source.onnx", tmp_path / "output.safetensors"
    resrt.export(
        "resnet18",
        exported,
        "random",
        input_size=64,
        classes=7,
        labels=LABELS,
        preprocessing=STEPS,
        verify=False,
    )
    metadata = resrt.convert(exported, output)
    assert json.loads(metadata["labels"]) == LABELS
    assert json.loads(metadata["input_size"]) == [64, 64]
    assert json.loads(metadata["preprocessing"])["resize"] == 40
    assert resrt.weights.read(output).metadata == metadata


def test_failure_keeps_the_old_file(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "output.safetensors"
    output.write_bytes(b"old")
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(resrt.InputError, match="2 labels for 7 classes"):
        resrt.convert(source, output, names=["a", "b"])
    with pytest.raises(resrt.WeightsError, match="fits no network of the catalog"):
        resrt.convert(tmp_path / "other.safetensors", output)
    with pytest.raises(resrt.FileError, match="cannot read the weights '.*missing'"):
        resrt.convert(tmp_path / "missing", output)
    assert output.read_bytes() == b"old"
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "other.safetensors",
        "output.safetensors",
    ]


def test_other_networks_with_the_same_parameters_are_named(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """resnetblur18 has the parameters of resnet18, and computes something else."""
    output = tmp_path / "output.safetensors"
    assert resrt.convert(source, output)["network"] == "resnet18"
    (record,) = (one for one in caplog.records if "with other results" in one.getMessage())
    assert "those of resnet18; they also fit resnetblur18, with other" in record.getMessage()
    caplog.clear()
    for name in ("resnet18", "resnetblur18"):
        named = tmp_path / f"my_{name}-best.safetensors"
        named.write_bytes(source.read_bytes())
        assert resrt.convert(named, output)["network"] == name
        assert resrt.convert(source, output, network=name)["network"] == name
        # The converted file says what it is.
        assert resrt.convert(output, tmp_path / "again")["network"] == name
    assert not caplog.records


@pytest.mark.parametrize(
    "changes",
    [{"mean": float("nan")}, {"mean": [0.1, 0.2]}, {"std": 0}, {"std": -1}, {"std": float("inf")}],
    ids=str,
)
def test_invalid_preprocessing_writes_nothing(
    source: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(resrt.InputError, match="mean"):
        resrt.convert(source, tmp_path / "x.safetensors", preprocessing=changes)
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_not_unicode(source: Path, tmp_path: Path) -> None:
    named = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.safetensors"))
    named.write_bytes(source.read_bytes())
    output = tmp_path / "output.safetensors"
    assert resrt.convert(named, output)["source"].startswith("caf\\xe9.safetensors: ")
    info = resrt.build("resnet18", named, max_batch=1, input_size=32, tune=0).info
    assert info.weights == "caf\\xe9.safetensors"


@pytest.mark.parametrize("suffix", [".bin", ".pth", ".engine"])
def test_the_suffix_of_another_format_is_refused(source: Path, tmp_path: Path, suffix: str) -> None:
    with pytest.raises(resrt.InputError, match=f"{suffix} is the suffix of another format"):
        resrt.convert(source, tmp_path / f"x{suffix}")


def test_permissions_are_those_of_the_umask(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "output.safetensors"
    before = os.umask(0o022)
    try:
        resrt.convert(source, output)
    finally:
        os.umask(before)
    assert stat.S_IMODE(output.stat().st_mode) == 0o644
