"""A graph as a PyTorch module, if PyTorch is installed."""

from __future__ import annotations

import numpy as np
import pytest

import resrt
from support.networks import GRID, VARIANTS, sample

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("config", [*GRID, *VARIANTS], ids=repr)
@pytest.mark.parametrize("size", [(32, 32), (39, 49)], ids=str)
def test_logits_equal_the_reference(config, size) -> None:  # type: ignore[no-untyped-def]
    from resrt.graphs.torch_network import TorchNetwork

    network = sample(config, size)
    for graph, arrays in network.variants():
        module = TorchNetwork(graph).eval()
        module.load({name: torch.from_numpy(array) for name, array in arrays.items()})
        with torch.inference_mode():
            network.assert_close(module(torch.from_numpy(network.images)).numpy())


def test_weights_round_trip(small_graph: resrt.Graph) -> None:
    from resrt.graphs.torch_network import TorchNetwork

    network = TorchNetwork(small_graph).eval()
    arrays = {name: value.numpy() for name, value in network.weights().items()}
    assert arrays.keys() == {parameter.name for parameter in small_graph.parameters}
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert trainable == small_graph.cost.parameters
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(images)).numpy()
    logits = resrt.build(small_graph, arrays, precision="fp32").infer(images)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    with pytest.raises(RuntimeError, match="Missing key"):
        network.load({})


def test_gradients() -> None:
    """Gradients reach every parameter, although ReLUs overwrite their inputs."""
    from resrt.graphs.torch_network import TorchNetwork

    torch.manual_seed(0)
    for config in (GRID[0], GRID[2], GRID[10], GRID[-1], *VARIANTS):
        network = TorchNetwork(resrt.build_graph(config, classes=5, input_size=32))
        network(torch.randn(4, 3, 32, 32)).square().sum().backward()
        assert all(value.grad is not None for value in network.parameters())
        assert all(value.grad.isfinite().all() for value in network.parameters())
