"""Engines: build one, save it, load it, and classify with it."""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from resrt import _core, _log, device_arrays, images, timing
from resrt._arguments import choice, path, seconds, whole
from resrt.errors import InputError
from resrt.network import Model, Network, WeightsLike, resolve

BACKENDS = tuple(_core.backend_names())
PRECISIONS = tuple(_core.precision_names())

_log.forward()


class Engine:
    """A network that is ready to run, from `resrt.build` or `resrt.load`.

    Safe to use from many threads at once; inference releases the interpreter lock. `info` says
    what it is.
    """

    def __init__(self, core: _core.Engine) -> None:
        self._core = core
        self.info: _core.EngineInfo = core.info

    def __repr__(self) -> str:
        info = self.info
        shape = "x".join(map(str, info.input_shape))
        return (
            f"<resrt.Engine {info.model}: {shape} -> {info.classes} classes, {info.precision} on "
            f"{info.backend} {info.backend_version}, max_batch {info.max_batch}>"
        )

    @overload
    def infer(
        self, batch: device_arrays.OnDevice, *, stream: int | None = None
    ) -> _core.LogitsOnDevice: ...
    @overload
    def infer(self, batch: npt.ArrayLike) -> npt.NDArray[np.float32]: ...
    def infer(
        self, batch: npt.ArrayLike | device_arrays.OnDevice, *, stream: int | None = None
    ) -> npt.NDArray[np.float32] | _core.LogitsOnDevice:
        """Return the logits of a batch, float32 (N, classes).

        Logits of a batch in a GPU's memory stay there: torch.from_dlpack, cupy.from_dlpack and
        others read them without a copy. They are returned while the GPU still computes; they keep
        the batch's memory, which must stay as it is until then. A reader's stream waits by itself.

        Args:
            batch: float32 (N, channels, height, width), preprocessed; any N from 0 on, also more
                than max_batch, and any memory layout. Or such an array in the memory of the
                engine's GPU, as PyTorch's and CuPy's, contiguous there.
            stream: for a batch in a GPU's memory, the handle of the CUDA stream in whose order it
                is computed; None: the stream that the batch names, or else the default stream.

        Raises InputError for another dtype, rank, number of channels or size, and for a batch in
        memory that the engine does not read.
        """
        if device_arrays.is_on_device(batch):
            return device_arrays.infer(self._core, batch, stream)
        if stream is not None:
            raise InputError("this batch is in the processor's memory; leave out stream")
        array = np.asarray(batch)
        expected = "(N, {}, {}, {})".format(*self.info.input_shape)
        if array.dtype != np.float32:
            raise InputError(
                f"{self.info.model} takes a float32 batch of shape {expected}, not {array.dtype}; "
                "normalise it and convert it with .astype(numpy.float32), or classify images"
            )
        if array.ndim == 3 and array.shape == self.info.input_shape:
            raise InputError(
                f"{self.info.model} takes a batch of shape {expected}, not one image of shape "
                f"{array.shape}; add the batch's axis with image[None]"
            )
        return self._core.infer(np.require(array, requirements=["C_CONTIGUOUS", "ALIGNED"]))

    def classify(
        self, images_: images.ImageLike | Sequence[images.ImageLike], topk: int = 5
    ) -> list[list[images.Prediction]]:
        """Return, for each image, its most probable classes, the most probable first.

        Args:
            images_: one image or a sequence of them; each is a path, a Pillow image, or a uint8
                array (H, W) or (H, W, 3) in RGB. They are preprocessed as the weights were trained.
            topk: how many classes; at most as many as the network has.

        Raises FileError for a path that cannot be read, InputError for what is no image.
        """
        topk = whole("topk", topk)
        is_sequence = isinstance(images_, Sequence) and not isinstance(images_, str)
        several: Sequence[Any] = images_ if is_sequence else [images_]  # type: ignore[assignment]
        predictions: list[list[images.Prediction]] = []
        step = self.info.max_batch
        for start in range(0, len(several), step):
            logits = self.infer(self._preprocess(several[start : start + step]))
            predictions += images.top_k(logits, topk, self.info.labels)
        return predictions

    def _preprocess(self, several: Sequence[images.ImageLike]) -> npt.NDArray[np.float32]:
        return images.preprocess_batch(several, self.info.preprocessing, self.info.input_shape)

    def time(
        self,
        batch_sizes: Sequence[int] = (1, 4, 8),
        *,
        repeats: int = 30,
        duration: float = 0.0,
        warm_up: int = 3,
        concurrency: int = 1,
    ) -> list[timing.Timing]:
        """Measure the latency of `infer` at each batch size, on random images.

        Args:
            batch_sizes: images per inference.
            repeats: timed inferences per batch size, at least.
            duration: seconds of them per batch size, at least.
            warm_up: untimed inferences before, by each caller.
            concurrency: callers at once.

        Returns one Timing per batch size, in milliseconds. `resrt.time` measures more. Raises
        InputError for settings that cannot be.
        """
        settings = {
            "repeats": whole("repeats", repeats),
            "warm_up": whole("warm_up", warm_up, least=0),
            "concurrency": whole("concurrency", concurrency),
        }
        duration = seconds("duration", duration)
        batch_sizes = [whole("a batch size", size) for size in batch_sizes]
        rng = np.random.default_rng(0)
        results = []
        for size in batch_sizes:
            batch = rng.standard_normal((size, *self.info.input_shape), np.float32)
            infer = functools.partial(self._core.infer, batch)
            results.append(timing.measure(infer, size, duration=duration, **settings))
        return results

    def save(self, file: str | PathLike[str]) -> None:
        """Write the engine file: whole or, where that fails (FileError), not at all."""
        self._core.save(path(file))

    @property
    def plan(self) -> bytes:
        """What the backend made of the network, in the backend's own format.

        For those of TensorRT it is what TensorRT itself loads, and with it trtexec and Triton.
        """
        return self._core.plan


def build(
    model: Model,
    weights: WeightsLike | None = None,
    *,
    precision: str = "auto",
    max_batch: int = 8,
    input_size: int | Sequence[int] | None = None,
    classes: int | None = None,
    in_channels: int | None = None,
    backend: str = "openvino",
    threads: int | None = None,
    labels: Sequence[str] | PathLike[str] | None = None,
    preprocessing: _core.Preprocessing | None = None,
    device: str | None = None,
    tensorrt: _core.TensorRTOptions | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Engine:
    """Build an engine from a network's layer definitions and its weights.

    TensorRT for RTX builds engines on a machine that has no GPU, too, and for other GPUs than the
    one that is there (compute_capabilities). Such an engine can be saved, but not run there.

    Args:
        model: a name of the catalog, or of one of its pretrained weights ("resnet50.tv_in1k"); a
            ResNet, ResNeSt or RegNet of one's own parameters; or a graph.
        weights: the path of a file of any format that `resrt.weights.read` knows; arrays by name;
            or "random", seeded random parameters, when only the time matters. None: the network's
            pretrained weights, which `resrt.fetch` downloads where they are not here.
        precision: what activations and weights are computed in: "fp32", "bf16", "fp16", on NVIDIA's
            GPUs "tf32", or "auto", the fastest that the device computes natively. Inputs and logits
            are float32 always.
        max_batch: the largest batch that runs at once; larger ones are run in parts.
        input_size: height and width of the images in pixels; None: what the pretrained weights
            were trained for.
        classes: the number of logits; None: as the weights were trained for.
        in_channels: planes of the images; None: as the weights were trained for.
        backend: the inference library, one of resrt.BACKENDS.
        threads: processor threads per inference; None: one for each core.
        labels: the names of the classes, or the path of a text file of one name per line or of a
            JSON list; None: the weights file's, or ImageNet's, if there are 1000.
        preprocessing: how photographs become inputs; None: the weights file's, or what the
            network's pretrained weights ask for.
        device: the GPU, for a backend that runs on one: "cuda:1"; None: the first.
        tensorrt: how TensorRT builds the engine.
        progress: called with a phase's name, the steps of it that are done, and their number, as
            far as the backend knows its steps; what it raises stops the build.

    Raises ModelError, FileError, WeightsError, DownloadError, PackageError, PrecisionError,
    BackendError or InputError, each saying what to do.
    """
    network = resolve(
        model,
        weights,
        input_size=input_size,
        classes=classes,
        in_channels=in_channels,
        labels=labels,
        preprocessing=preprocessing,
    )
    return build_network(
        network,
        precision=precision,
        max_batch=max_batch,
        backend=backend,
        threads=threads,
        device=device,
        tensorrt=tensorrt,
        progress=progress,
    )


def build_network(
    network: Network,
    *,
    precision: str = "auto",
    max_batch: int = 8,
    backend: str = "openvino",
    threads: int | None = None,
    device: str | None = None,
    tensorrt: _core.TensorRTOptions | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Engine:
    """Build an engine as `build` does, from a network whose arguments are resolved."""
    return Engine(
        _core.Engine.build(
            network.graph,
            network.weights,
            backend=_ready(choice("backend", backend)),
            precision=choice("precision", precision),
            max_batch=whole("max_batch", max_batch),
            threads=_threads(threads),
            weights_note=network.origin,
            weights_sha256=network.sha256,
            labels=network.labels,
            preprocessing=network.preprocessing,
            device=_device(device),
            tensorrt=_options(tensorrt),
            progress=progress,
        )
    )


def load(
    file: str | PathLike[str],
    *,
    threads: int | None = None,
    device: str | None = None,
    runtime_cache: str | PathLike[str] | None = None,
) -> Engine:
    """Load an engine file and warm it up, so that its first inference is as fast as any.

    Args:
        file: what `Engine.save` wrote.
        threads: processor threads per inference; None: one for each core.
        device: the GPU, for an engine that runs on one: "cuda:1"; None: the first.
        runtime_cache: a file of the kernels that TensorRT for RTX compiles for the GPU while it
            loads an engine: read if it exists and is of this GPU, and written where others were
            compiled, so that the next loading is faster.

    Raises FileError where there is no such file, EngineFileError where it is no engine, damaged,
    or built for something else, and BackendError where its backend or its GPU is not there.
    """
    for name in BACKENDS:
        _ready(name)
    return Engine(
        _core.Engine.load(
            path(file),
            threads=_threads(threads),
            device=_device(device),
            runtime_cache=None if runtime_cache is None else path(runtime_cache),
        )
    )


def backends() -> list[_core.BackendStatus]:
    """Return the backends that this build knows of, and whether each can be used here."""
    for name in BACKENDS:
        _ready(name)
    return _core.backends()


def _ready(backend: str) -> str:
    """Let the core find the backend's library in whichever folder its wheel is installed.

    The core itself looks only in the folder of packages that resrt is installed in.
    """
    for package in _core.library_packages(backend):
        if spec := importlib.util.find_spec(package):
            for folder in spec.submodule_search_locations or ():
                _core.add_library_folder(path(Path(folder).parent))
    return backend


def _threads(threads: int | None) -> int:
    return 0 if threads is None else whole("threads", threads)


def _device(device: str | None) -> int | None:
    """Return the number of a GPU that is named as PyTorch names it; None: the backend's default."""
    if device is None:
        return None
    match = re.fullmatch(r"cuda(?::(\d{1,4}))?", choice("device", device))
    if match is None:
        raise InputError(f"device is a GPU, as 'cuda' or 'cuda:1', not '{device}'")
    return int(match[1] or 0)


def _options(options: object) -> _core.TensorRTOptions | None:
    if options is None or isinstance(options, _core.TensorRTOptions):
        return options
    raise InputError(f"tensorrt is a resrt.TensorRTOptions, not {type(options).__name__}")
