"""`resrt.build` and `resrt.build_file`: from a network and its weights to an engine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from resrt import _core
from resrt.engine.cache import CachedEngine
from resrt.engine.calibration import Calibration, CalibrationLike
from resrt.engine.engine import Engine, build_network, tuning
from resrt.engine.network import BuildProgress, Model, WeightsLike, resolve
from resrt.weights.preprocessing import PreprocessingLike

# The options of `resrt.build` that describe the network. The others describe the engine.
_OF_NETWORK = ("input_size", "classes", "in_channels", "labels", "preprocessing", "key", "outputs")


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
    preprocessing: PreprocessingLike | None = None,
    key: str | None = None,
    outputs: Sequence[str] | None = None,
    device: str | None = None,
    tune: float | None = None,
    calibration: CalibrationLike | None = None,
    tensorrt: _core.TensorRTOptions | None = None,
    progress: BuildProgress | None = None,
) -> Engine:
    """Build an engine from a network's layer definitions and its weights.

    TensorRT for RTX can also build engines on a machine without a GPU, or for other GPUs than the
    one that is present (compute_capabilities). You can save such an engine, but not run it there.

    Args:
        model: the name of a network ("ResNeSt50") or of pretrained weights ("resnet50.tv_in1k");
            "hf-hub:owner/name", a repository of weights for a network of the catalog; a PyTorch
            module of timm, torchvision or Transformers that computes the same as a network of the
            catalog, with its weights, preprocessing and labels, built as after its eval(); a
            ResNet, ResNeSt or RegNet with
            parameters of your own; or a graph.
        weights: the path of a file in any format that `resrt.weights.read` supports;
            "hf-hub:owner/name", a repository of the Hugging Face hub; arrays by name; or "random",
            seeded random parameters, for measuring latency. None: the network's pretrained
            weights, which `resrt.fetch` downloads if needed.
        precision: the type of activations and weights: "fp32", "bf16", "fp16", on NVIDIA GPUs
            "tf32", or "auto", the fastest of these that the device supports natively; or "int8",
            which computes the convolutions with 8-bit integers and requires a calibration. Inputs
            and logits are always float32.
        max_batch: the largest batch that runs at once; larger batches are split.
        input_size: height and width of the images in pixels; None: the size for which the weights
            were trained.
        classes: the number of logits; None: as the weights were trained.
        in_channels: the number of input channels; None: as the weights were trained.
        backend: the inference library, one of resrt.BACKENDS.
        threads: processor threads per inference; None: one per core.
        labels: the names of the classes, or the path of a text file with one name per line or of a
            JSON list; None: those of the weights file, or ImageNet's for 1000 classes.
        preprocessing: how photographs become inputs: a resrt.Preprocessing; the name of pretrained
            weights that have the same ("resnet18.tv_in1k"); or a dict of changes, with any of
            "like", such a name, "mean", "std", "resize", "crop_pct", "crop_mode" ("center" or
            "squash"), "interpolation" and "pipeline". What this leaves open, and None, is as the
            weights file says, or a config.json of timm or Transformers or a
            preprocessor_config.json in its folder. If none does, the preprocessing of the network's
            pretrained weights is assumed, and a warning is logged.
        key: an entry of a checkpoint, or a prefix, as for `resrt.weights.read`.
        outputs: what `Engine.infer` returns, in this order: "logits"; "features", the pooled
            features (N, C) that the classifier reads; "layer1", "layer2" and so on, the feature
            maps (N, C, H, W) at the end of each stage, in every family; "cam", the class activation
            maps (N, classes, H, W), whose means plus the classifier's bias are the logits, and
            which `Engine.explain` requires; or the name of any layer but the input. None: the
            logits. Only OpenVINO has other outputs than the logits.
        device: the GPU to build for, such as "cuda:1"; None: the first. Only for a GPU's backend.
        tune: how many seconds to measure, about, which of OpenVINO's kernels run each kind of
            convolution fastest on this processor; `Engine.info.kernels` has the result. 0 takes
            OpenVINO's default kernels. None: as RESRT_TUNE says, or else 10. TensorRT always
            measures, and has no such option.
        calibration: what `resrt.calibrate` returns for this network and these weights, or the path
            of its file. Only for the precisions of 8 bits.
        tensorrt: options of the TensorRT backends.
        progress: called with the name of a phase, the number of its steps that are done, and the
            number that it has (0 if unknown), as far as the backend knows them. An exception that
            it raises stops the build.

    Raises ModelError, FileError, WeightsError, DownloadError, PackageError, PrecisionError,
    BackendError or InputError, each of which says what to do.
    """
    network = resolve(
        model,
        weights,
        input_size,
        classes,
        in_channels,
        labels,
        preprocessing,
        progress,
        key,
        outputs,
    )
    network.warn_of_assumption()
    return build_network(
        network,
        precision,
        max_batch,
        backend,
        threads,
        device,
        calibration,
        tensorrt,
        progress,
        tune,
    )


@dataclass(frozen=True)
class BuiltFile:
    """An engine file of `size` bytes, and the seconds that it took to build or to copy."""

    path: str
    size: int
    info: _core.EngineInfo
    seconds: float
    from_cache: bool


def build_file(
    model: Model,
    output: str | PathLike[str],
    weights: WeightsLike | None = None,
    *,
    cache: bool = True,
    **options: Any,
) -> BuiltFile:
    """Build an engine as `resrt.build` does and write its file, or copy the file from the cache.

    Args:
        model: as for `resrt.build`.
        output: the engine file. It is written completely or not at all.
        weights: as for `resrt.build`.
        cache: whether to look for the same engine in the cache, and to add this one to it.
        **options: the other arguments of `resrt.build`.

    Raises what `resrt.build` and `Engine.save` raise.
    """
    start = time.perf_counter()
    output = Path(output)
    of_network = {name: options.pop(name, None) for name in _OF_NETWORK}
    options["tune"] = tuning(options.get("backend", "openvino"), options.get("tune"))
    network = resolve(model, weights, **of_network, progress=options.get("progress"))
    network.warn_of_assumption()
    if isinstance(calibration := options.get("calibration"), (str, PathLike)):
        options["calibration"] = Calibration.load(calibration)  # the cache depends on its content
    cached = CachedEngine(network, options) if cache else None
    info = None if cached is None else cached.copy_to(output)
    from_cache = info is not None
    if info is None:
        key = "" if cached is None else cached.key
        engine = build_network(network, **options, build_key=key)
        engine.save(output)
        info = engine.info
        if cached is not None:
            cached.keep(engine)
    return BuiltFile(
        str(output), output.stat().st_size, info, time.perf_counter() - start, from_cache
    )
