"""A graph as a PyTorch module, for training, experiments and comparisons. Requires torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from resrt import _core
from resrt.graphs.definitions import assert_never


@dataclass(frozen=True)
class _Step:
    """A layer: its module, the layers that it reads, and those whose last reader it is."""

    name: str
    module: nn.Module
    inputs: tuple[str, ...]
    finished: tuple[str, ...]


class TorchNetwork(nn.Module):
    """Computes float32 (N, C, H, W) -> (N, classes), layer by layer as defined.

    Parameters and buffers have the names of the graph, which are timm's. Batch normalisations also
    have PyTorch's num_batches_tracked. Parameters are initialised for training (He initialisation).
    """

    def __init__(self, graph: _core.Graph) -> None:
        super().__init__()
        layers = graph.layers
        last_readers = {name: layer.name for layer in layers for name in layer.inputs}
        channels = {layer.name: layer.shape[0] for layer in layers}
        self._input = layers[0].name
        self._steps = []
        for layer in layers[1:]:
            module = _module(layer, channels[layer.inputs[0]])
            _attach(self, layer.name, module)
            finished = tuple(n for n in layer.inputs if last_readers[n] == layer.name)
            self._steps.append(_Step(layer.name, module, tuple(layer.inputs), finished))
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, (N, classes)."""
        tensors = {self._input: images}
        result = images
        for step in self._steps:
            result = step.module(*[tensors[name] for name in step.inputs])
            for name in step.finished:
                del tensors[name]
            tensors[step.name] = result
        return result.flatten(1)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Load parameters and buffers by the names of the graph. Raises as load_state_dict does."""
        counters = {k: v for k, v in self.state_dict().items() if k.endswith("num_batches_tracked")}
        self.load_state_dict(counters | dict(weights))

    def weights(self) -> dict[str, Tensor]:
        """Return parameters and buffers by the names of the graph, as `resrt.build` takes them."""
        state = self.state_dict().items()
        return {k: v.detach().contiguous() for k, v in state if not k.endswith("_tracked")}


def _attach(network: nn.Module, name: str, module: nn.Module) -> None:
    """Add a module under its dotted name, which may be the prefix of modules added before."""
    *path, last = name.split(".")
    parent = network
    for part in path:
        if part not in parent._modules:
            parent.add_module(part, nn.Module())
        parent = parent.get_submodule(part)
    for below, other in parent._modules.get(last, nn.Module()).named_children():
        module.add_module(below, other)
    parent.add_module(last, module)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class _Conv2d(nn.Conv2d):
    """A convolution with the layers that the passes fused into it."""

    def __init__(self, conv: _core.Conv2d, channels: int) -> None:
        super().__init__(
            channels,
            conv.out_channels,
            conv.kernel,
            conv.stride,
            conv.padding,
            groups=conv.groups,
            bias=conv.bias,
        )
        self.relu = conv.relu
        self.weight_bits = conv.weight_bits

    def forward(self, x: Tensor, *residual: Tensor) -> Tensor:
        y = self._conv_forward(x, self._rounded_weight(), self.bias)
        for shortcut in residual:
            y = y + shortcut
        return F.relu(y) if self.relu else y

    def _rounded_weight(self) -> Tensor:
        if self.weight_bits == 0:
            return self.weight
        most = 2 ** (self.weight_bits - 1) - 1
        scales = self.weight.detach().abs().amax((1, 2, 3)) / most
        scales = scales.masked_fill(scales == 0, 1)
        zeros = torch.zeros_like(scales, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(self.weight, scales, zeros, 0, -most, most)


class _Quantize(nn.Module):
    """Rounds to the multiples of a scale that an 8-bit integer can hold."""

    def __init__(self, quantize: _core.Quantize) -> None:
        super().__init__()
        self.scale = quantize.scale
        self.bounds = (-128, 127) if quantize.is_signed else (0, 255)

    def forward(self, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x, self.scale, 0, *self.bounds)


class _BlurPool2d(nn.Module):
    """The mean over 3x3 windows with binomial weights (https://arxiv.org/abs/1904.11486)."""

    kernel: Tensor

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        kernel = torch.outer(line, line).repeat(channels, 1, 1, 1)
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
        return F.conv2d(padded, self.kernel, stride=self.stride, groups=len(self.kernel))


class _PadChannels(nn.Module):
    def __init__(self, d: _core.PadChannels) -> None:
        super().__init__()
        self.pads = (0, 0, 0, 0, d.before, d.after)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.pads)


class _Add(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class _SplitAttention(nn.Module):
    """The split-attention block of ResNeSt (https://arxiv.org/abs/2004.08955)."""

    def __init__(self, d: _core.SplitAttention) -> None:
        super().__init__()
        self.radix, self.channels, self.cardinality = d.radix, d.channels, d.cardinality
        out = d.radix * d.channels
        self.fc1 = nn.Conv2d(d.channels, d.hidden, 1, groups=d.cardinality, bias=d.fc1_bias)
        self.bn1 = nn.BatchNorm2d(d.hidden, d.epsilon) if d.batch_norm else nn.Identity()
        self.fc2 = nn.Conv2d(d.hidden, out, 1, groups=d.cardinality)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        splits = x.reshape(batch, self.radix, self.channels, height, width)
        total = x if self.radix == 1 else splits.sum(1)
        z = self.fc2(F.relu(self.bn1(self.fc1(total.mean((2, 3), keepdim=True)))))
        if self.radix == 1:
            return x * z.sigmoid()
        z = z.reshape(batch, self.cardinality, self.radix, -1).transpose(1, 2).softmax(1)
        return (splits * z.reshape(batch, self.radix, self.channels, 1, 1)).sum(1)


class _SqueezeExcite(nn.Module):
    """Squeeze-and-excitation (https://arxiv.org/abs/1709.01507)."""

    def __init__(self, channels: int, d: _core.SqueezeExcite) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, d.hidden, 1)
        self.activation = F.silu if d.silu else F.relu
        self.fc2 = nn.Conv2d(d.hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc2(self.activation(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()


class _EfficientChannelAttention(nn.Module):
    """Efficient channel attention (https://arxiv.org/abs/1910.03151)."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3))[:, None]
        return x * self.conv(means).sigmoid().transpose(1, 2)[..., None]


class _Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1))


def _module(layer: _core.Layer, channels: int) -> nn.Module:
    """Return the module of a layer whose input has this number of channels."""
    definition = layer.definition
    match definition:
        case _core.Conv2d():
            return _Conv2d(definition, channels)
        case _core.BatchNorm2d():
            return nn.BatchNorm2d(channels, definition.epsilon)
        case _core.Relu():
            # No other layer reads its input, so it can overwrite it, as in the original networks.
            return nn.ReLU(inplace=True)
        case _core.Silu():
            return nn.SiLU(inplace=True)
        case _core.MaxPool2d():
            return nn.MaxPool2d(definition.kernel, definition.stride, definition.padding)
        case _core.AvgPool2d() as d:
            return nn.AvgPool2d(d.kernel, d.stride, d.padding, d.ceil_mode, d.count_include_pad)
        case _core.BlurPool2d():
            return _BlurPool2d(channels, definition.stride)
        case _core.PadChannels():
            return _PadChannels(definition)
        case _core.GlobalAvgPool2d():
            return nn.AdaptiveAvgPool2d(1)
        case _core.Add():
            return _Add()
        case _core.SplitAttention():
            return _SplitAttention(definition)
        case _core.SqueezeExcite():
            return _SqueezeExcite(channels, definition)
        case _core.EfficientChannelAttention():
            return _EfficientChannelAttention(definition.kernel)
        case _core.Quantize():
            return _Quantize(definition)
        case _core.Linear():
            return _Linear(channels, definition.out_features)
        case _core.Input():
            raise AssertionError("only the first layer of a graph is an input")
        case _:
            return assert_never(definition)
