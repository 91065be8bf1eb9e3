"""`resrt.sensitivity`: what rounding each layer to 8 bits costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import resrt
from resrt.cli import main

Batch = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def batch() -> Batch:
    return np.random.default_rng(1).standard_normal((6, 3, 32, 32), np.float32)


@pytest.fixture(scope="module")
def calibration(small_graph: resrt.Graph, batch: Batch) -> resrt.Calibration:
    return resrt.calibrate(small_graph, "random", batch)


def test_every_rounded_layer(
    small_graph: resrt.Graph, batch: Batch, calibration: resrt.Calibration
) -> None:
    found = resrt.sensitivity(small_graph, "random", batch, calibration=calibration)
    layers = small_graph.layers
    names = {
        layer.name
        for layer in layers
        if isinstance(layer.definition, (resrt.layers.Conv2d, resrt.layers.Add))
    }
    assert {one.layer for one in found} == names
    ratios = [one.snr for one in found]
    assert ratios == sorted(ratios)
    # 8 bits have a signal-to-noise ratio of some 40 dB; without any rounding it exceeds 100.
    assert all(15 < ratio < 90 for ratio in ratios)


def test_the_noise_of_the_layers_adds_up(
    small_graph: resrt.Graph, batch: Batch, calibration: resrt.Calibration
) -> None:
    costs = resrt.sensitivity(small_graph, "random", batch, calibration=calibration)
    exact = resrt.build(small_graph, "random", precision="fp32").infer(batch)
    rounded = resrt.build(small_graph, "random", precision="int8", calibration=calibration).infer(
        batch
    )
    noise = np.square(exact - rounded).sum() / np.square(exact).sum()
    total = sum(10 ** (-one.snr / 10) for one in costs)
    assert total / 8 < noise < 8 * total


def test_a_layer_with_a_wrong_range_is_the_first(
    small_graph: resrt.Graph, batch: Batch, calibration: resrt.Calibration
) -> None:
    layers = {layer.name: layer for layer in small_graph.layers}
    spoiled = next(
        layer
        for layer in reversed(small_graph.layers)
        if isinstance(layer.definition, resrt.layers.Conv2d)
        and layer.inputs[0] in calibration.ranges
    )
    tensor = spoiled.inputs[0]
    readers = [name for name, layer in layers.items() if tensor in layer.inputs]
    low, high = calibration.ranges[tensor]
    ranges = {**calibration.ranges, tensor: (low / 50, high / 50)}
    changed = replace(calibration, ranges=ranges)
    found = resrt.sensitivity(small_graph, "random", batch, calibration=changed)
    assert found[0].layer in readers
    assert found[0].snr < 10
    kept = replace(changed, keep=frozenset({spoiled.name}))
    rest = resrt.sensitivity(small_graph, "random", batch, calibration=kept)
    assert spoiled.name not in {one.layer for one in rest}


def test_bad_input(small_graph: resrt.Graph, batch: Batch, calibration: resrt.Calibration) -> None:
    with pytest.raises(resrt.InputError, match="there are no images"):
        resrt.sensitivity(small_graph, "random", [], calibration=calibration)
    other = replace(calibration, network="other")
    with pytest.raises(resrt.InputError, match="is of"):
        resrt.sensitivity(small_graph, "random", batch, calibration=other)
    with pytest.raises(resrt.WeightsError, match="are not finite for these images"):
        resrt.sensitivity(small_graph, "random", batch * np.nan, calibration=calibration)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / f"{i}.png")
    output = tmp_path / "ranges.json"
    arguments = ["cifar_resnet20", "--weights", "random", "--images", str(tmp_path)]
    assert main(["calibrate", *arguments, "-o", str(output), "--analyse"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "cifar_resnet20: " in lines[0]
    start = next(i for i, line in enumerate(lines) if "SNR of the logits, dB" in line)
    ratios = [float(line.split()[-1]) for line in lines[start + 1 :] if "." in line.split()[-1]]
    assert len(ratios) > 20
    assert ratios == sorted(ratios)
