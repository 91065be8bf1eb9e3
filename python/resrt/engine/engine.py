"""Engines: load one, run it, save it."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from time import perf_counter
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt

from resrt import _core
from resrt._support import environment, logs
from resrt._support.arguments import choice, path, seconds, whole
from resrt.engine import backends, device_arrays
from resrt.engine.calibration import CalibrationLike, given
from resrt.engine.network import BuildProgress, Network
from resrt.engine.profile import Profile, profile_engine
from resrt.errors import InputError
from resrt.system import machine

if TYPE_CHECKING:
    from resrt.images import ImageLike, Prediction
    from resrt.measuring.timing import Timing
    from resrt.operations.explain import Explanation

logs.forward()

_LOG = logging.getLogger("resrt.engine")

OPTIMIZE_FOR = ("latency", "throughput")


class Engine:
    """A network that is ready to run, from `resrt.build` or `resrt.load`.

    Safe to use from many threads at once; inference releases the interpreter lock. `info`
    describes the engine.
    """

    def __init__(self, core: _core.Engine) -> None:
        self._core = core
        self.info: _core.EngineInfo = core.info
        self._shapes = self.info.outputs

    def __repr__(self) -> str:
        info = self.info
        shape = "x".join(map(str, info.input_shape))
        is_classifier = list(self._shapes) == ["logits"]
        gives = f"{info.classes} classes" if is_classifier else ", ".join(self._shapes)
        return (
            f"<resrt.Engine {info.model}: {shape} -> {gives}, {info.precision} on "
            f"{info.backend} {info.backend_version}, max_batch {info.max_batch}>"
        )

    @overload
    def infer(
        self, batch: device_arrays.OnDevice, *, stream: int | None = None
    ) -> _core.LogitsOnDevice: ...
    @overload
    def infer(
        self, batch: npt.ArrayLike, *, out: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]: ...
    @overload
    def infer(
        self, batch: npt.ArrayLike, *, out: Mapping[str, npt.NDArray[np.float32]]
    ) -> dict[str, npt.NDArray[np.float32]]: ...
    def infer(
        self,
        batch: npt.ArrayLike | device_arrays.OnDevice,
        *,
        out: npt.NDArray[np.float32] | Mapping[str, npt.NDArray[np.float32]] | None = None,
        stream: int | None = None,
    ) -> npt.NDArray[np.float32] | dict[str, npt.NDArray[np.float32]] | _core.LogitsOnDevice:
        """Return the logits of a batch, float32 (N, classes).

        The logits of a batch in GPU memory stay there; torch.from_dlpack, cupy.from_dlpack and
        others read them without a copy. They are returned while the GPU is still computing, and
        they keep the batch's memory alive. Do not change the batch until they have been read. The
        stream of a reader waits for them by itself.

        An engine that was built with `outputs` returns those: of a single one the array, of several
        a dict of arrays by name, in the order of `info.outputs`, each float32 with N first.

        All logits of an image with a value that is NaN, or infinite in the engine's precision
        (65520 and more in fp16), are NaN; the other images of its batch are unaffected.

        Args:
            batch: preprocessed images, float32 (N, channels, height, width). N may be 0 or larger
                than max_batch, and the memory layout is arbitrary. Or pictures of the input's size,
                uint8 (N, channels, height, width) or (N, height, width, channels); the core
                normalises them by the mean and standard deviation of `info.preprocessing`, and the
                logits equal those of images that `resrt.preprocess` normalised. Or float32 in the
                memory of the engine's GPU, contiguous, for instance a PyTorch or CuPy array.
            out: an array for the logits, float32 (N, classes), contiguous, which is also returned;
                for several outputs, a dict of such arrays. Only for a batch in host memory.
            stream: the handle of the CUDA stream to compute in, for a batch in GPU memory; None:
                the stream that the batch names, or else the default stream.

        Raises InputError for a wrong dtype, rank, number of channels or size, and for a batch in
        memory that the engine cannot read.
        """
        if device_arrays.is_on_device(batch):
            if out is not None:
                raise InputError("this batch is in GPU memory; out is only for one in host memory")
            return device_arrays.infer(self._core, batch, stream)
        if stream is not None:
            raise InputError(
                "this batch is in host memory; stream is only for a batch in GPU memory"
            )
        return self._infer_on_host(batch, out)

    def _infer_on_host(
        self,
        batch: npt.ArrayLike | device_arrays.OnDevice,
        out: npt.NDArray[np.float32] | Mapping[str, npt.NDArray[np.float32]] | None,
    ) -> npt.NDArray[np.float32] | dict[str, npt.NDArray[np.float32]]:
        array = np.asarray(batch)
        channels_last = self._is_channels_last(array)
        outputs = self._outputs(len(array), out)
        if out is not None and any(np.may_share_memory(array, one) for one in outputs.values()):
            raise InputError("out must not be in the memory of the batch; use numpy.empty")
        array = np.require(array, requirements=["C_CONTIGUOUS", "ALIGNED"])
        if array.dtype == np.uint8:
            self._core.infer_pixels(array, channels_last, list(outputs.values()))
        else:
            self._core.infer(array, list(outputs.values()))
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    @overload
    async def infer_async(
        self, batch: npt.ArrayLike, *, out: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]: ...
    @overload
    async def infer_async(
        self, batch: npt.ArrayLike, *, out: Mapping[str, npt.NDArray[np.float32]]
    ) -> dict[str, npt.NDArray[np.float32]]: ...
    async def infer_async(
        self,
        batch: npt.ArrayLike,
        *,
        out: npt.NDArray[np.float32] | Mapping[str, npt.NDArray[np.float32]] | None = None,
    ) -> npt.NDArray[np.float32] | dict[str, npt.NDArray[np.float32]]:
        """Return the logits of a batch in host memory without blocking the event loop.

        The inference runs in a thread of the engine, and so do others at the same time. One that
        has begun also ends if the task is cancelled. The arguments and errors are those of `infer`.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: self._infer_on_host(batch, out))

    @functools.cached_property
    def _executor(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(machine.usable_cores(), thread_name_prefix="resrt")

    def _is_channels_last(self, array: npt.NDArray[np.generic]) -> bool:
        """Check the dtype and shape of a batch; return whether its channels are last."""
        channels, height, width = self.info.input_shape
        shapes = {(channels, height, width): False}
        expected = f"float32 of shape (N, {channels}, {height}, {width})"
        if array.dtype == np.uint8:
            shapes.setdefault((height, width, channels), True)
            expected = (
                f"uint8 of shape (N, {channels}, {height}, {width}) or "
                f"(N, {height}, {width}, {channels})"
            )
        elif array.dtype != np.float32:
            raise InputError(
                f"{self.info.model} requires {expected}, not {array.dtype}; normalise it and "
                "convert it with .astype(numpy.float32), give uint8, or use classify"
            )
        if array.shape in shapes:
            raise InputError(
                f"{self.info.model} requires a batch, {expected}, not a single image of "
                f"shape {array.shape}; add the batch axis with image[None]"
            )
        if array.ndim != 4 or array.shape[1:] not in shapes:
            raise InputError(f"{self.info.model} requires {expected}, not {array.shape}")
        return shapes[array.shape[1:]]

    def _outputs(
        self,
        batch: int,
        out: npt.NDArray[np.float32] | Mapping[str, npt.NDArray[np.float32]] | None,
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Return an array for each output; those that the caller gave are checked."""
        shapes = {name: (batch, *shape) for name, shape in self._shapes.items()}
        if out is None:
            return {name: np.empty(shape, np.float32) for name, shape in shapes.items()}
        if not isinstance(out, Mapping):
            if len(shapes) > 1:
                names = ", ".join(shapes)
                raise InputError(f"this engine has several outputs; out must be a dict of {names}")
            (name,) = shapes
            return {name: _checked("out", out, shapes[name])}
        if set(out) != set(shapes):
            raise InputError(f"out must have {', '.join(shapes)}, not {', '.join(map(str, out))}")
        return {
            name: _checked(f"out[{name!r}]", out[name], shape) for name, shape in shapes.items()
        }

    def logits(self, batch: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Return only the logits of a batch in host memory, of an engine with any outputs.

        Raises InputError if the logits are not among its outputs, and as `infer` does.
        """
        return self.outputs(batch, "logits")["logits"]

    def outputs(self, batch: npt.ArrayLike, *names: str) -> dict[str, npt.NDArray[np.float32]]:
        """Return outputs of a batch in host memory by name, also if the engine has only one.

        Raises InputError if one is not among the engine's outputs, and as `infer` does.
        """
        self.require_outputs(*names)
        found = self.infer(batch)
        return found if isinstance(found, dict) else dict.fromkeys(self._shapes, found)

    def require_outputs(self, *names: str) -> None:
        """Raise InputError, which says how to build such an engine, unless it has these outputs."""
        if missing := [name for name in names if name not in self._shapes]:
            raise InputError(
                f"this engine of {self.info.model} was built with the outputs "
                f"{', '.join(self._shapes)}; build it with {' and '.join(missing)} among them: "
                f"resrt build ... --outputs {' '.join(names)}, or outputs={list(names)} in Python"
            )

    def classify(
        self,
        images: ImageLike | Sequence[ImageLike],
        topk: int = 5,
        *,
        multilabel: bool = False,
        threshold: float | None = None,
    ) -> list[list[Prediction]]:
        """Return the most probable classes of each image, the most probable first.

        Args:
            images: one image, a sequence of them, or a batch of pixels, uint8 (N, H, W, channels).
                An image is a path, the content of an image file as bytes or an open file, a Pillow
                image, or pixels, uint8 (H, W) in grey, (H, W, 3) in RGB or (H, W, 4) in RGBA,
                whose alpha is ignored. They are preprocessed as the weights require.
            topk: the number of classes, at most as many as the network has.
            multilabel: whether probabilities are sigmoids, as for `resrt.classify`.
            threshold: omit classes that are less probable.

        Raises FileError for a path that cannot be read, InputError for an invalid image.
        """
        from resrt.operations.classify import classify_images

        return classify_images(self, images, topk, multilabel=multilabel, threshold=threshold)

    def explain(self, image: ImageLike, index: int | None = None) -> Explanation:
        """Show where the network found a class in a photograph, by an exact class activation map.

        Args:
            image: an image, as for `classify`.
            index: the number of the class; None: the most probable one.

        Raises InputError for an engine without the outputs "logits" and "cam", or an invalid image
        or index; FileError for a path that cannot be read.
        """
        from resrt.operations.explain import explain_image

        return explain_image(self, image, index)

    def time(
        self,
        batch_sizes: Sequence[int] = (1, 4, 8),
        *,
        repeats: int = 30,
        duration: float = 0.0,
        warm_up: int = 3,
        concurrency: int = 1,
    ) -> list[Timing]:
        """Measure the latency of `infer` at each batch size, on random images.

        The arguments are those of `resrt.time`, which measures more.

        Returns one Timing per batch size, in milliseconds. Raises InputError for invalid settings.
        """
        from resrt.operations.time import Settings, time_batches

        return time_batches(
            self, batch_sizes, Settings(repeats, duration, warm_up, None, concurrency)
        )

    def profile(self, batch: int = 1, *, repeats: int = 30) -> Profile:
        """Measure the time of each layer, by the backend's own counters, on random images.

        Args:
            batch: images per inference, at most max_batch.
            repeats: the number of inferences, whose mean is returned.

        Raises InputError for invalid arguments, and if the engine was loaded without
        `profile=True`.
        """
        return profile_engine(self._core, batch, repeats)

    def save(self, file: str | PathLike[str]) -> None:
        """Write the engine file, completely or, if that fails (FileError), not at all."""
        self._core.save(path(file))

    @property
    def plan(self) -> bytes:
        """The network as the backend compiled it, in the backend's own format.

        For the TensorRT backends this is a TensorRT plan, which trtexec and Triton load.
        """
        return self._core.plan


def _checked(
    what: str, array: npt.NDArray[np.float32], shape: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.shape != shape:
        is_array = isinstance(array, np.ndarray)
        found = f"{array.dtype} {array.shape}" if is_array else type(array).__name__
        raise InputError(f"{what} must be a float32 array of shape {shape}, not {found}")
    if not array.flags.c_contiguous or not array.flags.aligned or not array.flags.writeable:
        raise InputError(f"{what} must be contiguous, aligned and writeable; use numpy.empty")
    return array


def build_network(
    network: Network,
    precision: str = "auto",
    max_batch: int = 8,
    backend: str = "openvino",
    threads: int | None = None,
    device: str | None = None,
    calibration: CalibrationLike | None = None,
    tensorrt: _core.TensorRTOptions | None = None,
    progress: BuildProgress | None = None,
    tune: float | None = None,
    build_key: str = "",
) -> Engine:
    """Build an engine as `resrt.build` does, from a network whose arguments are resolved.

    `build_key` is the cache's name for what is built.
    """
    start = perf_counter()
    engine = Engine(
        _core.Engine.build(
            network.graph,
            network.weights,
            backend=backends.prepare(choice("backend", backend)),
            precision=choice("precision", precision),
            max_batch=whole("max_batch", max_batch),
            threads=_threads(threads),
            weights_note=network.metadata.origin,
            weights_sha256=network.sha256,
            labels=network.metadata.labels or [],
            preprocessing=network.preprocessing,
            preprocessing_source=network.metadata.preprocessing_source,
            build_key=build_key,
            tuning_seconds=tuning(backend, tune),
            device=backends.device_number(device),
            calibration=None if calibration is None else given(calibration, network).to_core(),
            tensorrt=_options(tensorrt),
            progress=progress,
        )
    )
    _log("built", engine.info, perf_counter() - start)
    return engine


def _log(done: str, info: _core.EngineInfo, seconds: float) -> None:
    """Log that an engine is ready, with what identifies it as fields of the record."""
    fields = {
        "network": info.model,
        "backend": info.backend,
        "backend_version": info.backend_version,
        "precision": info.precision,
        "max_batch": info.max_batch,
        "weights_sha256": info.weights_sha256,
        "seconds": seconds,
    }
    _LOG.info("%s %s for %s in %.2f s", done, info.model, info.backend, seconds, extra=fields)


def tuning(backend: str, tune: float | None) -> float | None:
    """Return how many seconds to measure kernels; None if the backend has no such option."""
    if tune is not None:
        return seconds("tune", tune)
    return environment.tuning_seconds() if backend == "openvino" else None


def load(
    file: str | PathLike[str],
    *,
    threads: int | None = None,
    optimize_for: str = "latency",
    warm_up: Sequence[int] | bool = True,
    batch_sizes: Sequence[int] = (),
    pin_threads: bool | None = None,
    profile: bool = False,
    device: str | None = None,
    runtime_cache: str | PathLike[str] | None = None,
) -> Engine:
    """Load an engine file and warm it up, so that its first inference is as fast as later ones.

    The file is not needed once the engine is loaded. An engine for OpenVINO may come from another
    version of OpenVINO; the installed one then compiles it.

    Args:
        file: a file that `Engine.save` wrote.
        threads: processor threads per inference; None: one for each core that this process may use,
            within a container's CPU quota. With fewer threads than cores, as many inferences run at
            once as the cores allow, and further callers wait.
        optimize_for: "latency" computes each inference with all cores, "throughput" as many
            inferences at once as there are cores, with one thread each, for many callers. Then
            without `threads`. A GPU always runs several inferences at once.
        warm_up: the batch sizes to run once before this function returns, for instance (1, 8). The
            first inference of a size prepares its kernels, which takes some tenths of a second.
            True: the sizes that the backend considers best, for OpenVINO only 1. False: none.
        batch_sizes: compile the network for each of these sizes instead of once for all. Each takes
            memory for the weights again, and other batches are put together from these sizes and 1.
            Only for OpenVINO; see docs/performance.md.
        pin_threads: whether each thread stays on one core; None lets OpenVINO choose. Only for
            OpenVINO.
        profile: count the time of each layer, for `Engine.profile`. This slows inferences down a
            little, and they run one at a time. Only for OpenVINO.
        device: the GPU to run on, such as "cuda:1"; None: the first. Only for a GPU's backend.
        runtime_cache: a file in which TensorRT for RTX keeps the kernels that it compiles for the
            GPU when it loads an engine. It is read if it exists and is for this GPU, and written
            when further kernels were compiled, so that the next load is faster.

    Raises FileError if there is no such file, EngineFileError if it is not an engine file, is
    damaged or was built for another machine, BackendError if its backend or GPU is missing, and
    InputError for invalid options.
    """
    if choice("optimize_for", optimize_for) not in OPTIMIZE_FOR:
        names = " or ".join(OPTIMIZE_FOR)
        raise InputError(f"optimize_for must be {names}, not {optimize_for}")
    for name in backends.BACKENDS:
        backends.prepare(name)
    start = perf_counter()
    engine = Engine(
        _core.Engine.load(
            path(file),
            threads=_threads(threads),
            for_throughput=optimize_for == "throughput",
            device=backends.device_number(device),
            runtime_cache=None if runtime_cache is None else path(runtime_cache),
            warm_up=_warm_up(warm_up),
            batch_sizes=[whole("batch_sizes", size) for size in batch_sizes],
            pin_threads=pin_threads,
            profile=profile,
        )
    )
    _log("loaded", engine.info, perf_counter() - start)
    return engine


def _warm_up(sizes: Sequence[int] | bool) -> list[int] | None:
    if sizes is True:
        return None
    return [whole("warm_up", size) for size in sizes or ()]


def _threads(threads: int | None) -> int:
    return 0 if threads is None else whole("threads", threads)


def _options(options: object) -> _core.TensorRTOptions | None:
    if options is None or isinstance(options, _core.TensorRTOptions):
        return options
    raise InputError(f"tensorrt must be a resrt.TensorRTOptions, not {type(options).__name__}")
