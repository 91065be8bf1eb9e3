"""The engines, images and reference logits that the checks and measurements share."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import resrt
from gpu_checks.driver import Driver, NoGpuError
from resrt.measuring.processes import Failed
from resrt.operations.export import relative_difference

Array = npt.NDArray[np.float32]

TENSORRT, RTX = "tensorrt", "tensorrt_rtx"
_LIBRARIES = Path(resrt.__file__).parent / "lib"

# Relative to the largest logit. PyTorch's error for these networks is 7e-4 in fp16, 6e-3 in bf16.
TOLERANCES = {"fp32": 1e-4, "tf32": 3e-3, "fp16": 3e-3, "bf16": 2e-2}


class WrongError(Failed):
    """A result is wrong; the text says how."""


def expect(holds: bool, message: str) -> None:
    """Raise WrongError if a condition does not hold."""
    if not holds:
        raise WrongError(message)


@dataclass(frozen=True)
class EngineStore:
    """Builds engines of a backend and keeps their files in `folder`, for later processes too.

    All engines have the same random weights. `input_size` is the size of the images and `classes`
    the number of logits; None: those of the network. With `timing_cache`, TensorRT writes its
    kernel timings to a file in the folder, so that later engines are built faster.
    """

    backend: str
    folder: Path
    max_batch: int = 8
    input_size: int | None = None
    classes: int | None = None
    timing_cache: bool = False

    def engine(self, network: str, precision: str, **options: Any) -> resrt.Engine:
        """Load an engine, which is built first if the folder lacks it.

        `options` are those of resrt.TensorRTOptions, here and below.
        """
        return resrt.load(self.engine_file(network, precision, **options))

    def engine_file(self, network: str, precision: str, **options: Any) -> Path:
        """Return an engine's file, which is built first if the folder lacks it."""
        file = self.path_of(network, precision, **options)
        if not file.exists():
            self.build(network, precision, **options).save(file)
        return file

    def path_of(self, network: str, precision: str, **options: Any) -> Path:
        """Return the path of an engine's file, which names everything the engine depends on."""
        parts = [self.backend, self.status().version, network, precision, f"batch={self.max_batch}"]
        parts += [f"input={self.input_size}", f"classes={self.classes}"]
        parts += [f"{name}={value}" for name, value in options.items()]
        return self.file("-".join([*parts, fingerprint(_LIBRARIES, gpu_name())]) + ".engine")

    def file(self, name: str) -> Path:
        """Return the path of a file in the folder, which is created if it is missing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / name.replace("/", "_").replace(" ", "_")

    def build(self, network: str, precision: str, **options: Any) -> resrt.Engine:
        """Build an engine, whether or not the folder has it."""
        if self.timing_cache and self.backend == TENSORRT:
            name = f"timings-{self.status().version}-{gpu_name()}.cache"
            options = {"timing_cache": str(self.file(name)), **options}
        return resrt.build(
            network,
            "random",
            backend=self.backend,
            precision=precision,
            max_batch=self.max_batch,
            input_size=self.input_size,
            classes=self.classes,
            tensorrt=resrt.TensorRTOptions(**options) if options else None,
        )

    def status(self) -> Any:
        """Return the backend's resrt.BackendStatus."""
        return next(status for status in resrt.backends() if status.name == self.backend)

    def images(self, network: str, count: int, seed: int = 0) -> Array:
        """Return random images with different logits. Plain noise gives all images the same."""
        rng = np.random.default_rng(seed)
        graph = resrt.build_graph(network, input_size=self.input_size)
        channels, height, width = graph.input_shape
        patches = rng.standard_normal((count, channels, 4, 4), np.float32)
        patches = patches.repeat(-(-height // 4), 2).repeat(-(-width // 4), 3)
        noise = rng.standard_normal((count, *graph.input_shape), np.float32)
        return 2 * patches[:, :, :height, :width] + noise

    def reference(self, network: str, images: Array) -> Array:
        """Return the logits that OpenVINO computes in float32 on the processor."""
        return replace(self, backend="openvino").engine(network, "fp32").infer(images)


@functools.cache
def fingerprint(libraries: Path, gpu: str) -> str:
    """Return 12 digits for resrt's version, the libraries in its folder, and the GPU.

    An engine contains the plugin's kernels and what these libraries lowered, so an engine of
    another build must not be checked in place of this one's.
    """
    digest = hashlib.sha256(f"{resrt.__version__}\0{gpu}".encode())
    for library in sorted(libraries.glob("libresrt*.so*")):
        digest.update(library.name.encode())
        digest.update(hashlib.sha256(library.read_bytes()).digest())
    return digest.hexdigest()[:12]


@functools.cache
def gpu_name() -> str:
    """Return the name of the first GPU, or "no GPU"."""
    try:
        return Driver().gpu().name
    except NoGpuError:
        return "no GPU"


def why_no_torch() -> str | None:
    """Return why PyTorch cannot use the GPU, or None if it can."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    import torch

    return None if torch.cuda.is_available() else "this torch cannot use the GPU"


def difference(logits: Array, reference: Array, precision: str) -> float:
    """Return the largest error of logits, relative to the largest reference logit.

    Raises WrongError if it exceeds the precision's tolerance, or if the logits of an image are
    closer to another image's reference than to its own.
    """
    expect(logits.shape == reference.shape, f"logits {logits.shape} instead of {reference.shape}")
    error = relative_difference(logits, reference)
    tolerance = TOLERANCES[precision]
    expect(error <= tolerance, f"the error of the logits is {error:.1e}, more than {tolerance:.0e}")
    nearest = np.abs(logits[:, None] - reference[None]).max(axis=2).argmin(axis=1)
    mixed_up = np.flatnonzero(nearest != np.arange(len(logits)))
    expect(len(mixed_up) == 0, f"images are mixed up: {nearest.tolist()}")
    return error
