"""`resrt.sensitivity`: how much each layer's rounding to 8 bits changes the logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from resrt import _core
from resrt.engine.calibration import CalibrationLike, given
from resrt.engine.engine import build_network
from resrt.engine.network import BuildProgress, Model, Network, WeightsLike, resolve
from resrt.errors import WeightsError
from resrt.operations.calibrate import ImagesLike, sample, to_inputs
from resrt.weights.preprocessing import PreprocessingLike

DEFAULT_LIMIT = 32
_BATCH = 8

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LayerSensitivity:
    """What rounding one layer alone costs.

    Attributes:
        layer: a convolution or an addition, as `keep` of `resrt.calibrate` names it.
        snr: the signal-to-noise ratio of the logits in decibels, which is the power of the logits
            over that of their change, with only this layer rounded: the input and the weight of a
            convolution, the shortcut of an addition. Infinite if the logits do not change.
    """

    layer: str
    snr: float


def sensitivity(
    model: Model,
    weights: WeightsLike | None = None,
    images: ImagesLike = (),
    *,
    calibration: CalibrationLike,
    limit: int = DEFAULT_LIMIT,
    input_size: int | Sequence[int] | None = None,
    classes: int | None = None,
    in_channels: int | None = None,
    preprocessing: PreprocessingLike | None = None,
    key: str | None = None,
    progress: BuildProgress | None = None,
) -> list[LayerSensitivity]:
    """Measure how much each layer's rounding to 8 bits changes the logits, the most harmful first.

    An engine is built for each convolution and addition that the calibration rounds, with only that
    layer rounded and the rest in float32. If an int8 engine is not accurate enough, calibrate again
    and leave the first layers of the list in floating point with `keep`.

    Args:
        model: as for `resrt.build`.
        weights: as for `resrt.build`.
        images: as for `resrt.calibrate`.
        calibration: the ranges, as a `resrt.Calibration` or the path of its file.
        limit: the maximum number of images, sampled evenly.
        input_size: as for `resrt.build`, like the following.
        classes: the number of logits.
        in_channels: the number of input channels.
        preprocessing: how photographs become inputs.
        key: an entry of a checkpoint, or a prefix.
        progress: called with a phase, the number of layers that are done, and their number.

    Raises what `resrt.calibrate` raises, and InputError if the calibration is of another network or
    of other weights.
    """
    network = resolve(
        model, weights, input_size, classes, in_channels, None, preprocessing, progress, key
    )
    ranges = given(calibration, network)
    batch = np.concatenate(to_inputs(sample(images, network, limit), network))
    network = replace(network, graph=_core.select_outputs(network.graph, ["logits"]))
    exact = _logits(network, batch)
    if not np.isfinite(exact).all():
        raise WeightsError(
            f"the logits of {network.graph.name} are not finite for these images; check the "
            "weights and the images"
        )
    graph, folded = _core.fold_batch_norm(network.graph, network.weights)
    kept_beside = _kept_beside(graph, ranges.keep)
    found = []
    for number, (layer, keep) in enumerate(kept_beside.items()):
        if progress is not None:
            progress("analysing, layer", number, len(kept_beside))
        alone = _core.quantise(graph, replace(ranges, keep=keep).to_core())
        rounded = replace(network, graph=alone, weights=folded)
        found.append(LayerSensitivity(layer, _snr(exact, _logits(rounded, batch))))
    return sorted(found, key=lambda one: one.snr)


def _kept_beside(graph: _core.Graph, keep: frozenset[str]) -> dict[str, frozenset[str]]:
    """Return each layer that is rounded, and what to keep so that it is the only one."""
    every = [
        layer.name
        for layer in graph.layers
        if isinstance(layer.definition, (_core.Conv2d, _core.Add))
    ]
    others = {name: frozenset(every) - {name} for name in every if name not in keep}
    return {
        name: kept for name, kept in others.items() if _core.quantised_tensors(graph, set(kept))
    }


def _logits(network: Network, batch: npt.NDArray[np.float32]) -> Logits:
    size = min(_BATCH, len(batch))
    found = build_network(network, "fp32", max_batch=size, tune=0).infer(batch)
    assert not isinstance(found, dict)
    return found


def _snr(exact: Logits, found: Logits) -> float:
    signal = np.square(exact, dtype=np.float64).sum()
    noise = np.square(exact.astype(np.float64) - found).sum()
    return float("inf") if noise == 0 else float(10 * np.log10(signal / noise))
