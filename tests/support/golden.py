"""Reference logits of the original networks, and the rule that generates their weights."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from support.paths import TESTS

GOLDEN = TESTS / "golden"


@dataclass(frozen=True)
class Golden:
    """The logits of an original network with weights that depend only on the parameters' names.

    The logits were computed with the same rule for weights, so the weights need not be stored.
    """

    model: str
    size: int
    trainable: int
    shapes: dict[str, tuple[int, ...]]
    logits: npt.NDArray[np.float32]

    @classmethod
    def read(cls, path: Path) -> Golden:
        with np.load(path) as arrays:
            names, shapes = json.loads(str(arrays["names"])), json.loads(str(arrays["shapes"]))
            return cls(
                model=str(arrays["model"]),
                size=int(arrays["size"]),
                trainable=int(arrays["trainable"]),
                shapes={name: tuple(shape) for name, shape in zip(names, shapes, strict=True)},
                logits=arrays["logits"],
            )

    def weights(self) -> dict[str, npt.NDArray[np.float32]]:
        return {name: draw_parameter(name, shape) for name, shape in self.shapes.items()}

    def images(self) -> npt.NDArray[np.float32]:
        rng = np.random.default_rng(2026)
        return rng.standard_normal((2, 3, self.size, self.size)).astype(np.float32)


def draw_parameter(name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return the value of a parameter, which is the same in all networks."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) == 4:
        value = rng.standard_normal(shape) * np.sqrt(2.0 / np.prod(shape[1:]))
    elif len(shape) == 2:
        value = rng.standard_normal(shape) * 0.05
    elif name.endswith(("_variance", "running_var")):
        value = rng.uniform(0.5, 1.5, shape)
    elif name.endswith(("_mean", "running_mean", "bias")):
        value = rng.standard_normal(shape) * 0.1
    else:
        value = rng.uniform(0.3, 0.7, shape)
    return value.astype(np.float32)
