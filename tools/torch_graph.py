"""A resrt graph as a PyTorch module: for training, and as a second opinion on what layers mean.

The parameters have the graph's names, so `save` writes a file that `resrt.build` loads.
Needs torch and safetensors.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import save_file
from torch import Tensor, nn

import resrt


class TorchGraph(nn.Module):
    """Computes (N, C, H, W) -> (N, classes) layer by layer, as the graph's definitions say."""

    def __init__(self, graph: resrt.Graph) -> None:
        super().__init__()
        self.graph = graph
        # A module's own names may hold no dots.
        self.values = nn.ParameterDict()
        for parameter in graph.parameters:
            value = _initial(parameter)
            self.values[parameter.name.replace(".", "/")] = nn.Parameter(
                value, requires_grad=parameter.trainable
            )

    def parameter(self, layer: resrt.Layer, name: str) -> Tensor | None:
        """The layer's parameter of that name, or None where the layer has none such."""
        key = f"{layer.name}.{name}".replace(".", "/")
        return self.values[key] if key in self.values else None

    def forward(self, images: Tensor) -> Tensor:
        tensors: dict[str, Tensor] = {}
        for layer in self.graph.layers:
            inputs = [tensors[name] for name in layer.inputs] or [images]
            tensors[layer.name] = getattr(self, f"_{layer.kind}")(layer, *inputs)
        return tensors[self.graph.layers[-1].name]

    def save(self, path: Path, metadata: dict[str, str]) -> None:
        """Write the parameters as safetensors."""
        state = {
            name.replace("/", "."): value.detach().contiguous()
            for name, value in self.values.items()
        }
        save_file(state, path, metadata)

    # One method per layer definition.

    def _Input(self, layer: resrt.Layer, x: Tensor) -> Tensor:  # noqa: N802
        return x

    def _Conv2d(self, layer: resrt.Layer, x: Tensor, *residual: Tensor) -> Tensor:  # noqa: N802
        d = layer.definition
        y = F.conv2d(
            x,
            self.parameter(layer, "weight"),
            self.parameter(layer, "bias"),
            d.stride,
            d.padding,
            groups=d.groups,
        )
        y = y + residual[0] if d.residual else y
        return F.relu(y) if d.relu else y

    def _BatchNorm2d(self, layer: resrt.Layer, x: Tensor, prefix: str = "") -> Tensor:  # noqa: N802
        mean, var, weight, bias = (
            self.parameter(layer, prefix + name)
            for name in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, weight, bias, self.training)

    def _Relu(self, layer: resrt.Layer, x: Tensor) -> Tensor:  # noqa: N802
        return F.relu(x)

    def _MaxPool2d(self, layer: resrt.Layer, x: Tensor) -> Tensor:  # noqa: N802
        d = layer.definition
        return F.max_pool2d(x, d.kernel, d.stride, d.padding)

    def _AvgPool2d(self, layer: resrt.Layer, x: Tensor) -> Tensor:  # noqa: N802
        d = layer.definition
        return F.avg_pool2d(x, d.kernel, d.stride, d.padding, d.ceil_mode, d.count_include_pad)

    def _GlobalAvgPool2d(self, layer: resrt.Layer, x: Tensor) -> Tensor:  # noqa: N802
        return x.mean((2, 3))

    def _Add(self, layer: resrt.Layer, x: Tensor, y: Tensor) -> Tensor:  # noqa: N802
        return x + y

    def _fc(self, layer: resrt.Layer, name: str, x: Tensor, groups: int = 1) -> Tensor:
        weight = self.parameter(layer, f"{name}.weight")
        return F.conv2d(x, weight, self.parameter(layer, f"{name}.bias"), groups=groups)

    def _SplitAttention(self, layer: resrt.Layer, x: Tensor) -> Tensor:  # noqa: N802
        d = layer.definition
        batch, _, height, width = x.shape
        splits = x.reshape(batch, d.radix, d.channels, height, width)
        z = self._fc(layer, "fc1", splits.sum(1).mean((2, 3), keepdim=True), d.cardinality)
        z = F.relu(self._BatchNorm2d(layer, z, "bn1.") if d.batch_norm else z)
        z = self._fc(layer, "fc2", z, d.cardinality)
        if d.radix == 1:
            return x * z.sigmoid()
        z = z.reshape(batch, d.cardinality, d.radix, -1).transpose(1, 2).softmax(1)
        return (splits * z.reshape(batch, d.radix, d.channels, 1, 1)).sum(1)

    def _SqueezeExcite(self, layer: resrt.Layer, x: Tensor) -> Tensor:  # noqa: N802
        z = F.relu(self._fc(layer, "fc1", x.mean((2, 3), keepdim=True)))
        return x * self._fc(layer, "fc2", z).sigmoid()

    def _Linear(self, layer: resrt.Layer, x: Tensor) -> Tensor:  # noqa: N802
        return F.linear(x, self.parameter(layer, "weight"), self.parameter(layer, "bias"))


def _initial(parameter: resrt.Parameter) -> Tensor:
    value = torch.zeros(parameter.shape)
    if len(parameter.shape) > 1:
        nn.init.kaiming_normal_(value, mode="fan_out", nonlinearity="relu")
    elif parameter.name.endswith((".weight", "running_var")):
        value.fill_(1)
    return value
