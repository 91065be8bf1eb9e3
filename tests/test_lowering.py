"""The passes and the lowering to OpenVINO, compared with the reference of the definitions."""

from __future__ import annotations

import numpy as np
import pytest

import resrt
from resrt import _core
from support.networks import GRID, VARIANTS, sample
from support.reference import infer


@pytest.mark.parametrize("config", GRID, ids=repr)
@pytest.mark.parametrize("size", [(32, 32), (37, 50), (9, 7)], ids=str)
def test_logits_equal_the_reference(config, size) -> None:  # type: ignore[no-untyped-def]
    network = sample(config, size)
    assert network.logits.std() > 1e-3

    for (graph, weights), removed in zip(
        network.after_passes(), [("BatchNorm2d",), ("BatchNorm2d", "Add", "Relu")], strict=True
    ):
        assert not any(layer.kind in removed for layer in graph.layers)
        logits = infer(graph, weights, network.images)
        np.testing.assert_allclose(logits, network.logits, rtol=1e-5, atol=1e-6)

    engine = resrt.build(network.graph, network.weights, precision="fp32", max_batch=3)
    network.assert_close(engine.infer(network.images))


@pytest.mark.parametrize("config", VARIANTS, ids=repr)
@pytest.mark.parametrize("size", [(32, 32), (39, 49)], ids=str)
def test_logits_of_variants_equal_the_reference(config, size) -> None:  # type: ignore[no-untyped-def]
    network = sample(config, size)
    assert network.logits.std() > 1e-3
    for graph, weights in network.after_passes():
        logits = infer(graph, weights, network.images)
        np.testing.assert_allclose(logits, network.logits, rtol=1e-5, atol=1e-6)
    definitions = {layer.name: layer.definition for layer in graph.layers}
    for layer in graph.layers:
        if layer.kind in ("BatchNorm2d", "Add", "Relu"):
            # Nothing that could be folded or fused is left. A normalisation after a sum, as before
            # an activation of RegNetV, reads the convolution into which the sum was fused.
            before = definitions[layer.inputs[0]]
            assert not isinstance(before, _core.Conv2d) or (
                layer.kind == "BatchNorm2d" and before.residual
            )

    engine = resrt.build(network.graph, network.weights, precision="fp32", max_batch=3)
    network.assert_close(engine.infer(network.images))


@pytest.mark.parametrize("radix", [1, 2, 3])
def test_epsilon_of_split_attention(radix: int) -> None:
    """The value differs from that of every network of the catalog."""
    block = _core.SplitAttention(6, radix=radix, cardinality=2, hidden=4, epsilon=0.5)
    assert repr(block) == f"SplitAttention(6, radix={radix}, cardinality=2, hidden=4, epsilon=0.5)"
    graph = resrt.Graph(
        "block",
        [
            ("input", _core.Input(6 * radix, 5, 4), []),
            ("attention", block, ["input"]),
            ("pool", _core.GlobalAvgPool2d(), ["attention"]),
            ("fc", _core.Linear(3), ["pool"]),
        ],
    )
    weights = _core.random_weights(graph, 2)
    x = np.random.default_rng(0).standard_normal((2, 6 * radix, 5, 4)).astype(np.float32)
    expected = infer(graph, weights, x)
    np.testing.assert_allclose(
        infer(*_core.fold_batch_norm(graph, weights), x), expected, rtol=1e-5, atol=1e-6
    )
    logits = resrt.build(graph, weights, precision="fp32").infer(x)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


def test_passes_keep_what_they_cannot_fold() -> None:
    """After fusing, no batch normalisation follows a convolution directly."""
    graph = resrt.build_graph(GRID[0], classes=5, input_size=16)
    weights = _core.random_weights(graph, 1)
    x = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
    expected = infer(graph, weights, x)
    other_order, other_weights = _core.fold_batch_norm(_core.fuse_add_relu(graph), weights)
    np.testing.assert_allclose(infer(other_order, other_weights, x), expected, rtol=1e-5, atol=1e-6)
    twice, twice_weights = _core.fold_batch_norm(other_order, other_weights)
    np.testing.assert_allclose(infer(twice, twice_weights, x), expected, rtol=1e-5, atol=1e-6)
