"""`resrt demo`: builds a small ResNeSt and classifies scans of handwritten digits with it.

The scans are scikit-learn's copy of the UCI "Optical Recognition of Handwritten Digits" set, 8x8
pixels each. tools/train_digits.py trained the weights on four fifths of them. The demo classifies
the last fifth, which was held out.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TextIO

import numpy as np
import numpy.typing as npt

from resrt import _core
from resrt.catalog.models import build_graph
from resrt.engine.engine import Engine
from resrt.measuring.timing import Timing
from resrt.operations.build import build

NAME = "ResNeSt14_digits"
CLASSES = 10
INPUT_SIZE = 32
# The blocks of ResNeSt50, but one per stage and an eighth as wide.
CONFIG = _core.ResNeSt(depths=[1, 1, 1, 1], width=8, stem_channels=16, radix=2)
PREPROCESSING = _core.Preprocessing(
    resize=INPUT_SIZE, interpolation="bilinear", mean=[0.3], std=[0.4]
)

_SHADES = " .:-=+*#%@"


@dataclass(frozen=True)
class DemoResult:
    """The result of the demo: `correct` of `total` held-out digits, and latencies."""

    engine: Engine
    correct: int
    total: int
    timings: list[Timing]

    @property
    def accuracy(self) -> float:
        """The fraction of the held-out digits that are classified correctly."""
        return self.correct / self.total


def graph() -> _core.Graph:
    """Return the network of the demo: 32x32 grey images to ten digits."""
    return build_graph(CONFIG, classes=CLASSES, input_size=INPUT_SIZE, in_channels=1, name=NAME)


def weights_path() -> Path:
    """Return the path of the trained weights."""
    return _file("digits.safetensors")


def held_out() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return the held-out scans, uint8 (N, 8, 8), and their digits, (N,)."""
    with np.load(_file("digits_held_out.npz")) as arrays:
        return arrays["scans"], arrays["digits"]


def build_engine(precision: str = "auto", threads: int | None = None) -> Engine:
    """Build the engine of the demo from its layer definitions and trained weights."""
    return build(
        graph(),
        weights_path(),
        precision=precision,
        threads=threads,
        labels=[str(digit) for digit in range(CLASSES)],
        preprocessing=PREPROCESSING,
    )


def demo(
    precision: str = "auto", threads: int | None = None, out: TextIO | None = None
) -> DemoResult:
    """Build the engine, classify the held-out digits and print the result to `out` or stdout."""
    show = functools.partial(print, file=out)
    network = graph()
    cost = network.cost
    show(
        f"{network.name}: {len(network)} layers, {cost.parameters:,} parameters, "
        f"{cost.multiply_adds / 1e6:.1f} M multiply-adds per 32x32 image"
    )
    start = time.perf_counter()
    engine = build_engine(precision, threads)
    info = engine.info
    show(
        f"Built in {time.perf_counter() - start:.2f} s: {info.precision} on {info.backend} "
        f"{info.backend_version}\n"
    )

    scans, digits = held_out()
    best = [row[0] for row in engine.classify(list(scans), topk=1)]
    is_correct = np.array([guess.index for guess in best]) == digits
    shown = _choose(digits, is_correct)
    show(_pictures([scans[i] for i in shown]))
    captions = (f"{best[i].label} ({best[i].probability:.0%}), is {digits[i]}" for i in shown)
    show("   ".join(f"{caption:<16}" for caption in captions))

    timings = engine.time((1, 8), repeats=100)
    result = DemoResult(engine, int(is_correct.sum()), len(digits), timings)
    show(
        f"\n{result.correct} of {result.total} held-out digits correct: "
        f"{result.accuracy:.2%} accuracy"
    )
    show(*timings, sep="\n")
    return result


def _file(name: str) -> Path:
    return Path(str(resources.files("resrt") / "demo" / name))


def _choose(
    digits: npt.NDArray[np.uint8], is_correct: npt.NDArray[np.bool_], count: int = 5
) -> list[int]:
    """Return the indices of scans to show: different digits, and last a mistake if there is one."""
    wrong = np.flatnonzero(~is_correct)[:1]
    right = [np.flatnonzero(is_correct & (digits == digit))[:1] for digit in range(CLASSES)]
    return [int(i) for i in np.concatenate([*right[: count - len(wrong)], wrong])]


def _pictures(scans: Sequence[npt.NDArray[np.uint8]]) -> str:
    """Return the scans side by side, with two characters per pixel."""

    def row(scan: npt.NDArray[np.uint8], y: int) -> str:
        return "".join(_SHADES[pixel * 9 // 255] * 2 for pixel in scan[y].tolist())

    return "\n".join("   ".join(row(scan, y) for scan in scans) for y in range(8))
