"""Which network of several with the same parameters a file is of, and what its arrays may be."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import resrt
from resrt import _core, weights
from support.paths import TESTS

LISTING = json.loads(gzip.decompress((TESTS / "parameter_shapes.json.gz").read_bytes()))


def save(network: str, path: Path) -> Path:
    arrays = _core.random_weights(resrt.build_graph(network, classes=7), 0)
    save_file(arrays, path)
    return path


@pytest.mark.parametrize(
    ("file", "metadata", "first"),
    [
        ("x.pdparams", {}, "ResNet50_vd"),
        ("ResNet50_vd_pretrained.pdparams", {}, "ResNet50_vd"),
        ("ResNet50_vc_pretrained.pdparams", {}, "ResNet50_vc"),
        ("resnet50_VC-0676ba61.pth", {}, "ResNet50_vc"),
        ("ResNet50_vc.pth", {"architecture": "ResNet50_vd"}, "ResNet50_vd"),
        ("x.pth", {"network": "ResNet50_vd_ssld"}, "ResNet50_vd_ssld"),
        ("ResNet50_vcx.pth", {}, "ResNet50_vd"),
    ],
)
def test_networks_with_the_same_parameters(file: str, metadata: dict[str, str], first: str) -> None:
    """PaddleClas's vc and vd variants have the same names and shapes."""
    shapes = LISTING["ResNet50_vd"]["shapes"]
    arrays = {name: np.broadcast_to(np.float32(1), shape) for name, shape in shapes.items()}
    checkpoint = weights.Checkpoint("", arrays, metadata, file=file)
    assert weights.describe(checkpoint).matches[0].network == first


def test_weights_of_another_function_are_refused(tmp_path: Path) -> None:
    """PaddleClas's vc and vd have the same parameters, but other shortcuts."""
    graph = resrt.build_graph("ResNet50_vd")
    arrays = {p.name: np.broadcast_to(np.float32(1), p.shape) for p in graph.parameters}
    shapes = LISTING["ResNet50_vd"]["shapes"]
    theirs = {name: np.broadcast_to(np.float32(1), shape) for name, shape in shapes.items()}
    assert weights.fit(theirs, graph).keys() == arrays.keys()
    for told, is_refused in (
        ("ResNet50_vc", True),
        ("ResNet50_vd_ssld", False),
        ("unknown", False),
    ):
        checkpoint = weights.Checkpoint("", theirs, {"architecture": told})
        if is_refused:
            with pytest.raises(resrt.WeightsError, match=rf"it says that it is of {told}, which "):
                weights.fit_checkpoint(checkpoint, graph, origin="it")
        else:
            weights.fit_checkpoint(checkpoint, graph, origin="it")


def test_the_architecture_beside_a_file(tmp_path: Path) -> None:
    path = save("resnet18", tmp_path / "model.safetensors")
    for text in ("{", "[]", '{"architecture": 3}'):
        (tmp_path / "config.json").write_text(text)
        assert "architecture" not in weights.read(path).metadata
    (tmp_path / "config.json").write_text('{"architecture": "resnet18"}')
    assert weights.read(path).metadata["architecture"] == "resnet18"
    assert weights.read(tmp_path).metadata["architecture"] == "resnet18"


def test_counters_of_training_do_not_matter(tmp_path: Path) -> None:
    """Every torch.save(model.state_dict(), path) has them."""
    path = save("resnet18", tmp_path / "x")
    counted = load_file(path) | {
        f"layer{i}.0.bn1.num_batches_tracked": np.array(7) for i in range(1, 5)
    }
    save_file(counted, path)
    assert resrt.convert(path, tmp_path / "out")["network"] == "resnet18"


class _Tensor:
    """Like a PyTorch tensor with a gradient, of a type that NumPy does not have."""

    dtype = "torch.bfloat16"

    def __init__(self, array: np.ndarray, is_ready: bool = False) -> None:
        self.array, self.is_ready = array, is_ready

    def detach(self) -> _Tensor:
        return self

    def cpu(self) -> _Tensor:
        return self

    def float(self) -> np.ndarray:
        return self.array

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise TypeError("Got unsupported ScalarType BFloat16")


def test_a_state_dict_in_memory() -> None:
    graph = resrt.build_graph("resnet18", classes=7, input_size=32)
    arrays = _core.random_weights(graph, 0)
    state = {f"module.{name}": _Tensor(array) for name, array in arrays.items()}
    state["module.bn1.num_batches_tracked"] = np.array(7)  # type: ignore[assignment]
    images = np.ones((1, 3, 32, 32), np.float32)
    expected = resrt.build(graph, arrays, precision="fp32").infer(images)
    built = resrt.build("resnet18", state, input_size=32, precision="fp32")  # type: ignore[arg-type]
    np.testing.assert_array_equal(built.infer(images), expected)


def test_metadata_of_other_programs_is_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = {"labels": "cat, dog", "preprocessing": "imagenet", "input_size": "224", "x": "y"}
    arrays = _core.random_weights(resrt.build_graph("resnet18", classes=7), 0)
    save_file(arrays, tmp_path / "x", texts)
    assert weights.read(tmp_path / "x").metadata == {"x": "y"}
    for key in ("labels", "preprocessing", "input_size"):
        assert f"ignored {key} in the weights file's metadata" in caplog.text
    engine = resrt.build("resnet18", tmp_path / "x", input_size=32)
    assert (engine.info.classes, engine.info.labels) == (7, [])


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\x89HDF\r\n\x1a\n", r"an HDF5 file \(.h5\).*numpy.savez"),
        (b"\x1c\0\0\0TFL3", "TensorFlow Lite"),
        (b"\x1c\0\0\0ORTM", "ONNX Runtime model"),
        (b"GGUF\3", "GGUF"),
        (b"<?xml version='1.0'?><net>", "OpenVINO's IR"),
        (b"ftrt", "TensorRT engine"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"\x1f\x8b\x08", "gzip"),
    ],
)
def test_files_of_other_kinds_are_named(content: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content + bytes(100))
    with pytest.raises(resrt.WeightsError, match=rf"unsupported weights format: .*{what}"):
        weights.read(tmp_path / "x")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("x.onnx.data", "external data of an ONNX file.*give the .onnx file"),
        ("x.onnx_data", "external data of an ONNX file.*give the .onnx file"),
        ("inference.pdmodel", "exported for inference.*give the .pdiparams file"),
    ],
)
def test_files_without_a_mark_are_named(name: str, what: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(np.arange(100, dtype=np.float32).tobytes())
    with pytest.raises(resrt.WeightsError, match=rf"unsupported weights format: .*{name}.*{what}"):
        weights.read(tmp_path / name)


def test_the_command_line_chooses_an_entry(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from resrt import cli

    arrays = _core.random_weights(resrt.build_graph("resnet18", classes=7), 0)
    both = {f"student.{k}": v for k, v in arrays.items()}
    both |= {f"teacher.{k}": v + 1 for k, v in arrays.items()}
    source, out = str(tmp_path / "x"), str(tmp_path / "out")
    save_file(both, source)
    assert cli.main(["convert", source, out, "--key", "teacher"]) == 0
    np.testing.assert_array_equal(load_file(out)["fc.bias"], arrays["fc.bias"] + 1)
    assert cli.main(["weights", source, "--key", "teacher"]) == 0
    assert "left aside   student.bn1.bias" in capsys.readouterr().out
