"""Engines: build one, save it, load it, and classify with it."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from resrt import _core, _log, conversion, images, pretrained, timing
from resrt import labels as labels_
from resrt import weights as weights_
from resrt._arguments import choice, path, whole
from resrt.errors import InputError
from resrt.files import sha256
from resrt.models import Config, build_graph, model_info

BACKENDS = tuple(_core.backend_names())
PRECISIONS = tuple(_core.precision_names())

# The wheels that carry an inference library which the core opens by itself.
_LIBRARY_WHEELS = ("tensorrt_libs", "tensorrt_rtx_libs", "onnxruntime_ep_nv_tensorrt_rtx")

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
        self, batch_sizes: Sequence[int] = (1, 4, 8), *, repeats: int = 30
    ) -> list[timing.Timing]:
        """Measure the latency of `infer` at each batch size, on random images.

        Returns one Timing per batch size, in milliseconds, warm-up excluded.
        """
        repeats = whole("repeats", repeats)
        batch_sizes = [whole("a batch size", size) for size in batch_sizes]
        rng = np.random.default_rng(0)
        results = []
        for size in batch_sizes:
            batch = rng.standard_normal((size, *self.info.input_shape), np.float32)
            results.append(timing.measure(lambda: self._core.infer(batch), size, repeats=repeats))  # noqa: B023
        return results

    def save(self, file: str | PathLike[str]) -> None:
        """Write the engine file: whole or, where that fails (FileError), not at all."""
        self._core.save(path(file))


def build(
    model: str | Config | _core.Graph,
    weights: str | PathLike[str] | Mapping[str, npt.NDArray[np.generic]] | None = None,
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

    TensorRT for RTX builds engines on a machine that has no GPU, too. Such an engine can be saved,
    but not run there.

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

    Raises ModelError, FileError, WeightsError, DownloadError, PrecisionError, BackendError or
    InputError, each saying what to do.
    """
    entry = pretrained.find(model) if isinstance(model, str) else None
    if entry is not None:
        model = entry.model
        input_size = entry.crop if input_size is None else input_size
    given = _fetch(model, entry, classes, in_channels) if weights is None else weights
    checkpoint, origin = _read(given)
    if isinstance(model, _core.Graph):
        _refuse_options_beside_a_graph(input_size, classes, in_channels)
        graph = model
    else:
        graph = _graph(model, checkpoint, input_size, classes, in_channels)
    if checkpoint is None:
        arrays = _core.random_weights(graph, 0)
    else:
        arrays = weights_.fit_checkpoint(checkpoint, graph, origin=origin)
        labels = conversion.labels_of(checkpoint.metadata) if labels is None else labels
        preprocessing = preprocessing or conversion.preprocessing_of(checkpoint.metadata)
    return Engine(
        _core.Engine.build(
            graph,
            arrays,
            backend=_ready(choice("backend", backend)),
            precision=choice("precision", precision),
            max_batch=whole("max_batch", max_batch),
            threads=_threads(threads),
            weights_note=_note(weights, entry),
            weights_sha256=weights_sha256(given),
            labels=_labels(labels, graph.classes),
            preprocessing=_checked(preprocessing) or _preprocessing(entry, model, graph),
            device=_device(device),
            tensorrt=_options(tensorrt),
            progress=progress,
        )
    )


def load(
    file: str | PathLike[str], *, threads: int | None = None, device: str | None = None
) -> Engine:
    """Load an engine file and warm it up, so that its first inference is as fast as any.

    Args:
        file: what `Engine.save` wrote.
        threads: processor threads per inference; None: one for each core.
        device: the GPU, for an engine that runs on one: "cuda:1"; None: the first.

    Raises FileError where there is no such file, EngineFileError where it is no engine, damaged,
    or built for something else, and BackendError where its backend or its GPU is not there.
    """
    for name in BACKENDS:
        _ready(name)
    return Engine(_core.Engine.load(path(file), threads=_threads(threads), device=_device(device)))


def backends() -> list[_core.BackendStatus]:
    """Return the backends that this build knows of, and whether each can be used here."""
    for name in BACKENDS:
        _ready(name)
    return _core.backends()


def _ready(backend: str) -> str:
    """Let the core find the backend's library where its wheel lies outside our folder of packages.

    The core finds wheels beside itself. OpenVINO's library is linked, and one that is open already
    is found anywhere; TensorRT's are opened by the core, which need only know the folder.
    """
    if backend != "openvino":
        for wheel in _LIBRARY_WHEELS:
            if spec := importlib.util.find_spec(wheel):
                for folder in spec.submodule_search_locations or ():
                    _core.add_library_folder(path(Path(folder).parent))
    elif spec := importlib.util.find_spec("openvino"):
        for folder in spec.submodule_search_locations or ():
            for library in Path(folder).glob("libs/libopenvino.so.*"):
                with contextlib.suppress(OSError):  # the core says what is wrong with it
                    ctypes.CDLL(str(library))
    return backend


def _read(
    weights: str | PathLike[str] | Mapping[str, npt.NDArray[np.generic]],
) -> tuple[weights_.Checkpoint | None, str]:
    """Return a checkpoint, None for random parameters, and what an error calls it."""
    if isinstance(weights, Mapping):
        return weights_.Checkpoint("arrays", weights), "the arrays"
    if isinstance(weights, str) and weights == "random":
        return None, "random"
    return weights_.read(weights), f"'{fspath(weights)}'"


def _note(
    weights: str | PathLike[str] | Mapping[str, npt.NDArray[np.generic]] | None,
    entry: pretrained.Pretrained | None,
) -> str:
    """Return what an engine notes of its weights: whose they are, or a file's name."""
    if weights is None:
        return entry.name if entry is not None else ""
    return "arrays" if isinstance(weights, Mapping) else Path(weights).name


def weights_sha256(weights: str | PathLike[str] | Mapping[str, npt.NDArray[np.generic]]) -> str:
    """Return the checksum of a file's bytes, or of arrays' names, types, shapes and values."""
    if isinstance(weights, str) and weights == "random":
        return ""
    if not isinstance(weights, Mapping):
        return sha256(Path(weights))
    digest = hashlib.sha256()
    for name, array in sorted(weights.items()):
        digest.update(f"{name}:{array.dtype.str}:{array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _graph(
    model: str | Config,
    checkpoint: weights_.Checkpoint | None,
    input_size: int | Sequence[int] | None,
    classes: int | None,
    in_channels: int | None,
) -> _core.Graph:
    """Build the graph, with what the user leaves open as the weights were trained for."""
    if checkpoint is not None and (classes is None or in_channels is None):
        trained = weights_.head_and_stem(checkpoint.arrays, build_graph(model))
        classes = trained[0] if classes is None else classes
        in_channels = trained[1] if in_channels is None else in_channels
    return build_graph(
        model,
        classes=1000 if classes is None else whole("classes", classes),
        input_size=input_size,
        in_channels=3 if in_channels is None else whole("in_channels", in_channels),
    )


def _refuse_options_beside_a_graph(*options: object) -> None:
    if any(option is not None for option in options):
        raise InputError(
            "a graph has its input size, classes and input channels already; give them to "
            "resrt.build_graph instead"
        )


def _threads(threads: int | None) -> int:
    return 0 if threads is None else whole("threads", threads)


def _device(device: str | None) -> int:
    """Return the number of a GPU that is named as PyTorch names it."""
    if device is None:
        return 0
    match = re.fullmatch(r"cuda(?::(\d{1,4}))?", choice("device", device))
    if match is None:
        raise InputError(f"device is a GPU, as 'cuda' or 'cuda:1', not '{device}'")
    return int(match[1] or 0)


def _options(options: object) -> _core.TensorRTOptions | None:
    if options is None or isinstance(options, _core.TensorRTOptions):
        return options
    raise InputError(f"tensorrt is a resrt.TensorRTOptions, not {type(options).__name__}")


def _labels(names: Sequence[str] | PathLike[str] | None, classes: int) -> list[str]:
    if names is None:
        return labels_.imagenet() if classes == 1000 else []
    listed = labels_.read(names) if isinstance(names, (str, PathLike)) else list(names)
    if not all(isinstance(name, str) for name in listed):
        raise InputError("labels are names as str, one for each class")
    return listed


def _fetch(
    model: str | Config | _core.Graph,
    entry: pretrained.Pretrained | None,
    classes: int | None,
    in_channels: int | None,
) -> Path:
    """Return the file of the network's pretrained weights."""
    if not isinstance(model, str):
        raise InputError(
            "a network of your own has no pretrained weights; give weights: a file, arrays, or "
            '"random"'
        )
    if entry is None:
        return pretrained.fetch(model)  # which says that there are none
    if classes not in (None, entry.classes) or in_channels not in (None, 3):
        # Known before anything is downloaded.
        raise InputError(
            f"the pretrained weights {entry.name} have {entry.classes} classes and 3 input "
            f"channels, not {classes or entry.classes} and {in_channels or 3}; leave these options "
            "out, or give weights of your own"
        )
    return pretrained.fetch(entry.name)


def _checked(preprocessing: object) -> _core.Preprocessing | None:
    if preprocessing is None or isinstance(preprocessing, _core.Preprocessing):
        return preprocessing
    raise InputError(f"preprocessing is a resrt.Preprocessing, not {type(preprocessing).__name__}")


def _preprocessing(
    entry: pretrained.Pretrained | None, model: str | Config | _core.Graph, graph: _core.Graph
) -> _core.Preprocessing:
    """Return what the pretrained weights ask for; where there are none, what the source does."""
    channels, height, width = graph.input_shape
    size = min(height, width)
    if entry is None:
        is_paddleclas = isinstance(model, str) and model_info(model).source == "PaddleClas"
        pipeline = "paddleclas" if is_paddleclas else "torchvision"
        return images.imagenet_preprocessing(channels, round(size / 0.875), pipeline)
    return _core.Preprocessing(
        resize=entry.resize_for(size),
        interpolation=entry.interpolation,
        mean=images.per_channel(entry.mean, channels),
        std=images.per_channel(entry.std, channels),
        pipeline=entry.pipeline,
    )
