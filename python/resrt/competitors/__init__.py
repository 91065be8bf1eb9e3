"""What else can run a network here, each with the settings that its own users would choose.

Every library, resrt too, runs in a process of its own (`process`): they bring thread pools,
allocators and copies of each other's libraries that do not bear each other's company, and one that
crashes does not take the others along. A module here prepares one library, in such a process.
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
    """What to run: `folder` has the network as an engine, as ONNX and as weights, and the images.

    `graph` is a resrt.Graph, or in another process what has its attributes; `precision` is what the
    engine computes in, and the library shall where it can; `threads` is how many it may use.
    """

    folder: Path
    graph: Any
    precision: str
    threads: int

    def images(self) -> Batch:
        """The batch, float32 (N, C, H, W)."""
        images: Batch = np.load(self.folder / IMAGES)
        return images


@dataclass(frozen=True)
class Ready:
    """A library that has the network ready: `run` computes the batch's logits once more.

    `version` is the library's, `precision` what it computes in, `settings` what was chosen for it.
    The images are in the library's own memory already; the last logits are what `logits` returns.
    """

    version: str
    precision: str
    settings: str
    run: Callable[[], object]
    logits: Callable[[], npt.ArrayLike]


@dataclass(frozen=True)
class Competitor:
    """A library: the module that prepares it, the packages that it needs, how to get them."""

    name: str
    title: str
    module: str
    packages: tuple[str, ...]
    install: str
    needs_onnx: bool = False

    def why_not(self) -> str | None:
        """What is missing here and the command that installs it, or None."""
        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if missing:
            return f"{' and '.join(missing)} not installed: {self.install}"
        return None


OURS = Competitor("resrt", "resrt", "resrt.competitors.ours", (), "")

COMPETITORS = (
    Competitor(
        "openvino",
        "OpenVINO (ONNX)",
        "resrt.competitors.openvino_onnx",
        ("openvino", "onnx"),
        "pip install 'resrt[onnx]'",
        needs_onnx=True,
    ),
    Competitor(
        "onnxruntime",
        "ONNX Runtime",
        "resrt.competitors.onnx_runtime",
        ("onnxruntime", "onnx"),
        "pip install 'resrt[onnx]'",
        needs_onnx=True,
    ),
    Competitor(
        "torch", "PyTorch (eager)", "resrt.competitors.pytorch", ("torch",), "pip install torch"
    ),
    Competitor(
        "torch-compile",
        "PyTorch (compiled)",
        "resrt.competitors.pytorch",
        ("torch",),
        "pip install torch",
    ),
    Competitor(
        "paddle",
        "Paddle Inference",
        "resrt.competitors.paddle_inference",
        ("paddle",),
        "pip install paddlepaddle paddleclas",
    ),
)
