"""Engines and ONNX files with other outputs than the logits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import resrt
from resrt import _core

Batch = npt.NDArray[np.float32]

# A network of each family, with the channels and the side of its second stage at 64 pixels.
NETWORKS = {
    "resnet18": (128, 8),
    "ResNeSt50": (512, 8),
    "RegNetX_400MF": (64, 8),
    "regnetv_040": (192, 8),
    "cifar_resnet20": (32, 32),
}


def build(name: str, *outputs: str, max_batch: int = 2) -> resrt.Engine:
    return resrt.build(
        name, "random", input_size=64, precision="fp32", max_batch=max_batch, outputs=outputs
    )


@pytest.fixture(scope="module")
def images() -> Batch:
    return np.random.default_rng(0).standard_normal((3, 3, 64, 64), np.float32)


@pytest.fixture
def batch(images: Batch) -> Iterator[Batch]:
    """Yield images, which no engine may change."""
    batch = images.copy()
    yield batch
    np.testing.assert_array_equal(batch, images)


@pytest.mark.parametrize("name", NETWORKS)
def test_stage_features_and_logits_of_every_family(name: str, batch: Batch) -> None:
    channels, side = NETWORKS[name]
    engine = build(name, "layer2", "features", "logits")
    outputs = engine.infer(batch)  # in two parts
    assert isinstance(outputs, dict)
    assert {output: array.shape[1:] for output, array in outputs.items()} == engine.info.outputs
    assert list(outputs) == ["layer2", "features", "logits"]
    assert outputs["layer2"].shape == (3, channels, side, side)
    usual = resrt.build(name, "random", input_size=64, precision="fp32", max_batch=2)
    expected = usual.infer(batch)
    tolerance = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(outputs["logits"], expected, rtol=0, atol=tolerance)
    # The head of the classifier, from the pooled features.
    graph = resrt.build_graph(name, input_size=64)
    weights = _core.random_weights(graph, 0)
    head = graph.layers[-1].name
    logits = outputs["features"] @ weights[f"{head}.weight"].T + weights[f"{head}.bias"]
    tolerance = 1e-5 * np.abs(logits).max()
    np.testing.assert_allclose(outputs["logits"], logits, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["resnet18", "ResNeSt50", "RegNetX_400MF"])
def test_features_are_the_mean_of_the_last_stage(name: str, batch: Batch) -> None:
    outputs = build(name, "layer4", "features").infer(batch)
    mean = outputs["layer4"].mean((2, 3))
    np.testing.assert_allclose(outputs["features"], mean, rtol=0, atol=1e-5 * np.abs(mean).max())


def test_layers_within_fused_ones(batch: Batch) -> None:
    """A layer that is an output is not folded or fused into another."""
    names = ("layer1.0.conv1", "layer1.0.bn1", "layer1.0.relu", "layer1.0.add")
    graph = resrt.build_graph("resnet18", input_size=64)
    names = tuple(name for name in names if name in {layer.name for layer in graph.layers})
    outputs = build("resnet18", *names, "layer1.0.bn1.relu").infer(batch)
    weights = _core.random_weights(graph, 0)
    scale = weights["layer1.0.bn1.weight"] / np.sqrt(weights["layer1.0.bn1.running_var"] + 1e-5)
    shift = weights["layer1.0.bn1.bias"] - scale * weights["layer1.0.bn1.running_mean"]
    normalised = outputs["layer1.0.conv1"] * scale[:, None, None] + shift[:, None, None]
    tolerance = 1e-5 * np.abs(normalised).max()
    np.testing.assert_allclose(outputs["layer1.0.bn1"], normalised, rtol=0, atol=tolerance)
    np.testing.assert_array_equal(
        outputs["layer1.0.bn1.relu"], np.maximum(outputs["layer1.0.bn1"], 0)
    )


def test_a_single_output_is_an_array(batch: Batch, tmp_path: Path) -> None:
    engine = build("resnet18", "features")
    features = engine.infer(batch)
    assert features.shape == (3, 512)
    engine.save(tmp_path / "features.engine")
    loaded = resrt.load(tmp_path / "features.engine")
    assert loaded.info.outputs == {"features": (512,)}
    assert resrt.inspect(tmp_path / "features.engine").info.outputs == {"features": (512,)}
    np.testing.assert_array_equal(loaded.infer(batch), features)
    out = np.empty((3, 512), np.float32)
    assert loaded.infer(batch, out=out) is out
    np.testing.assert_array_equal(out, features)
    assert "features" in repr(loaded)


def test_memory_of_the_caller_for_several_outputs(batch: Batch) -> None:
    engine = build("resnet18", "layer4", "logits")
    expected = engine.infer(batch)
    out = {name: np.empty_like(array) for name, array in reversed(expected.items())}
    given = engine.infer(batch, out=out)
    assert list(given) == ["layer4", "logits"]
    for name, array in given.items():
        assert array is out[name]
        np.testing.assert_array_equal(array, expected[name])
    with pytest.raises(resrt.InputError, match=r"out must be a dict of layer4, logits"):
        engine.infer(batch, out=out["logits"])
    with pytest.raises(resrt.InputError, match=r"out must have layer4, logits, not logits"):
        engine.infer(batch, out={"logits": out["logits"]})
    with pytest.raises(resrt.InputError, match=r"out\['layer4'\] must be a float32 array"):
        engine.infer(batch, out={**out, "layer4": out["logits"]})


def test_uint8_gives_all_outputs() -> None:
    engine = build("resnet18", "layer4", "logits")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    steps = engine.info.preprocessing
    normalised = (pixels / 255 - np.array(steps.mean)) / np.array(steps.std)
    expected = engine.infer(normalised.transpose(0, 3, 1, 2).astype(np.float32))
    outputs = engine.infer(pixels)
    for name, array in expected.items():
        tolerance = 1e-4 * np.abs(array).max()
        np.testing.assert_allclose(outputs[name], array, rtol=0, atol=tolerance)


def test_an_image_with_nan_has_no_finite_output(batch: Batch) -> None:
    engine = build("resnet18", "layer1", "features")
    expected = engine.infer(batch)
    bad = batch.copy()
    bad[1, 0, 5, 5] = np.nan
    for name, array in engine.infer(bad).items():
        assert np.isnan(array[1]).all()
        np.testing.assert_array_equal(array[[0, 2]], expected[name][[0, 2]])


def test_classification_takes_the_logits() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    usual = resrt.build("resnet18", "random", input_size=64, precision="fp32")
    several = build("resnet18", "features", "logits")
    assert several.classify(pixels) == usual.classify(pixels)
    with pytest.raises(resrt.InputError, match="built with the outputs features; build it with"):
        build("resnet18", "features").classify(pixels)


def test_unknown_and_repeated_outputs() -> None:
    with pytest.raises(
        resrt.ModelError, match="no output 'layer5'; choose from 'layer1', .*'features', 'logits'"
    ):
        build("resnet18", "layer5")
    with pytest.raises(resrt.ModelError, match="'features' of resnet18 is selected twice"):
        build("resnet18", "features", "features")
    with pytest.raises(resrt.ModelError, match="the output 'input' is the input of resnet18"):
        build("resnet18", "layer1", "input")
    with pytest.raises(resrt.InputError, match="outputs must be a list of names, not 'features'"):
        resrt.build("resnet18", "random", outputs="features")
    with pytest.raises(resrt.InputError, match="outputs must be a list of names"):
        build("resnet18")


def test_the_cache_knows_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESRT_CACHE", str(tmp_path / "cache"))

    def built(outputs: list[str] | None) -> resrt.BuiltFile:
        options = {"precision": "fp32", "max_batch": 1, "input_size": 32, "outputs": outputs}
        return resrt.build_file("cifar_resnet20", tmp_path / "a.engine", "random", **options)

    assert not built(None).from_cache
    assert not built(["features"]).from_cache
    again = built(["features"])
    assert again.from_cache
    assert again.info.outputs == {"features": (64,)}


@pytest.mark.parametrize("name", ["resnet18", "ResNeSt50"])
def test_onnx_files_have_the_outputs(name: str, batch: Batch, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    outputs = ["layer2", "features", "logits"]
    exported = resrt.export(
        name, tmp_path / "a.onnx", "random", input_size=64, outputs=outputs, verify=True
    )
    expected = build(name, *outputs).infer(batch)
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_outputs()] == outputs
    assert {n: (3, *shape) for n, shape in exported.outputs.items()} == {
        n: array.shape for n, array in expected.items()
    }
    for output, array in zip(outputs, session.run(None, {"images": batch}), strict=True):
        tolerance = 1e-5 * np.abs(array).max()
        np.testing.assert_allclose(expected[output], array, rtol=0, atol=tolerance)


def test_an_onnx_file_has_only_the_layers_of_its_outputs(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    resrt.export("resnet18", tmp_path / "a.onnx", "random", input_size=64, outputs=["layer2"])
    model = onnx.load(tmp_path / "a.onnx")
    names = {tensor.name for tensor in model.graph.initializer}
    assert "layer2.1.conv2.weight" in names
    assert not any(name.startswith(("layer3", "fc")) for name in names)
