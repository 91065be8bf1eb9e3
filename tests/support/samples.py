"""The sample files in tests/data/weights, and helpers to make malicious ones."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from resrt import weights
from support.paths import TESTS

SAMPLES = TESTS / "data" / "weights"

Arrays = dict[str, np.ndarray]


def numbers() -> Arrays:
    """Return the arrays in the samples, which data/weights/make_samples.py creates."""
    rng = np.random.default_rng(5)
    return {
        "conv1.weight": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "bn1.weight": rng.standard_normal(4).astype(np.float32),
        "bn1.running_var": rng.uniform(1, 2, 4).astype(np.float32),
        "fc.weight": rng.standard_normal((5, 4)).astype(np.float32),
    }


def bfloat16(arrays: Arrays) -> Arrays:
    """Round to bfloat16 as PyTorch and Paddle do: to the nearest value, ties to even."""
    rounded = {}
    for name, array in arrays.items():
        bits = array.view(np.uint32).astype(np.uint64)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        rounded[name] = bits.astype(np.uint32).view(np.float32)
    return rounded


def assert_holds(path: Path, wanted: Arrays) -> weights.Checkpoint:
    """Assert that a file contains these arrays, besides counters for training."""
    checkpoint = weights.read(path)
    arrays = {k: v for k, v in checkpoint.arrays.items() if not k.endswith("tracked")}
    assert arrays.keys() == wanted.keys()
    for name, array in wanted.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
    return checkpoint


@contextmanager
def bounded_memory(limit: int) -> Iterator[None]:
    """Fail if Python and NumPy allocate more memory than the limit at any time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def text(value: str) -> bytes:
    """Return a pickle's opcodes for a text."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
