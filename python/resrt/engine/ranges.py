"""Estimators of the range in which 8-bit integers represent a tensor.

Values outside the range are clipped to it, and the others are rounded to one of 256 steps. A wider
range clips less and rounds more coarsely.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from resrt import _core

Floats = npt.NDArray[np.float64]

_PERCENTILE = 99.99

# The bins of the histogram for the entropy, as TensorRT and ONNX Runtime choose them.
_BINS = 2048
_CANDIDATE_STEP = 16


# The number of the intervals of `_core.count_values` that have finite values that are not negative.
# Each interval has the values whose upper 16 bits are its number.
_FINITE = 0x7F80


def _middles() -> Floats:
    """Return the middle of each interval of finite values that are not negative."""
    bits = np.arange(_FINITE, dtype=np.uint32) << np.uint32(16)
    middles: Floats = (bits | np.uint32(0x8000)).view(np.float32).astype(np.float64)
    middles[0] = 0  # a zero, which is frequent after ReLU
    return middles


@dataclass
class Values:
    """What is known about the values of a tensor on some images.

    Attributes:
        counts: how many values are in each of `_core.VALUE_INTERVALS` intervals.
        low: the lowest value.
        high: the highest.
    """

    counts: npt.NDArray[np.uint64] = field(
        default_factory=lambda: np.zeros(_core.VALUE_INTERVALS, np.uint64)
    )
    low: float = float("inf")
    high: float = float("-inf")

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Add the values of an image, contiguous float32."""
        _core.count_values(values, self.counts)
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))

    def merge(self, other: Values) -> None:
        """Add those of other images. The order does not matter: counts are integers."""
        self.counts += other.counts
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)

    @property
    def is_signed(self) -> bool:
        """Whether there are negative values."""
        return self.low < 0

    @property
    def largest(self) -> float:
        """The largest magnitude."""
        return max(-self.low, self.high)

    def magnitudes(self) -> tuple[Floats, Floats]:
        """Return magnitudes in ascending order and how often each occurs, only those that do."""
        half = _core.VALUE_INTERVALS // 2
        negative = self.counts[half : half + _FINITE]
        counts = (self.counts[:_FINITE] + negative).astype(np.float64)
        occurs = counts > 0
        return np.minimum(_middles()[occurs], self.largest), counts[occurs]


def estimate(values: Values, method: str) -> tuple[float, float]:
    """Return the lowest and the highest value of the range; from 0 without negative values."""
    if method == "minmax" or values.largest == 0:
        return min(values.low, 0.0), max(values.high, 0.0)
    limit = min(_LIMITS[method](values), values.largest)
    return (-limit if values.is_signed else 0.0), limit


def _percentile(values: Values) -> float:
    magnitudes, counts = values.magnitudes()
    share = np.cumsum(counts) / counts.sum()
    return float(magnitudes[np.searchsorted(share, _PERCENTILE / 100)])


def _squared_error(values: Values) -> float:
    """Return the limit with the least mean squared error."""
    magnitudes, counts = values.magnitudes()
    steps = 127 if values.is_signed else 255
    candidates = values.largest * np.arange(20, 101) / 100
    errors = []
    for limit in candidates:
        step = limit / steps
        rounded = magnitudes - step * np.minimum(np.round(magnitudes / step), steps)
        # The intervals of larger values are wider than a step, so the error is evenly distributed.
        is_fine = (magnitudes < 64 * step) | (magnitudes > limit)
        errors.append(float(counts @ np.where(is_fine, rounded**2, step**2 / 12)))
    return float(candidates[int(np.argmin(errors))])


def _entropy(values: Values) -> float:
    """Return the limit whose rounded distribution diverges the least from the original (KL).

    S. Migacz, "8-bit Inference with TensorRT", GTC 2017.
    """
    magnitudes, counts = values.magnitudes()
    width = values.largest / _BINS
    # The intervals of large magnitudes are wider than a bin, so each is spread over its own width.
    edges = width * np.arange(_BINS + 1)
    cumulative = np.concatenate([[0.0], np.cumsum(counts[magnitudes > 0])])
    upper = np.concatenate([[0.0], magnitudes[magnitudes > 0]])
    histogram = np.diff(np.interp(edges, upper, cumulative))
    levels = 128 if values.is_signed else 256
    candidates = range(levels, _BINS + 1, _CANDIDATE_STEP)
    divergences = [_divergence(histogram, size, levels) for size in candidates]
    return width * candidates[int(np.argmin(divergences))]


def _divergence(histogram: Floats, size: int, levels: int) -> float:
    """Return the divergence if the first `size` bins are rounded to so many levels."""
    original = histogram[:size].copy()
    occurs = original > 0
    level = np.arange(size) * levels // size
    total = np.bincount(level, original, levels)
    number = np.bincount(level, occurs, levels)
    rounded = np.where(occurs, (total / np.maximum(number, 1))[level], 0)
    original[-1] += histogram[size:].sum()
    occurs = (original > 0) & (rounded > 0)
    if not occurs.any():
        return float("inf")
    p, q = original / original.sum(), rounded / rounded.sum()
    missing = p[(original > 0) & (rounded <= 0)].sum()
    # What is clipped where nothing is left counts as if it were very improbable.
    return float(np.sum(p[occurs] * np.log(p[occurs] / q[occurs])) + missing * np.log(1e9))


_LIMITS: dict[str, Callable[[Values], float]] = {
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _squared_error,
}

CALIBRATION_METHODS = ("minmax", *_LIMITS)
