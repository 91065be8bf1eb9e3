"""Engines: load one, run it, save it."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt

from resrt import _core
from resrt._support import logs
from resrt._support.arguments import choice, path, whole
from resrt.engine import backends, device_arrays
from resrt.engine.network import BuildProgress, Network
from resrt.errors import InputError

if TYPE_CHECKING:
    from resrt.images import ImageLike, Prediction
    from resrt.measuring.timing import Timing

logs.forward()


class Engine:
    """A network that is ready to run, from `resrt.build` or `resrt.load`.

    Safe to use from many threads at once; inference releases the interpreter lock. `info`
    describes the engine.
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

        The logits of a batch in GPU memory stay there; torch.from_dlpack, cupy.from_dlpack and
        others read them without a copy. They are returned while the GPU is still computing, and
        they keep the batch's memory alive. Do not change the batch until they have been read. The
        stream of a reader waits for them by itself.

        All logits of an image with a value that is NaN or infinite are NaN; the other images of
        its batch are unaffected.

        Args:
            batch: preprocessed images, float32 (N, channels, height, width). N may be 0 or larger
                than max_batch, and the memory layout is arbitrary. Or such an array in the memory
                of the engine's GPU, contiguous, for instance a PyTorch or CuPy array.
            stream: the handle of the CUDA stream to compute in, for a batch in GPU memory; None:
                the stream that the batch names, or else the default stream.

        Raises InputError for a wrong dtype, rank, number of channels or size, and for a batch in
        memory that the engine cannot read.
        """
        if device_arrays.is_on_device(batch):
            return device_arrays.infer(self._core, batch, stream)
        if stream is not None:
            raise InputError(
                "this batch is in host memory; stream is only for a batch in GPU memory"
            )
        array = np.asarray(batch)
        expected = "(N, {}, {}, {})".format(*self.info.input_shape)
        if array.dtype != np.float32:
            raise InputError(
                f"{self.info.model} requires float32 of shape {expected}, not {array.dtype}; "
                "normalise it and convert it with .astype(numpy.float32), or use classify"
            )
        if array.ndim == 3 and array.shape == self.info.input_shape:
            raise InputError(
                f"{self.info.model} requires a batch of shape {expected}, not a single image of "
                f"shape {array.shape}; add the batch axis with image[None]"
            )
        return self._core.infer(np.require(array, requirements=["C_CONTIGUOUS", "ALIGNED"]))

    def classify(
        self, images: ImageLike | Sequence[ImageLike], topk: int = 5
    ) -> list[list[Prediction]]:
        """Return the most probable classes of each image, the most probable first.

        Args:
            images: one image or a sequence of them. Each is a path, a Pillow image, or a uint8
                array (H, W) or (H, W, 3) in RGB. They are preprocessed as the weights require.
            topk: the number of classes, at most as many as the network has.

        Raises FileError for a path that cannot be read, InputError for an invalid image.
        """
        from resrt.operations.classify import classify_images

        return classify_images(self, images, topk)

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

    def save(self, file: str | PathLike[str]) -> None:
        """Write the engine file, completely or, if that fails (FileError), not at all."""
        self._core.save(path(file))

    @property
    def plan(self) -> bytes:
        """The network as the backend compiled it, in the backend's own format.

        For the TensorRT backends this is a TensorRT plan, which trtexec and Triton load.
        """
        return self._core.plan


def build_network(
    network: Network,
    precision: str = "auto",
    max_batch: int = 8,
    backend: str = "openvino",
    threads: int | None = None,
    device: str | None = None,
    tensorrt: _core.TensorRTOptions | None = None,
    progress: BuildProgress | None = None,
) -> Engine:
    """Build an engine as `resrt.build` does, from a network whose arguments are resolved."""
    return Engine(
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
            device=backends.device_number(device),
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
    """Load an engine file and warm it up, so that its first inference is as fast as later ones.

    Args:
        file: a file that `Engine.save` wrote.
        threads: processor threads per inference; None: one per core.
        device: the GPU to run on, such as "cuda:1"; None: the first. Only for a GPU's backend.
        runtime_cache: a file in which TensorRT for RTX keeps the kernels that it compiles for the
            GPU when it loads an engine. It is read if it exists and is for this GPU, and written
            when further kernels were compiled, so that the next load is faster.

    Raises FileError if there is no such file, EngineFileError if it is not an engine file, is
    damaged or was built for another machine, and BackendError if its backend or GPU is missing.
    """
    for name in backends.BACKENDS:
        backends.prepare(name)
    return Engine(
        _core.Engine.load(
            path(file),
            threads=_threads(threads),
            device=backends.device_number(device),
            runtime_cache=None if runtime_cache is None else path(runtime_cache),
        )
    )


def _threads(threads: int | None) -> int:
    return 0 if threads is None else whole("threads", threads)


def _options(options: object) -> _core.TensorRTOptions | None:
    if options is None or isinstance(options, _core.TensorRTOptions):
        return options
    raise InputError(f"tensorrt must be a resrt.TensorRTOptions, not {type(options).__name__}")
