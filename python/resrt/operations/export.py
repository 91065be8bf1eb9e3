"""`resrt.export`: ONNX files, for other libraries to run."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from os import PathLike, fsdecode
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from resrt import _core
from resrt._support.arguments import path as checked_path
from resrt._support.arguments import whole
from resrt._support.extras import requires_extra
from resrt._support.files import replacing
from resrt.engine import calibration as calibrations
from resrt.engine.calibration import CalibrationLike
from resrt.engine.engine import build_network
from resrt.engine.network import BuildProgress, Model, Network, WeightsLike, resolve
from resrt.errors import BackendError, InputError
from resrt.graphs.definitions import output_shapes
from resrt.weights.preprocessing import PreprocessingLike

if TYPE_CHECKING:
    import onnx

DEFAULT_OPSET = 17  # supported since ONNX Runtime 1.12, TensorRT 8.6 and OpenVINO 2022

# The tolerance between two libraries' float32 arithmetic, relative to the largest logit.
_TOLERANCE = 1e-4

# Where the arithmetic differs in the last bit, rounding to 8 bits may make a whole step of it.
_TOLERANCE_OF_8_BITS = 0.05

_LARGEST_FILE = 2**31 - 2**20  # protobuf's limit, less some room for what is not weights


@dataclass(frozen=True)
class Exported:
    """A written ONNX file: a model of `classes` classes for images of `input_shape`.

    Attributes:
        outputs: the name of each output and its shape for one image.
        batch: the only batch size that it accepts; None: any.
        verified_by: the library that ran it before it was written; None if none could.
        difference: the largest difference between that library's logits and resrt's, divided by
            resrt's largest; None likewise.
        preprocessing: how photographs become inputs; `preprocessing_source` is where that is from.
    """

    path: Path
    network: str
    weights: str
    input_shape: tuple[int, int, int]
    classes: int
    outputs: dict[str, tuple[int, ...]]
    batch: int | None
    opset: int
    verified_by: str | None
    difference: float | None
    preprocessing: _core.Preprocessing
    preprocessing_source: str


def export(
    model: Model,
    path: str | PathLike[str],
    weights: WeightsLike | None = None,
    *,
    batch: int | None = None,
    opset: int = DEFAULT_OPSET,
    fold: bool = False,
    verify: bool | None = None,
    input_size: int | Sequence[int] | None = None,
    classes: int | None = None,
    in_channels: int | None = None,
    labels: Sequence[str] | PathLike[str] | None = None,
    preprocessing: PreprocessingLike | None = None,
    key: str | None = None,
    outputs: Sequence[str] | None = None,
    calibration: CalibrationLike | None = None,
    progress: BuildProgress | None = None,
) -> Exported:
    """Write a network as an ONNX file: float32 "images" (N, C, H, W) -> "logits" (N, classes).

    The model is written from the layer definitions and keeps the names of layers and parameters.
    Its metadata_props contain the network's name, the origin of its weights and, as JSON, its
    preprocessing, input size and labels. Before the file is written, ONNX's checker validates it,
    and ONNX Runtime, if installed, must compute the same logits as resrt for random images. The
    file is written completely or not at all. Requires onnx: pip install 'resrt[onnx]'.

    Args:
        model: a name, a PyTorch module, a ResNet, ResNeSt or RegNet, or a graph, as for
            `resrt.build`.
        path: the file to write.
        weights: as for `resrt.build`; None: the network's pretrained weights.
        batch: the only batch size that the file accepts, which some libraries run faster; None:
            any.
        opset: the version of ONNX's operators, from 13 to the latest that onnx supports.
        fold: fold each batch normalisation into the convolution before it. Libraries do so
            themselves; a file that is to be trained further should keep them.
        verify: whether to run it in ONNX Runtime; None: if it is installed.
        input_size: as for `resrt.build`, like the following.
        classes: the number of logits.
        in_channels: the number of input channels.
        labels: the names of the classes.
        preprocessing: how photographs become inputs.
        key: an entry of a checkpoint, or a prefix.
        outputs: what the model returns; it then has only the layers that these need.
        calibration: what `resrt.calibrate` returns, or the path of its file. The model then has
            8-bit integers as ONNX represents them, by QuantizeLinear and DequantizeLinear (QDQ),
            and folded batch normalisations. ONNX Runtime and others run it so.
        progress: as for `resrt.build`.

    Raises what `resrt.build` raises, PackageError if onnx, or onnxruntime with `verify`, is not
    installed, and BackendError if ONNX Runtime computes other logits.
    """
    writable = Path(fsdecode(checked_path(path)))
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
    ranges = None if calibration is None else calibrations.given(calibration, network)
    written = onnx_model(
        network, batch=batch, opset=opset, fold=fold, calibration=ranges
    ).SerializeToString()
    verified_by, difference = None, None
    if verify or (verify is None and importlib.util.find_spec("onnxruntime")):
        difference = _difference(network, written, batch, ranges)
        verified_by = f"ONNX Runtime {version('onnxruntime')}"
    with replacing(writable) as temporary:
        temporary.write_bytes(written)
    return Exported(
        path=writable,
        network=network.graph.name,
        weights=network.metadata.origin,
        input_shape=network.graph.input_shape,
        classes=network.graph.classes,
        outputs=output_shapes(network.graph),
        batch=batch,
        opset=opset,
        verified_by=verified_by,
        difference=difference,
        preprocessing=network.preprocessing,
        preprocessing_source=network.metadata.preprocessing_source,
    )


def onnx_model(
    network: Network,
    *,
    batch: int | None,
    opset: int = DEFAULT_OPSET,
    fold: bool = False,
    calibration: calibrations.Calibration | None = None,
) -> onnx.ModelProto:
    """Return a network as an ONNX model that ONNX's checker has validated.

    Raises InputError for a batch, opset or size that ONNX does not support, and PackageError if
    onnx is not installed.
    """
    with requires_extra("onnx", "writing ONNX models"):
        import onnx

        from resrt.graphs import onnx_writer

    opset = whole("opset", opset)
    if not onnx_writer.OLDEST_OPSET <= opset <= onnx.defs.onnx_opset_version():
        raise InputError(
            f"opset must be from {onnx_writer.OLDEST_OPSET} to {onnx.defs.onnx_opset_version()}, "
            f"the latest of onnx {version('onnx')}, not {opset}"
        )
    size = sum(array.nbytes for array in network.weights.values())
    if size > _LARGEST_FILE:
        raise InputError(
            f"the weights of {network.graph.name} are {size / 1e9:.1f} GB, but an ONNX file holds "
            "at most 2 GB; write them with resrt.convert instead"
        )
    graph, weights = network.graph, network.weights
    if fold or calibration is not None:
        graph, weights = _core.fold_batch_norm(graph, weights)
    if calibration is not None:
        graph = _core.quantise(graph, calibration.to_core())
    texts = {"network": graph.name, "weights": network.metadata.origin, **network.metadata.write()}
    batch = None if batch is None else whole("batch", batch)
    model = onnx_writer.write(graph, weights, batch=batch, opset=opset, metadata=texts)
    onnx.checker.check_model(model, full_check=True)
    return model


def _difference(
    network: Network,
    written: bytes,
    batch: int | None,
    calibration: calibrations.Calibration | None,
) -> float:
    """Run a model in ONNX Runtime and in resrt. Raises BackendError if their outputs differ."""
    size = 2 if batch is None else batch
    shape = (size, *network.graph.input_shape)
    images = np.random.default_rng(0).standard_normal(shape, np.float32)
    precision = "fp32" if calibration is None else "int8"
    tolerance = _TOLERANCE if calibration is None else _TOLERANCE_OF_8_BITS
    engine = build_network(network, precision, max_batch=size, calibration=calibration, tune=0)
    found = engine.infer(images)
    ours = list(found.values()) if isinstance(found, dict) else [found]
    differences = [
        relative_difference(theirs, reference)
        for theirs, reference in zip(_run(written, images), ours, strict=True)
    ]
    difference = float(np.max(differences))
    if not difference <= tolerance:  # also if it is NaN
        names = " and ".join(engine.info.outputs)
        raise BackendError(
            f"the {names} that ONNX Runtime {version('onnxruntime')} computes from this export of "
            f"{network.graph.name} differ from resrt's by {difference:.1e} of the largest, so it "
            "was not written. Try another version of ONNX Runtime, another opset, or verify=False"
        )
    return difference


def _run(written: bytes, images: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
    with requires_extra("onnx", "verifying an export"):
        import onnxruntime
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    (name,) = (value.name for value in session.get_inputs())
    return list(session.run(None, {name: images}))


def relative_difference(
    logits: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]
) -> float:
    """Return the largest difference from reference logits, relative to the largest of these."""
    largest = np.abs(reference).max()
    return float(np.abs(logits.astype(np.float64) - reference).max() / largest)
