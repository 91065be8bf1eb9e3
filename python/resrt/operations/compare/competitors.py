"""The libraries that `resrt.compare` can run, each with the settings that its own users choose.

Every library, including resrt, runs in a process of its own (`process`): they bring thread pools,
allocators and copies of each other's dependencies that conflict, and a crash of one must not affect
the others. Each library has a module in this package that prepares it in such a process.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Batch = npt.NDArray[np.float32]

ENGINE, ONNX, WEIGHTS, IMAGES = "network.engine", "model.onnx", "weights.safetensors", "images.npy"


@dataclass(frozen=True)
class Task:
    """What to run.

    Attributes:
        folder: contains the network as an engine, as ONNX and as weights, and the images.
        graph: a resrt.Graph, or in another process an object with its attributes.
        precision: the engine's, which the library uses if it supports it.
        threads: the number of processor threads that it may use.
    """

    folder: Path
    graph: Any
    precision: str
    threads: int

    def images(self) -> Batch:
        """Return the batch, float32 (N, C, H, W)."""
        images: Batch = np.load(self.folder / IMAGES)
        return images


@dataclass(frozen=True)
class Ready:
    """A library that is prepared: `run` computes the logits of the batch again.

    The images are already in the library's own memory, and `logits` returns the last logits.
    `version` is the library's, `precision` what it computes in, `settings` what was chosen for it.
    """

    version: str
    precision: str
    settings: str
    run: Callable[[], object]
    logits: Callable[[], npt.ArrayLike]


@dataclass(frozen=True)
class Competitor:
    """A library: the module that prepares it, the packages it requires, how to install them."""

    name: str
    title: str
    module: str
    packages: tuple[str, ...]
    install: str
    needs_onnx: bool = False

    def why_not(self) -> str | None:
        """Return what is missing here and the command that installs it, or None."""
        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if missing:
            return f"{' and '.join(missing)} not installed: {self.install}"
        return None


OURS = Competitor("resrt", "resrt", "resrt.operations.compare.ours", (), "")

ALL = (
    Competitor(
        "openvino",
        "OpenVINO (ONNX)",
        "resrt.operations.compare.openvino_onnx",
        ("openvino", "onnx"),
        "pip install 'resrt[onnx]'",
        needs_onnx=True,
    ),
    Competitor(
        "onnxruntime",
        "ONNX Runtime",
        "resrt.operations.compare.onnx_runtime",
        ("onnxruntime", "onnx"),
        "pip install 'resrt[onnx]'",
        needs_onnx=True,
    ),
    Competitor(
        "torch",
        "PyTorch (eager)",
        "resrt.operations.compare.pytorch",
        ("torch",),
        "pip install torch",
    ),
    Competitor(
        "torch-compile",
        "PyTorch (compiled)",
        "resrt.operations.compare.pytorch",
        ("torch",),
        "pip install torch",
    ),
    Competitor(
        "paddle",
        "Paddle Inference",
        "resrt.operations.compare.paddle_inference",
        ("paddle",),
        "pip install paddlepaddle paddleclas",
    ),
)
