"""Engines: build one, save it, load it, and classify with it."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import operator
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from resrt import _core, images, labels, timing
from resrt import weights as weights_
from resrt.errors import InputError
from resrt.models import Config, build_graph, model_info

BACKENDS = ("openvino",)
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


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

    def infer(self, batch: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Return the logits of a batch, float32 (N, classes).

        Args:
            batch: float32 (N, channels, height, width), preprocessed; any N from 0 on, also more
                than max_batch, and any memory layout.

        Raises InputError for another dtype, rank, number of channels or size.
        """
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
        if topk < 1:
            raise InputError(f"topk must be at least 1, not {topk}")
        is_sequence = isinstance(images_, Sequence) and not isinstance(images_, str)
        several: Sequence[Any] = images_ if is_sequence else [images_]  # type: ignore[assignment]
        predictions: list[list[images.Prediction]] = []
        step = self.info.max_batch
        for start in range(0, len(several), step):
            logits = self.infer(images.preprocess_batch(several[start : start + step], self.info))
            predictions += images.top_k(logits, topk, self.info.labels)
        return predictions

    def time(
        self, batch_sizes: Sequence[int] = (1, 4, 8), *, repeats: int = 30
    ) -> list[timing.Timing]:
        """Measure the latency of `infer` at each batch size, on random images.

        Returns one Timing per batch size, in milliseconds, warm-up excluded.
        """
        if repeats < 1 or any(size < 1 for size in batch_sizes):
            raise InputError(
                f"batch sizes and repeats must be at least 1, not {list(batch_sizes)}, {repeats}"
            )
        rng = np.random.default_rng(0)
        results = []
        for size in batch_sizes:
            batch = rng.standard_normal((size, *self.info.input_shape), np.float32)
            results.append(timing.measure(lambda: self._core.infer(batch), size, repeats=repeats))  # noqa: B023
        return results

    def save(self, path: str | PathLike[str]) -> None:
        """Write the engine file: whole or, where that fails (FileError), not at all."""
        self._core.save(fspath(path))


def build(
    model: str | Config | _core.Graph,
    weights: str | PathLike[str] | Mapping[str, npt.NDArray[np.generic]],
    *,
    precision: str = "auto",
    max_batch: int = 8,
    input_size: int | Sequence[int] | None = None,
    classes: int | None = None,
    in_channels: int | None = None,
    backend: str = "openvino",
    threads: int | None = None,
    labels: Sequence[str] | None = None,
    preprocessing: _core.Preprocessing | None = None,
) -> Engine:
    """Build an engine from a network's layer definitions and its weights.

    Args:
        model: a name of the catalog; a ResNet, ResNeSt or RegNet of one's own parameters; or a
            graph.
        weights: the path of a file of any format that `weights.read` knows; arrays by name; or
            "random", seeded random parameters, when only the time matters.
        precision: what activations and weights are computed in: "fp32", "bf16", "fp16", or "auto",
            the fastest that the device computes natively. Inputs and logits are float32 always.
        max_batch: the largest batch that runs at once; larger ones are run in parts.
        input_size: height and width of the images in pixels; None: the catalog's.
        classes: the number of logits; None: 1000.
        in_channels: planes of the images; None: 3.
        backend: the inference library, one of BACKENDS.
        threads: processor threads per inference; None: one for each core.
        labels: the names of the classes; None: ImageNet's, if there are 1000.
        preprocessing: how photographs become inputs; None: the catalog's.

    Raises ModelError, FileError, WeightsError, PrecisionError, BackendError or InputError, each
    saying what to do.
    """
    graph = _graph(model, input_size, classes, in_channels)
    if isinstance(weights, Mapping):
        arrays, origin = weights_.fit(weights, graph, origin="the arrays"), "arrays"
    elif isinstance(weights, str) and weights == "random":
        arrays, origin = _core.random_weights(graph, 0), "random"
    else:
        arrays, origin = weights_.load(weights, graph), Path(weights).name
    return Engine(
        _core.Engine.build(
            graph,
            arrays,
            backend=_ready(backend),
            precision=precision,
            max_batch=_whole("max_batch", max_batch),
            threads=_threads(threads),
            weights_note=origin,
            labels=_labels(labels, graph.classes),
            preprocessing=preprocessing or _preprocessing(model, graph),
        )
    )


def load(path: str | PathLike[str], *, threads: int | None = None) -> Engine:
    """Load an engine file and warm it up, so that its first inference is as fast as any.

    Raises FileError where there is no such file, EngineFileError where it is no engine, damaged,
    or built for something else, and BackendError where its backend is not installed.
    """
    for name in BACKENDS:
        _ready(name)
    return Engine(_core.Engine.load(fspath(path), threads=_threads(threads)))


def backends() -> list[_core.BackendStatus]:
    """Return the backends that this build knows of, and whether each can be used here."""
    for name in BACKENDS:
        _ready(name)
    return _core.backends()


def _ready(backend: str) -> str:
    """Open the backend's library where its wheel lies outside our own folder of packages.

    The core finds OpenVINO beside itself; a library that is open already is found anywhere.
    """
    if backend == "openvino" and (spec := importlib.util.find_spec("openvino")):
        for folder in spec.submodule_search_locations or ():
            for library in Path(folder).glob("libs/libopenvino.so.*"):
                with contextlib.suppress(OSError):  # the core says what is wrong with it
                    ctypes.CDLL(str(library))
    return backend


def _graph(
    model: str | Config | _core.Graph,
    input_size: int | Sequence[int] | None,
    classes: int | None,
    in_channels: int | None,
) -> _core.Graph:
    if isinstance(model, _core.Graph):
        if (input_size, classes, in_channels) != (None, None, None):
            raise InputError(
                "a graph has its input size, classes and input channels already; give them to "
                "resrt.build_graph instead"
            )
        return model
    return build_graph(
        model,
        classes=1000 if classes is None else _whole("classes", classes),
        input_size=input_size,
        in_channels=3 if in_channels is None else _whole("in_channels", in_channels),
    )


def _whole(name: str, value: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if not 1 <= number < 2**31:
        raise InputError(f"{name} must be a whole number of at least 1, not {value!r}")
    return number


def _threads(threads: int | None) -> int:
    return 0 if threads is None else _whole("threads", threads)


def _labels(names: Sequence[str] | None, classes: int) -> list[str]:
    if names is None:
        return labels.imagenet() if classes == 1000 else []
    if len(names) != classes:
        raise InputError(f"there are {len(names)} labels for {classes} classes; give one for each")
    return list(names)


def _preprocessing(model: str | Config | _core.Graph, graph: _core.Graph) -> _core.Preprocessing:
    """Return what the catalog says; for the user's own networks, what PaddleClas does."""
    channels, height, width = graph.input_shape
    info = model_info(model) if isinstance(model, str) else None
    published = info.published if info else None
    size = min(height, width)
    if published and size == published.crop:
        resize = published.resize_short
    else:
        resize = round(size / 0.875)
    is_bicubic = info is not None and info.source == "timm" and info.family != "ResNeSt"
    return images.imagenet_preprocessing(channels, resize, "bicubic" if is_bicubic else "bilinear")
