"""`resrt.export`: what ONNX files compute and contain."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import resrt
from resrt import _core, weights
from resrt.graphs import onnx_writer
from resrt.operations import demo
from resrt.operations import export as exporting
from support.golden import GOLDEN, Golden
from support.networks import GRID, VARIANTS, sample

GOLDENS = sorted(path.stem for path in GOLDEN.glob("*.npz"))


def run(path: Path | bytes, images: np.ndarray) -> np.ndarray:
    source = path if isinstance(path, bytes) else str(path)
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": images})[0]


def write(graph: resrt.Graph, arrays: weights.Weights, **options: object) -> bytes:
    settings = {"batch": None, "opset": 17, "metadata": {}} | options
    model = onnx_writer.write(graph, arrays, **settings)  # type: ignore[arg-type]
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@pytest.mark.parametrize("config", [*GRID, *VARIANTS], ids=repr)
@pytest.mark.parametrize("size", [(32, 32), (39, 49)], ids=str)
def test_logits_match_the_definitions(config, size) -> None:  # type: ignore[no-untyped-def]
    """Those of a graph, before and after the passes."""
    network = sample(config, size)
    for graph, arrays in ((network.graph, network.weights), *network.after_passes()):
        network.assert_close(run(write(graph, arrays), network.images))


@pytest.mark.parametrize("opset", [13, 15, 18, 21])
def test_opsets_compute_the_same(opset: int) -> None:
    for config in (GRID[2], GRID[10], GRID[-1], *VARIANTS):
        graph = resrt.build_graph(config, classes=5, input_size=32)
        arrays = _core.random_weights(graph, 1)
        x = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
        logits = run(write(graph, arrays, opset=opset), x)
        np.testing.assert_allclose(logits, run(write(graph, arrays), x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", GOLDENS)
def test_logits_match_the_golden_files(name: str, tmp_path: Path) -> None:
    golden = Golden.read(GOLDEN / f"{name}.npz")
    path = tmp_path / "model.onnx"
    exported = resrt.export(
        golden.model, path, golden.weights(), input_size=golden.size, verify=False
    )
    assert exported.verified_by is None
    largest = np.abs(golden.logits).max()
    np.testing.assert_allclose(
        run(path, golden.images()), golden.logits, rtol=0, atol=1e-4 * largest
    )


def test_demo_network_survives_the_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "digits.onnx"
    labels = [f"the {digit}" for digit in range(10)]
    exported = resrt.export(
        demo.graph(),
        path,
        demo.weights_path(),
        labels=labels,
        preprocessing=demo.PREPROCESSING,
    )
    assert (exported.input_shape, exported.classes, exported.batch) == ((1, 32, 32), 10, None)
    assert exported.verified_by == f"ONNX Runtime {onnxruntime.__version__}"
    assert exported.difference is not None
    assert 0 < exported.difference < 1e-4

    scans, digits = demo.held_out()
    images = resrt.images.preprocess_batch(scans, demo.PREPROCESSING, (1, 32, 32))
    assert np.mean(run(path, images).argmax(1) == digits) >= 0.97

    original = weights.load(demo.weights_path(), demo.graph())
    back = weights.load(path, demo.graph())
    assert back.keys() == original.keys()
    for name, array in original.items():
        np.testing.assert_array_equal(back[name], array)

    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert properties["network"] == demo.NAME
    assert properties["weights"] == "digits.safetensors"
    assert json.loads(properties["labels"]) == labels
    steps = json.loads(properties["preprocessing"])
    assert (steps["resize"], steps["mean"]) == (32, pytest.approx([0.3]))


# Together they are longer than a name in an ONNX file may be.
LABELS = [f"the {number}. of {'several ' * 100}" for number in range(7)]
STEPS = resrt.Preprocessing(
    resize=40, interpolation="bicubic", mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6]
)
OTHER_STEPS = resrt.Preprocessing(
    resize=33, interpolation="bilinear", mean=[0.0] * 3, std=[1.0] * 3, pipeline="paddleclas"
)


def described(steps: resrt.Preprocessing) -> tuple[object, ...]:
    return steps.resize, steps.interpolation, steps.mean, steps.std, steps.pipeline


@pytest.mark.parametrize("fold", [False, True])
def test_labels_and_preprocessing_survive_the_round_trip(
    small_graph: resrt.Graph, fold: bool, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    resrt.export(
        small_graph, path, "random", labels=LABELS, preprocessing=STEPS, fold=fold, verify=False
    )
    info = resrt.build(small_graph, path).info
    assert info.labels == LABELS
    assert described(info.preprocessing) == described(STEPS)
    # Arguments override the file.
    info = resrt.build(small_graph, path, labels=list("abcdefg"), preprocessing=OTHER_STEPS).info
    assert info.labels == list("abcdefg")
    assert described(info.preprocessing) == described(OTHER_STEPS)


def test_labels_and_preprocessing_survive_a_conversion(tmp_path: Path) -> None:
    exported, converted = tmp_path / "model.onnx", tmp_path / "model.safetensors"
    resrt.export(
        "RegNetX_200MF",
        exported,
        "random",
        classes=7,
        input_size=32,
        labels=LABELS,
        preprocessing=STEPS,
        verify=False,
    )
    resrt.convert(exported, converted)
    # Their input size is kept, too; the short side is resized in proportion to another.
    for input_size, resize in ((None, 40), (32, 40), (64, 80)):
        info = resrt.build("RegNetX_200MF", converted, input_size=input_size, max_batch=1).info
        assert info.input_shape == (3, input_size or 32, input_size or 32)
        assert info.labels == LABELS
        assert described(info.preprocessing) == (resize, *described(STEPS)[1:])


def exported_with(path: Path, graph: resrt.Graph, metadata: dict[str, str]) -> onnx.ModelProto:
    path.write_bytes(write(graph, _core.random_weights(graph, 0), metadata=metadata))
    return onnx.load(path)


@pytest.mark.parametrize(
    "metadata",
    [
        {"labels": "[1, 2]"},
        {"labels": "[" * 100_000},
        {"labels": '["only one"]'},
        {"preprocessing": "{}"},
        {"preprocessing": "7"},
        {"preprocessing": "[" * 100_000},
        {"preprocessing": '{"resize": "large"}'},
    ],
    ids=lambda metadata: str(metadata)[:40],
)
def test_damaged_metadata(
    small_graph: resrt.Graph, metadata: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    exported_with(path, small_graph, metadata)
    (what,) = metadata
    with pytest.raises(resrt.InputError, match=what):
        resrt.build(small_graph, path)
    weights.load(path, small_graph)
    # Arguments make it unnecessary to read them.
    resrt.build(small_graph, path, labels=list("abcdefg"), preprocessing=STEPS)


def test_metadata_of_other_producers_is_ignored(small_graph: resrt.Graph, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = exported_with(path, small_graph, {"labels": "on", "preprocessing": "off"})
    model.producer_name = "another"
    path.write_bytes(model.SerializeToString())
    assert weights.read(path).metadata == {}
    assert resrt.build(small_graph, path).info.labels == []


@pytest.mark.parametrize("fold", [False, True])
def test_batch_and_fold(small_graph: resrt.Graph, fold: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    exported = resrt.export(small_graph, path, "random", batch=3, fold=fold)
    assert exported.batch == 3
    assert ("BatchNormalization" in {n.op_type for n in onnx.load(path).graph.node}) is not fold
    images = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
    expected = resrt.build(small_graph, "random", precision="fp32").infer(images)
    np.testing.assert_allclose(run(path, images), expected, atol=1e-4 * np.abs(expected).max())
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
        run(path, images[:2])


def test_file_contains_shapes_and_names(small_graph: resrt.Graph) -> None:
    model = onnx.load_from_string(write(small_graph, _core.random_weights(small_graph, 0)))
    (images,) = model.graph.input
    assert images.type.tensor_type.shape.dim[0].dim_param == "batch"
    shapes = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim[1:])
        for value in model.graph.value_info
    }
    for layer in small_graph.layers[1:-1]:
        assert shapes[layer.name] == layer.shape
    parameters = {tensor.name for tensor in model.graph.initializer}
    assert parameters >= {parameter.name for parameter in small_graph.parameters}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"opset": 12}, resrt.InputError, "opset must be from 13 to"),
        ({"opset": 999}, resrt.InputError, "opset must be from 13 to"),
        ({"opset": "17"}, resrt.InputError, "opset must be an integer of at least 1, not '17'"),
        ({"batch": 0}, resrt.InputError, "batch must be an integer of at least 1, not 0"),
        ({"labels": ["a", "b"]}, resrt.InputError, "2 labels for 7 classes"),
        ({"classes": 7}, resrt.InputError, "a graph already has its input size"),
    ],
)
def test_invalid_options(
    small_graph: resrt.Graph,
    tmp_path: Path,
    options: dict[str, object],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        resrt.export(small_graph, tmp_path / "x.onnx", "random", **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_unwritable_file(small_graph: resrt.Graph, tmp_path: Path) -> None:
    with pytest.raises(resrt.FileError, match="cannot write '.*nowhere"):
        resrt.export(small_graph, tmp_path / "nowhere" / "x.onnx", "random", verify=False)
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(resrt.FileError, match="cannot write"):
        resrt.export(small_graph, tmp_path / "folder.onnx", "random", verify=False)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.onnx"]


def test_different_logits_are_detected_and_the_old_file_is_kept(
    small_graph: resrt.Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("the old one")

    def wrong(written: bytes, images: np.ndarray) -> list[np.ndarray]:
        return [run(written, images) * np.float32(1.001)]

    monkeypatch.setattr(exporting, "_run", wrong)
    with pytest.raises(resrt.BackendError, match=r"of small differ from resrt's by 1\.0e-03 of"):
        resrt.export(small_graph, path, "random")
    assert path.read_text() == "the old one"


def test_too_large(
    small_graph: resrt.Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_LARGEST_FILE", 1000)
    with pytest.raises(resrt.InputError, match="but an ONNX file holds at most 2 GB"):
        resrt.export(small_graph, tmp_path / "x.onnx", "random")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_missing_packages(
    package: str, small_graph: resrt.Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    message = rf" requires '{package}', which is not installed: pip install 'resrt\[onnx\]'"
    with pytest.raises(resrt.PackageError, match=message):
        resrt.export(small_graph, tmp_path / "x.onnx", "random", verify=True)
    assert not list(tmp_path.iterdir())
