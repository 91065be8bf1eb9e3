"""Calibrations, and engines and ONNX files of 8-bit integers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import resrt
from resrt import demo
from resrt.cli import main
from resrt.engine.ranges import Values, estimate
from support.golden import GOLDEN, Golden
from support.networks import GRID, VARIANTS, sample_of

Batch = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def calibration(small_graph: resrt.Graph) -> resrt.Calibration:
    return resrt.calibrate(small_graph, "random", noise(8))


def noise(count: int, size: int = 32, seed: int = 1) -> Batch:
    return np.random.default_rng(seed).standard_normal((count, 3, size, size), np.float32)


def cosine(one: Batch, other: Batch) -> float:
    a, b = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def steps(engine: resrt.Engine) -> str:
    """Return the engine's plan as OpenVINO's XML, before the constants."""
    length = int.from_bytes(engine.plan[:8], "little")
    return engine.plan[8 : 8 + length].decode()


@pytest.mark.parametrize("config", [*GRID, *VARIANTS], ids=range(len(GRID + VARIANTS)))
def test_logits_are_close_to_those_of_fp32(config: object) -> None:
    network = sample_of(resrt.build_graph(config, input_size=32))
    images = network.images
    exact = resrt.build(network.graph, network.weights, precision="fp32", max_batch=4)
    found = resrt.calibrate(network.graph, network.weights, images, method="minmax")
    engine = resrt.build(
        network.graph, network.weights, precision="int8", calibration=found, max_batch=4
    )
    assert engine.info.precision == "int8"
    assert cosine(engine.infer(images), exact.infer(images)) >= 0.99


@pytest.mark.parametrize("name", ["timm_resnet18", "timm_resnest50d", "paddle_RegNetX_4GF"])
def test_golden_logits(name: str) -> None:
    golden = Golden.read(GOLDEN / f"{name}.npz")
    graph, weights = resrt.build_graph(golden.model, input_size=golden.size), golden.weights()
    found = resrt.calibrate(graph, weights, noise(4, golden.size))
    engine = resrt.build(graph, weights, precision="int8", calibration=found, max_batch=2)
    assert cosine(engine.infer(golden.images()), golden.logits) >= 0.999


@pytest.mark.parametrize("method", resrt.CALIBRATION_METHODS)
def test_the_digits_stay_accurate(method: str) -> None:
    scans, digits = demo.held_out()
    calibrating, images = scans[::4], np.delete(scans, np.s_[::4], axis=0)
    labels = np.delete(digits, np.s_[::4])
    exact = demo.build_engine("fp32")
    batch = np.stack([resrt.preprocess(scan, exact.info.preprocessing) for scan in calibrating])
    weights = demo.weights_path()
    options = {"preprocessing": demo.PREPROCESSING}
    found = resrt.calibrate(demo.graph(), weights, batch, method=method, **options)
    engine = resrt.build(demo.graph(), weights, precision="int8", calibration=found, **options)

    def accuracy(engine: resrt.Engine) -> float:
        rows = engine.classify(list(images), topk=1)
        return float(np.mean([row[0].index for row in rows] == labels))

    assert accuracy(engine) >= accuracy(exact) - 0.003


def test_convolutions_have_integer_weights(
    small_graph: resrt.Graph, calibration: resrt.Calibration
) -> None:
    engine = resrt.build(small_graph, "random", precision="int8", calibration=calibration)
    exact = resrt.build(small_graph, "random", precision="fp32")
    assert 'element_type="i8"' in steps(engine)
    assert steps(engine).count('type="FakeQuantize"') >= len(calibration.ranges)
    assert len(engine.plan) < len(exact.plan)


_SATURATING = """
import numpy as np, resrt
graph = resrt.Graph("saturating")
x = graph.add("images", resrt.layers.Input(64, 4, 4))
x = graph.add("relu", resrt.layers.Relu(), x)
x = graph.add("conv", resrt.layers.Conv2d(8, kernel=3, padding=1), x)
x = graph.add("pool", resrt.layers.GlobalAvgPool2d(), x)
graph.add("fc", resrt.layers.Linear(4), x)
weights = {"conv.weight": np.ones((8, 64, 3, 3), np.float32),
           "fc.weight": np.ones((4, 8), np.float32), "fc.bias": np.zeros(4, np.float32)}
images = np.ones((1, 64, 4, 4), np.float32)
found = resrt.calibrate(graph, weights, images)
exact = resrt.build(graph, weights, precision="fp32").infer(images)
engine = resrt.build(graph, weights, precision="int8", calibration=found)
np.testing.assert_allclose(engine.infer(images), exact, rtol=0.02)
largest = {most: bytes([most]) * weights['conv.weight'].size in engine.plan for most in (63, 127)}
print(largest)
"""


@pytest.mark.parametrize(("limit", "largest"), [("AVX2", 63), ("AVX512_CORE_VNNI", 127)])
def test_weights_have_7_bits_where_8_would_saturate(limit: str, largest: int) -> None:
    """Without VNNI, two products of 255 * 127 exceed the 16 bits in which AVX2 adds them up."""
    done = subprocess.run(
        [sys.executable, "-c", _SATURATING],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": limit},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"{largest}: True" in done.stdout, done.stderr


def test_a_calibration_has_the_same_bits_with_any_number_of_threads(
    small_graph: resrt.Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = []
    for workers in (1, 3):
        monkeypatch.setattr("resrt._core.usable_cpus", lambda workers=workers: workers)
        files.append(tmp_path / f"{workers}.json")
        resrt.calibrate(small_graph, "random", noise(12)).save(files[-1])
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_calibration_can_be_edited(
    small_graph: resrt.Graph, calibration: resrt.Calibration, tmp_path: Path
) -> None:
    file = tmp_path / "ranges.json"
    calibration.save(file)
    assert resrt.Calibration.load(file) == calibration
    document = json.loads(file.read_text())
    document["keep"] = ["layer1.0.conv3"]
    file.write_text(json.dumps(document))
    edited = resrt.build(small_graph, "random", precision="int8", calibration=file)
    full = resrt.build(small_graph, "random", precision="int8", calibration=calibration)
    integers = 'element_type="i8"'
    assert steps(edited).count(integers) == steps(full).count(integers) - 1


def test_limit_samples_evenly(small_graph: resrt.Graph) -> None:
    images = noise(6)
    images[[1, 3, 5]] *= 100
    found = resrt.calibrate(small_graph, "random", images, limit=3, method="minmax")
    assert found.images == 3
    assert found.ranges["input"][1] < 10


def test_estimators_clip_outliers() -> None:
    values = Values()
    values.add(np.abs(np.random.default_rng(0).standard_normal(100_000)).astype(np.float32))
    values.add(np.array([1000], np.float32))
    assert estimate(values, "minmax") == (0, 1000)
    assert 3 < estimate(values, "percentile")[1] < 5
    assert estimate(values, "entropy")[1] < 1000
    assert estimate(values, "mse")[1] < 1000


def test_the_range_of_negative_values_is_symmetric() -> None:
    values = Values()
    values.add(np.array([-2, 1], np.float32))
    low, high = estimate(values, "percentile")
    assert low == -high


def test_a_model_of_quantize_and_dequantize_gives_the_same_logits(
    small_graph: resrt.Graph, calibration: resrt.Calibration, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    file = tmp_path / "small.onnx"
    exported = resrt.export(small_graph, file, "random", calibration=calibration)
    assert exported.difference is not None  # ONNX Runtime ran it
    kinds = [node.op_type for node in onnx.load(file).graph.node]
    assert kinds.count("QuantizeLinear") == len(calibration.ranges)
    weights = {tensor.data_type for tensor in onnx.load(file).graph.initializer}
    assert onnx.TensorProto.INT8 in weights


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "ResNet50"}, "is of ResNet50, not of small"),
        ({"weights_sha256": "0" * 64}, "of other weights"),
        ({"ranges": {}}, "no range for 'input'"),
        ({"ranges": {"input": [1, -1]}}, "the range of 'input' must be two finite numbers"),
        ({"ranges": {"input": [0, float("nan")]}}, "the range of 'input' must be two finite"),
        ({"ranges": 3}, '"ranges" must be an object, not 3'),
        ({"format": "resrt calibration 9"}, "it has version 9, not 1"),
        ({"format": "other"}, 'no "format" of resrt'),
        ({"keep": ["layer9"]}, "no convolution or addition of that name"),
    ],
)
def test_a_calibration_that_does_not_fit_is_refused(
    small_graph: resrt.Graph,
    calibration: resrt.Calibration,
    tmp_path: Path,
    change: dict[str, object],
    message: str,
) -> None:
    file = tmp_path / "ranges.json"
    calibration.save(file)
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(resrt.InputError, match=message):
        resrt.build(small_graph, "random", precision="int8", calibration=file)


def test_a_calibration_is_for_8_bits_only(
    small_graph: resrt.Graph, calibration: resrt.Calibration
) -> None:
    with pytest.raises(resrt.InputError, match="int8 requires the ranges.*give a calibration"):
        resrt.build(small_graph, "random", precision="int8")
    with pytest.raises(resrt.InputError, match="only for the precisions int8 and fp8, not fp32"):
        resrt.build(small_graph, "random", precision="fp32", calibration=calibration)
    assert resrt.build(small_graph, "random").info.precision != "int8"


def test_images_that_cannot_be_calibrated_with_are_refused(
    small_graph: resrt.Graph, tmp_path: Path
) -> None:
    with pytest.raises(resrt.FileError, match="contain no images"):
        resrt.calibrate(small_graph, "random", tmp_path)
    with pytest.raises(resrt.InputError, match="there are no images"):
        resrt.calibrate(small_graph, "random", noise(0))
    with pytest.raises(resrt.InputError, match=r"float32 \(N, 3, 32, 32\), not float32 \(1, 3, 8"):
        resrt.calibrate(small_graph, "random", noise(1, 8))
    (tmp_path / "photo.jpg").write_bytes(b"no photo")
    with pytest.raises(resrt.InputError, match="photo.jpg"):
        resrt.calibrate(small_graph, "random", tmp_path)
    Image.new("RGB", (40, 40)).save(tmp_path / "whole.png")
    found = resrt.calibrate(small_graph, "random", tmp_path)
    assert (found.images, found.skipped) == (1, 1)
    assert len(resrt.sensitivity(small_graph, "random", tmp_path, calibration=found)) > 3
    arguments = ["calibrate", "ResNet18", "--weights", "random", "--input-size", "32"]
    arguments += ["--images", str(tmp_path)]
    assert main([*arguments, "-o", str(tmp_path / "out.json")]) == 3
    with pytest.raises(resrt.WeightsError, match="'input' of small has values that are not finite"):
        resrt.calibrate(small_graph, "random", np.full((1, 3, 32, 32), np.nan, np.float32))


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = str(Path(__file__).parents[1] / "data" / "photos")
    network = ["resnet18", "--weights", "random", "--input-size", "64"]
    file, engine = str(tmp_path / "ranges.json"), str(tmp_path / "engine")
    assert main(["calibrate", *network, "--images", photos, "-o", file]) == 0
    assert "ranges from 2 images, by mse" in capsys.readouterr().out
    built = ["build", *network, "-o", engine, "--precision", "int8", "--overwrite"]
    assert main([*built, "--calibration", file]) == 0
    assert main([*built, "--calibrate", photos, "--limit", "1"]) == 0
    assert "int8 on openvino" in capsys.readouterr().out
    assert main([*built, "--calibrate", photos, "--calibration", file]) == 2
    assert main([*built, "--limit", "1"]) == 2
    assert main(["calibrate", *network, "--images", photos, "-o", file]) == 1  # it exists
