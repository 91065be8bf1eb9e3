"""The engines, images and reference logits that checks and measurements share."""

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
from resrt.operations.export import relative_difference

Array = npt.NDArray[np.float32]

TENSORRT, RTX = "tensorrt", "tensorrt_rtx"
_LIBRARIES = Path(resrt.__file__).parent / "lib"

# Of the largest logit. PyTorch in fp16 and bf16 is off by 7e-4 and 6e-3 for these networks.
TOLERANCES = {"fp32": 1e-4, "tf32": 3e-3, "fp16": 3e-3, "bf16": 2e-2}


class WrongError(Exception):
    """What a check found to be wrong."""


def expect(holds: bool, message: str) -> None:
    """Raise WrongError where something does not hold."""
    if not holds:
        raise WrongError(message)


@dataclass(frozen=True)
class Workshop:
    """Where engines of a backend are built: `folder` keeps their files, for other processes too.

    All have the same random weights. `input_size` is of the images; None: the networks' own, as
    are the `classes`. With a `timing_cache`, TensorRT writes kernels' timings to a file in the
    folder, so that the engines that follow are built in less time.
    """

    backend: str
    folder: Path
    max_batch: int = 8
    input_size: int | None = None
    classes: int | None = None
    timing_cache: bool = False

    def engine(self, network: str, precision: str, **options: Any) -> resrt.Engine:
        """Load an engine, which is built where the folder has none. `options` are TensorRT's."""
        return resrt.load(self.engine_file(network, precision, **options))

    def engine_file(self, network: str, precision: str, **options: Any) -> Path:
        file = self.path_of(network, precision, **options)
        if not file.exists():
            self.build(network, precision, **options).save(file)
        return file

    def path_of(self, network: str, precision: str, **options: Any) -> Path:
        """Return where an engine's file is or will be, by all that the engine depends on."""
        parts = [self.backend, self.status().version, network, precision, f"batch={self.max_batch}"]
        parts += [f"input={self.input_size}", f"classes={self.classes}"]
        parts += [f"{name}={value}" for name, value in options.items()]
        return self.file("-".join([*parts, fingerprint(_LIBRARIES, gpu_name())]) + ".engine")

    def file(self, name: str) -> Path:
        """Return the path of a file in the folder, which is made."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / name.replace("/", "_").replace(" ", "_")

    def build(self, network: str, precision: str, **options: Any) -> resrt.Engine:
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
        """The backend's resrt.BackendStatus."""
        return next(status for status in resrt.backends() if status.name == self.backend)

    def images(self, network: str, count: int, seed: int = 0) -> Array:
        """Random images whose logits differ: noise alone looks all the same to a network."""
        rng = np.random.default_rng(seed)
        graph = resrt.build_graph(network, input_size=self.input_size)
        channels, height, width = graph.input_shape
        patches = rng.standard_normal((count, channels, 4, 4), np.float32)
        patches = patches.repeat(-(-height // 4), 2).repeat(-(-width // 4), 3)
        noise = rng.standard_normal((count, *graph.input_shape), np.float32)
        return 2 * patches[:, :, :height, :width] + noise

    def reference(self, network: str, images: Array) -> Array:
        """The logits in float32 on the processor, by OpenVINO."""
        return replace(self, backend="openvino").engine(network, "fp32").infer(images)


@functools.cache
def fingerprint(libraries: Path, gpu: str) -> str:
    """Return 12 digits for resrt's version, the libraries in its folder, and the GPU.

    An engine carries the plugin's kernels and was lowered by these libraries: one that others built
    would be checked in their place.
    """
    digest = hashlib.sha256(f"{resrt.__version__}\0{gpu}".encode())
    for library in sorted(libraries.glob("libresrt*.so*")):
        digest.update(library.name.encode())
        digest.update(hashlib.sha256(library.read_bytes()).digest())
    return digest.hexdigest()[:12]


@functools.cache
def gpu_name() -> str:
    try:
        return Driver().gpu().name
    except NoGpuError:
        return "no GPU"


def why_no_torch() -> str | None:
    """Return why PyTorch cannot be used on the GPU, where it cannot."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    import torch

    return None if torch.cuda.is_available() else "this torch cannot use the GPU"


def difference(logits: Array, reference: Array, precision: str) -> float:
    """Return how far logits are off, over the largest. Raises WrongError where that is wrong.

    Wrong is also an image whose logits are nearer to another image's than to its own.
    """
    expect(logits.shape == reference.shape, f"logits {logits.shape} instead of {reference.shape}")
    off = relative_difference(logits, reference)
    tolerance = TOLERANCES[precision]
    expect(off <= tolerance, f"logits are off by {off:.1e}, more than {tolerance:.0e}")
    nearest = np.abs(logits[:, None] - reference[None]).max(axis=2).argmin(axis=1)
    mixed_up = np.flatnonzero(nearest != np.arange(len(logits)))
    expect(len(mixed_up) == 0, f"images are mixed up: {nearest.tolist()}")
    return off
