"""examples/fine_tune.py learns to tell stripes apart, and its engine computes what PyTorch does."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import resrt
from support.examples import example
from support.programs import run

try:
    import timm  # noqa: F401
except (ImportError, RuntimeError) as error:  # RuntimeError: its torchvision is for another PyTorch
    pytest.skip(f"the example requires PyTorch and timm: {error}", allow_module_level=True)


def draw(folder: Path, count: int, random: np.random.Generator) -> Path:
    """Write photographs of horizontal and of vertical stripes, of any colour and width."""
    y, x = np.mgrid[0:70, 0:90]
    for name, axis in (("horizontal", y), ("vertical", x)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            is_stripe = (axis + random.integers(20)) // random.integers(5, 9) % 2 == 0
            colours = random.integers(0, 120, 3), random.integers(130, 256, 3)
            pixels = np.where(is_stripe[:, :, None], *colours) + random.integers(-9, 9, (70, 90, 3))
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(folder / name / f"{number}.png")
    return folder


def test_a_fine_tuned_network_classifies_a_folder(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    train, test = draw(tmp_path / "train", 40, random), draw(tmp_path / "test", 10, random)
    output = tmp_path / "stripes.engine"
    options = "--from-scratch --input-size 64 --epochs 6 --batch-size 16 --workers 1"
    printed = run(*example("fine_tune.py"), train, test, "--output", output, *options.split())
    losses = [float(loss) for loss in re.findall(r"loss (\S+)", printed)]
    assert losses[-1] < losses[0]
    (difference,) = re.findall(r"(\S+) from PyTorch's logits", printed)
    assert float(difference) < 0.02  # in the fastest precision, such as bf16
    info = resrt.inspect(output).info
    assert (info.labels, info.input_shape) == (["horizontal", "vertical"], (3, 64, 64))
    assert resrt.eval(output, test).top1.value >= 0.8
    assert len(re.findall(r"\.png: (?:horizontal|vertical) \(\d+%\)", printed)) == 20
