"""`resrt demo`: a small ResNeSt on real handwritten digits, from layer definitions to accuracy.

The scans are scikit-learn's copy of the UCI "Optical Recognition of Handwritten Digits" set, 8x8
pixels each. tools/train_digits.py trained the weights on four fifths of them; the last fifth, which
the training never saw, is what is classified here.
"""

from __future__ import annotations

import sys
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
# The same blocks as ResNeSt50, one per stage and an eighth as wide.
CONFIG = _core.ResNeSt(depths=[1, 1, 1, 1], width=8, stem_channels=16, radix=2)
PREPROCESSING = _core.Preprocessing(
    resize=INPUT_SIZE, interpolation="bilinear", mean=[0.3], std=[0.4]
)

_SHADES = " .:-=+*#%@"


@dataclass(frozen=True)
class DemoResult:
    """What the demo found: `correct` of `total` held-out digits, and the engine's latencies."""

    engine: Engine
    correct: int
    total: int
    timings: list[Timing]

    @property
    def accuracy(self) -> float:
        """The fraction of the held-out digits that were classified correctly."""
        return self.correct / self.total


def graph() -> _core.Graph:
    """Return the demo's network: 32x32 grey images to ten digits."""
    return build_graph(CONFIG, classes=CLASSES, input_size=INPUT_SIZE, in_channels=1, name=NAME)


def weights_path() -> Path:
    """Return the trained weights' file."""
    return _file("digits.safetensors")


def held_out() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return the scans that the training never saw, uint8 (N, 8, 8), and their digits, (N,)."""
    with np.load(_file("digits_held_out.npz")) as arrays:
        return arrays["scans"], arrays["digits"]


def build_engine(precision: str = "auto", threads: int | None = None) -> Engine:
    """Build the demo's engine from its layer definitions and trained weights."""
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
    """Build the engine, classify the held-out digits, and tell of it on `out` (standard output)."""
    out = sys.stdout if out is None else out
    network = graph()
    cost = network.cost
    print(
        f"{network.name}: {len(network)} layers, {cost.parameters:,} parameters, "
        f"{cost.multiply_adds / 1e6:.1f} M multiply-adds per 32x32 image",
        file=out,
    )
    start = time.perf_counter()
    engine = build_engine(precision, threads)
    info = engine.info
    print(
        f"Built in {time.perf_counter() - start:.2f} s: {info.precision} on {info.backend} "
        f"{info.backend_version}\n",
        file=out,
    )

    scans, digits = held_out()
    predictions = engine.classify(list(scans), topk=1)
    best = [row[0] for row in predictions]
    is_correct = np.array([guess.index for guess in best]) == digits
    shown = _show(digits, is_correct)
    print(_pictures([scans[i] for i in shown]), file=out)
    print(
        "   ".join(
            f"{f'{best[i].label} ({best[i].probability:.0%}), is {digits[i]}':<16}" for i in shown
        ),
        file=out,
    )
    result = DemoResult(
        engine, int(is_correct.sum()), len(digits), engine.time((1, 8), repeats=100)
    )
    print(
        f"\n{result.correct} of {result.total} held-out digits correct: "
        f"{result.accuracy:.2%} accuracy",
        file=out,
    )
    for timing in result.timings:
        print(timing, file=out)
    return result


def _file(name: str) -> Path:
    return Path(str(resources.files("resrt") / "demo" / name))


def _show(
    digits: npt.NDArray[np.uint8], is_correct: npt.NDArray[np.bool_], count: int = 5
) -> list[int]:
    """Pick scans to show: different digits and, last, a mistake, if there was one."""
    wrong = np.flatnonzero(~is_correct)[:1]
    right = [np.flatnonzero(is_correct & (digits == digit))[:1] for digit in range(CLASSES)]
    chosen = np.concatenate([*right[: count - len(wrong)], wrong])
    return [int(i) for i in chosen]


def _pictures(scans: Sequence[npt.NDArray[np.uint8]]) -> str:
    """Scans side by side, each pixel as two characters."""
    rows = []
    for y in range(8):
        rows.append(
            "   ".join(
                "".join(_SHADES[p * 9 // 255] * 2 for p in scan[y].tolist()) for scan in scans
            )
        )
    return "\n".join(rows)
