"""The passes and the lowering, against an independent reading of the layer definitions."""

from __future__ import annotations

import numpy as np
import pytest

import resrt
from reference import infer
from resrt import _core

GRID = [
    resrt.ResNet(depths=[1, 1], width=8, block="basic"),
    resrt.ResNet(depths=[2, 1], width=8, block="basic", stem="deep", project_first=True),
    resrt.ResNet(depths=[1, 1, 1], width=8, downsample="average_pool", stem="deep"),
    resrt.ResNet(depths=[1, 2], width=16, cardinality=4, base_width=16),
    *(
        resrt.ResNeSt(
            depths=[2, 1],
            width=12 * radix,
            stem_channels=8,
            radix=radix,
            cardinality=cardinality,
            pool_first=pool_first,
        )
        for radix in (1, 2, 3, 4)
        for cardinality in (1, 2, 4)
        for pool_first in (False, True)
    ),
    resrt.ResNeSt(
        depths=[1, 1],
        width=16,
        attention_bias=False,
        count_include_pad=False,
        hidden_divisor=1,
    ),
    resrt.RegNet(depth=5, width_initial=16, width_slope=12, group_width=8),
    resrt.RegNet(depth=5, width_initial=16, width_slope=12, group_width=8, squeeze_excite=True),
]


@pytest.mark.parametrize("config", GRID, ids=repr)
@pytest.mark.parametrize("size", [(32, 32), (37, 50), (9, 7)], ids=str)
def test_logits_are_what_the_definitions_say(config, size) -> None:  # type: ignore[no-untyped-def]
    graph = resrt.build_graph(config, classes=5, input_size=size, in_channels=2)
    weights = _core.random_weights(graph, 1)
    x = np.random.default_rng(0).standard_normal((3, *graph.input_shape)).astype(np.float32)
    expected = infer(graph, weights, x)
    assert expected.std() > 1e-3

    folded, folded_weights = _core.fold_batch_norm(graph, weights)
    assert not any(layer.kind == "BatchNorm2d" for layer in folded.layers)
    np.testing.assert_allclose(infer(folded, folded_weights, x), expected, rtol=1e-5, atol=1e-6)

    fused = _core.fuse_add_relu(folded)
    assert not any(layer.kind in ("Add", "Relu") for layer in fused.layers)
    np.testing.assert_allclose(infer(fused, folded_weights, x), expected, rtol=1e-5, atol=1e-6)

    logits = resrt.build(graph, weights, precision="fp32", max_batch=3).infer(x)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_passes_keep_what_they_cannot_fold() -> None:
    """Fusing first leaves convolutions whose ReLU comes before nothing that could be folded."""
    graph = resrt.build_graph(GRID[0], classes=5, input_size=16)
    weights = _core.random_weights(graph, 1)
    x = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
    expected = infer(graph, weights, x)
    other_order, other_weights = _core.fold_batch_norm(_core.fuse_add_relu(graph), weights)
    np.testing.assert_allclose(infer(other_order, other_weights, x), expected, rtol=1e-5, atol=1e-6)
    twice, twice_weights = _core.fold_batch_norm(other_order, other_weights)
    np.testing.assert_allclose(infer(twice, twice_weights, x), expected, rtol=1e-5, atol=1e-6)
