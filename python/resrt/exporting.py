"""ONNX files, for whatever else runs these networks."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from os import PathLike, fsdecode
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from resrt import _core
from resrt._arguments import path as checked_path
from resrt._arguments import whole
from resrt._extras import needing_extra
from resrt.conversion import LABELS, NETWORK, PREPROCESSING
from resrt.engine import build_network
from resrt.errors import BackendError, InputError
from resrt.files import replacing
from resrt.network import Model, Network, WeightsLike, resolve

if TYPE_CHECKING:
    import onnx

# Metadata of an exported model besides those of a converted weights file: what its weights were.
WEIGHTS = "weights"

DEFAULT_OPSET = 17  # ONNX Runtime 1.12, TensorRT 8.6 and OpenVINO 2022 read it, and all since

# Of the largest logit: what two libraries' float32 arithmetic may differ by.
_TOLERANCE = 1e-4

_LARGEST_FILE = 2**31 - 2**20  # protobuf's limit, less some room for all that is no weights


@dataclass(frozen=True)
class Exported:
    """What an export wrote: a model of `classes` classes for images of `input_shape`.

    `batch` is the batch size that it takes, None: any. `verified_by` is what ran it before it was
    written, and `difference` the largest difference that its logits had from resrt's, over resrt's
    largest; None where nothing here could run it.
    """

    path: Path
    network: str
    weights: str
    input_shape: tuple[int, int, int]
    classes: int
    batch: int | None
    opset: int
    verified_by: str | None
    difference: float | None


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
    preprocessing: _core.Preprocessing | None = None,
) -> Exported:
    """Write a network as an ONNX file: float32 "images" (N, C, H, W) -> "logits" (N, classes).

    The model is written from the layer definitions, keeps the names of layers and parameters, and
    has the network's name, what its weights were, and as JSON its preprocessing and labels, in its
    metadata_props. ONNX's checker has passed it, and, where that is installed, ONNX Runtime has
    given the same logits for random images as resrt; then it is written, whole or not at all.
    Needs onnx: pip install 'resrt[onnx]'.

    Args:
        model: a name, a ResNet, ResNeSt or RegNet, or a graph, as for `resrt.build`.
        path: the file to write.
        weights: as for `resrt.build`; None: the network's pretrained weights.
        batch: the only batch size that the file takes, which some libraries run faster; None: any.
        opset: the version of ONNX's operators, from 13 to the latest that onnx knows.
        fold: put each batch normalisation into the convolution before it. Libraries do so
            themselves; a file that is to be trained further should keep them.
        verify: run it in ONNX Runtime, or do not; None: if it is installed.
        input_size: as for `resrt.build`, and so are the following.
        classes: the number of logits.
        in_channels: planes of the images.
        labels: the names of the classes.
        preprocessing: how photographs become inputs.

    Raises what `resrt.build` raises; PackageError where onnx, or for verify onnxruntime, is not
    installed; BackendError where ONNX Runtime gives other logits.
    """
    writable = Path(fsdecode(checked_path(path)))
    network = resolve(
        model,
        weights,
        input_size=input_size,
        classes=classes,
        in_channels=in_channels,
        labels=labels,
        preprocessing=preprocessing,
    )
    written = onnx_model(network, batch=batch, opset=opset, fold=fold).SerializeToString()
    verified_by, difference = None, None
    if verify or (verify is None and importlib.util.find_spec("onnxruntime")):
        difference = _difference(network, written, batch)
        verified_by = f"ONNX Runtime {version('onnxruntime')}"
    with replacing(writable) as temporary:
        temporary.write_bytes(written)
    return Exported(
        path=writable,
        network=network.graph.name,
        weights=network.origin,
        input_shape=network.graph.input_shape,
        classes=network.graph.classes,
        batch=batch,
        opset=opset,
        verified_by=verified_by,
        difference=difference,
    )


def onnx_model(
    network: Network, *, batch: int | None, opset: int = DEFAULT_OPSET, fold: bool = False
) -> onnx.ModelProto:
    """Return a network as an ONNX model that ONNX's checker has passed.

    Raises InputError for a batch, an opset or a size that ONNX has not, PackageError without onnx.
    """
    with needing_extra("onnx", to="write an ONNX model"):
        import onnx

        from resrt import onnx_writer

    opset = whole("opset", opset)
    if not onnx_writer.OLDEST_OPSET <= opset <= onnx.defs.onnx_opset_version():
        raise InputError(
            f"opset must be from {onnx_writer.OLDEST_OPSET} to {onnx.defs.onnx_opset_version()}, "
            f"the latest of onnx {version('onnx')}, not {opset}"
        )
    size = sum(array.nbytes for array in network.weights.values())
    if size > _LARGEST_FILE:
        raise InputError(
            f"the weights of {network.graph.name} are {size / 1e9:.1f} GB, and an ONNX file holds "
            "2 GB at most; write them with resrt.convert instead"
        )
    graph, weights = network.graph, network.weights
    if fold:
        graph, weights = _core.fold_batch_norm(graph, weights)
    model = onnx_writer.write(
        graph,
        weights,
        batch=None if batch is None else whole("batch", batch),
        opset=opset,
        metadata=_metadata(network),
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _metadata(network: Network) -> dict[str, str]:
    steps = network.preprocessing
    metadata = {
        NETWORK: network.graph.name,
        WEIGHTS: network.origin,
        PREPROCESSING: json.dumps(
            {
                "resize": steps.resize,
                "interpolation": steps.interpolation,
                "mean": steps.mean,
                "std": steps.std,
                "pipeline": steps.pipeline,
            }
        ),
    }
    if network.labels:
        metadata[LABELS] = json.dumps(network.labels, ensure_ascii=False)
    return metadata


def _difference(network: Network, written: bytes, batch: int | None) -> float:
    """Run a model in ONNX Runtime and in resrt. Raises BackendError where their logits differ."""
    size = 2 if batch is None else batch
    shape = (size, *network.graph.input_shape)
    images = np.random.default_rng(0).standard_normal(shape, np.float32)
    ours = build_network(network, precision="fp32", max_batch=size).infer(images)
    difference = relative_difference(_run(written, images), ours)
    if not difference <= _TOLERANCE:  # nor is a NaN
        raise BackendError(
            f"ONNX Runtime {version('onnxruntime')} computes other logits from this export of "
            f"{network.graph.name} than resrt, by {difference:.1e} of the largest, so it was not "
            "written. Try another version of ONNX Runtime, another opset, or verify=False"
        )
    return difference


def _run(written: bytes, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    with needing_extra("onnx", to="verify an export"):
        import onnxruntime
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    (name,) = (value.name for value in session.get_inputs())
    logits: npt.NDArray[np.float32] = session.run(None, {name: images})[0]
    return logits


def relative_difference(
    logits: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]
) -> float:
    """Return the largest difference between two batches of logits, over the reference's largest."""
    largest = np.abs(reference).max()
    return float(np.abs(logits.astype(np.float64) - reference).max() / largest)
