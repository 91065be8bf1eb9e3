"""Images with NaN or infinite values, which OpenVINO's ReLU would replace by 0."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

import resrt
from resrt import _core

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


def test_what_is_infinite_in_the_precision_of_the_engine(
    small_graph: resrt.Graph, images: Batch
) -> None:
    """The limits are the magnitudes that round to infinity."""
    limits = {
        "fp16": np.float32(65520),
        "bf16": np.array([0x7F7F8000], np.uint32).view(np.float32)[0],
        "fp32": np.float32(np.inf),
    }
    for precision in limits.keys() & set(PRECISIONS):
        engine = resrt.build(small_graph, "random", precision=precision, max_batch=4)
        limit = limits[precision]
        for sign in (-1, 1):
            batch = images.copy()
            batch[1, 0, 3, 3] = sign * limit
            batch[2, 0, 3, 3] = sign * np.nextafter(limit, np.float32(0))
            logits = engine.infer(batch)
            assert np.isnan(logits[1]).all()
            assert np.isfinite(logits[[0, 2, 3]]).all()


@pytest.mark.skipif("fp16" not in PRECISIONS, reason="this processor has no fp16")
def test_weights_that_are_infinite_in_fp16(small_graph: resrt.Graph) -> None:
    weights = _core.random_weights(small_graph, 0)
    name = next(name for name in weights if name.endswith("bn1.running_var"))
    weights[name] = np.full_like(weights[name], 1e-12)
    gamma = name.replace("running_var", "weight")
    weights[gamma] = np.full_like(weights[gamma], 3e5)
    message = r"infinite in fp16: .*; choose bf16 or fp32"
    with pytest.raises(resrt.WeightsError, match=message):
        resrt.build(small_graph, weights, precision="fp16")
    resrt.build(small_graph, weights, precision="fp32")
    weights[gamma] = np.full_like(weights[gamma], 3e38)
    with pytest.raises(resrt.WeightsError, match="infinite in fp32: .*; check that they were"):
        resrt.build(small_graph, weights, precision="fp32")
