"""Shared fixtures."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

import resrt


@pytest.fixture(scope="session", autouse=True)
def interrupts() -> None:
    """Let SIGINT interrupt the tests and the processes that they start.

    A shell starts jobs in the background with SIGINT ignored, and Python leaves it so.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def default_kernels() -> Iterator[None]:
    """Build without measuring kernels, which takes seconds, except in the tests of that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESRT_TUNE", "0")
        yield


@pytest.fixture(scope="session")
def small_graph() -> resrt.Graph:
    """A ResNeSt that builds quickly: 3x32x32 images to 7 classes."""
    config = resrt.ResNeSt(depths=[1, 1], width=16, stem_channels=16, radix=2)
    return resrt.build_graph(config, classes=7, input_size=32, name="small")


@pytest.fixture(scope="session")
def small_engine(small_graph: resrt.Graph) -> resrt.Engine:
    return resrt.build(small_graph, "random", precision="fp32", max_batch=4)


@pytest.fixture
def images() -> npt.NDArray[np.float32]:
    """Six images for the small network."""
    return np.random.default_rng(1).standard_normal((6, 3, 32, 32)).astype(np.float32)
