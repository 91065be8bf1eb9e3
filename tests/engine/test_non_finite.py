"""Images with NaN or infinite values, which OpenVINO's ReLU would replace by 0."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

import resrt

Batch = npt.NDArray[np.float32]
PRECISIONS = resrt.backends()[0].precisions
# Every NaN and infinity, and the largest and smallest finite values next to them.
NON_FINITE = np.array(
    [0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF, 0x7F800000, 0xFF800000], np.uint32
).view(np.float32)
FINITE = np.array([0x7F7FFFFF, 0xFF7FFFFF, 1, 0x80000001, 0x80000000], np.uint32).view(np.float32)


@pytest.fixture(scope="module", params=PRECISIONS)
def engine(request: pytest.FixtureRequest, small_graph: resrt.Graph) -> resrt.Engine:
    calibration = None
    if request.param == "int8":
        noise = np.random.default_rng(1).standard_normal((4, 3, 32, 32), np.float32)
        calibration = resrt.calibrate(small_graph, "random", noise)
    return resrt.build(
        small_graph, "random", precision=request.param, max_batch=4, calibration=calibration
    )


@pytest.mark.parametrize("value", NON_FINITE)
def test_their_logits_are_nan_and_those_of_other_images_unaffected(
    engine: resrt.Engine, images: Batch, value: np.float32
) -> None:
    expected = engine.infer(images)
    for affected in range(len(images)):
        batch = images.copy()
        batch[affected, affected % 3, 31 - affected, 5 * affected] = value
        logits = engine.infer(batch)
        assert np.isnan(logits[affected]).all()
        others = np.arange(len(images)) != affected
        np.testing.assert_array_equal(logits[others], expected[others])


def test_any_value_of_an_image_is_checked(engine: resrt.Engine, images: Batch) -> None:
    """An image's first and last values, and those that a vectorised loop may leave over."""
    size = images[0].size
    for place in [*range(20), *range(size // 2, size // 2 + 20), *range(size - 20, size)]:
        batch = images[:1].copy()
        batch.reshape(-1)[place] = np.nan
        assert np.isnan(engine.infer(batch)).all(), place


def test_finite_values_are_not_mistaken(small_graph: resrt.Graph, images: Batch) -> None:
    engine = resrt.build(small_graph, "random", precision="fp32", max_batch=4)
    for value in FINITE[2:]:
        batch = images.copy()
        batch[0, 0, 0, 0] = value
        assert np.isfinite(engine.infer(batch)).all()
    # These overflow in the network, but do not affect other images.
    batch = images.copy()
    batch[0] = FINITE[0]
    batch[3] = FINITE[1]
    np.testing.assert_array_equal(
        engine.infer(batch)[[1, 2, 4, 5]], engine.infer(images)[[1, 2, 4, 5]]
    )


def test_a_whole_batch_of_them(engine: resrt.Engine, images: Batch) -> None:
    assert np.isnan(engine.infer(np.full_like(images, np.inf))).all()
