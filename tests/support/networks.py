"""Small networks that have every kind of layer, and their expected logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

import resrt
from resrt import _core
from resrt.catalog.models import Config
from resrt.weights import Weights
from support.reference import infer

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
    resrt.ResNet(
        depths=[1, 2], width=8, stem="small", stem_channels=6, block="basic", downsample="pad"
    ),
    resrt.ResNet(depths=[1, 1], width=8, stem_channels=16, stem="tiered", stem_pool="convolution"),
    resrt.ResNet(depths=[1, 1], width=8, stride_first=True, activation="silu"),
]

# Networks in which not every normalisation and addition follows a convolution.
VARIANTS = [
    resrt.ResNet(
        depths=[1, 1],
        width=8,
        antialias="blur",
        attention="squeeze_excite",
        attention_reduction=3,
        attention_divisor=1,
    ),
    resrt.ResNet(
        depths=[1, 1], width=8, block="basic", antialias="average_pool", attention="efficient"
    ),
    resrt.ResNeSt(depths=[1, 1], width=16, stem="small", stem_channels=8),
    resrt.RegNet(
        depth=5,
        width_initial=8,
        width_slope=8,
        group_width=4,
        squeeze_excite=True,
        stem_stride=1,
        bottleneck_ratio=2.0,
        shortcut="none",
        activation="silu",
        linear_blocks=True,
        final_channels=24,
    ),
    *(
        resrt.RegNet(
            depth=5,
            width_initial=16,
            width_slope=12,
            group_width=8,
            squeeze_excite=True,
            shortcut=shortcut,
            activation="silu",
            pre_activation=True,
        )
        for shortcut in ("convolution", "average_pool")
    ),
]


@dataclass(frozen=True)
class Sample:
    """A network with random weights and images, and the logits of the reference."""

    graph: resrt.Graph
    weights: Weights
    images: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float64]

    def variants(self) -> list[tuple[resrt.Graph, Weights]]:
        """Return the network as it is, and after each pass."""
        return [(self.graph, self.weights), *self.after_passes()]

    def after_passes(self) -> list[tuple[resrt.Graph, Weights]]:
        """Return the network with folded batch normalisations, and then with fused additions."""
        folded, weights = _core.fold_batch_norm(self.graph, self.weights)
        return [(folded, weights), (_core.fuse_add_relu(folded), weights)]

    def assert_close(self, logits: npt.NDArray[np.float32]) -> None:
        """Assert that these are the logits, to the precision of float32."""
        largest = np.abs(self.logits).max()
        np.testing.assert_allclose(logits, self.logits, rtol=0, atol=2e-5 * largest)


def sample(config: Config, size: tuple[int, int]) -> Sample:
    """Return a network of GRID for images with 2 channels and 5 classes."""
    return sample_of(resrt.build_graph(config, classes=5, input_size=size, in_channels=2))


def sample_of(graph: resrt.Graph) -> Sample:
    """Return a network with random weights, and its logits for 3 images."""
    weights = _core.random_weights(graph, 1)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((3, *graph.input_shape)).astype(np.float32)
    return Sample(graph, weights, images, infer(graph, weights, images))
