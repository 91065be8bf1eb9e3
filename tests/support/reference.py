"""A reference of the layer definitions in NumPy: slow, in float64, and independent of the core."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

import resrt

Float = npt.NDArray[np.float64]
Get = Callable[[str], Float]


def infer(graph: resrt.Graph, weights: Mapping[str, npt.NDArray[np.float32]], x: Float) -> Float:
    """Return the logits of a batch."""
    values: dict[str, Float] = {}
    for layer in graph.layers:
        inputs = [values[name] for name in layer.inputs] or [x.astype(np.float64)]

        def get(name: str, layer: resrt.Layer = layer) -> Float:
            return weights[f"{layer.name}.{name}"].astype(np.float64)

        values[layer.name] = _LAYERS[layer.kind](layer.definition, get, *inputs)
        assert values[layer.name].shape[1:] == layer.shape
    return values[graph.layers[-1].name][:, :, 0, 0]


def windows(x: Float, kernel: int, stride: int) -> Float:
    """Return the windows of (N, C, H, W): (N, C, rows, columns, kernel, kernel)."""
    view = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(2, 3))
    return view[:, :, ::stride, ::stride]


def pad(x: Float, before: int, after: tuple[int, int], value: float) -> Float:
    sides = ((0, 0), (0, 0), (before, after[0]), (before, after[1]))
    return np.pad(x, sides, constant_values=value)


def convolve(x: Float, weight: Float, bias: Float | None, stride=1, padding=0, groups=1) -> Float:  # type: ignore[no-untyped-def]
    view = windows(pad(x, padding, (padding, padding), 0.0), weight.shape[2], stride)
    n, _, rows, columns, kernel, _ = view.shape
    view = view.reshape(n, groups, -1, rows, columns, kernel, kernel)
    split = weight.reshape(groups, -1, *weight.shape[1:])
    y = np.einsum("ngirckl,goikl->ngorc", view, split, optimize=True)
    y = y.reshape(n, -1, rows, columns)
    return y if bias is None else y + bias[:, None, None]


def _conv2d(d, get: Get, x: Float, *residual: Float) -> Float:  # type: ignore[no-untyped-def]
    bias = get("bias") if d.bias else None
    y = convolve(x, get("weight"), bias, d.stride, d.padding, d.groups)
    y = y + residual[0] if d.residual else y
    return np.maximum(y, 0) if d.relu else y


def _batch_norm(d, get: Get, x: Float, prefix: str = "") -> Float:  # type: ignore[no-untyped-def]
    scale = get(prefix + "weight") / np.sqrt(get(prefix + "running_var") + d.epsilon)
    shift = get(prefix + "bias") - get(prefix + "running_mean") * scale
    return x * scale[:, None, None] + shift[:, None, None]


def _max_pool(d, get: Get, x: Float) -> Float:  # type: ignore[no-untyped-def]
    padded = pad(x, d.padding, (d.padding, d.padding), -np.inf)
    return windows(padded, d.kernel, d.stride).max((4, 5))


def _avg_pool(d, get: Get, x: Float) -> Float:  # type: ignore[no-untyped-def]
    def after(size: int) -> int:
        if not d.ceil_mode:
            return d.padding
        missing = -(size + 2 * d.padding - d.kernel) % d.stride
        return d.padding + missing

    sides = (after(x.shape[2]), after(x.shape[3]))
    total = windows(pad(x, d.padding, sides, 0.0), d.kernel, d.stride).sum((4, 5))
    if d.count_include_pad:
        return total / d.kernel**2
    count = pad(np.ones_like(x), d.padding, sides, 0.0)
    return total / windows(count, d.kernel, d.stride).sum((4, 5))


def _mean(x: Float) -> Float:
    return x.mean((2, 3), keepdims=True)


def _sigmoid(x: Float) -> Float:
    return 1 / (1 + np.exp(-x))


def _split_attention(d, get: Get, x: Float) -> Float:  # type: ignore[no-untyped-def]
    n, _, height, width = x.shape
    splits = x.reshape(n, d.radix, d.channels, height, width)
    bias = get("fc1.bias") if d.fc1_bias else None
    z = convolve(_mean(splits.sum(1)), get("fc1.weight"), bias, groups=d.cardinality)
    z = np.maximum(_batch_norm(d, get, z, "bn1.") if d.batch_norm else z, 0)
    z = convolve(z, get("fc2.weight"), get("fc2.bias"), groups=d.cardinality)
    if d.radix == 1:
        return x * _sigmoid(z)
    z = z.reshape(n, d.cardinality, d.radix, -1)
    attention = np.exp(z) / np.exp(z).sum(2, keepdims=True)
    attention = attention.transpose(0, 2, 1, 3).reshape(n, d.radix, d.channels, 1, 1)
    return (splits * attention).sum(1)


def _squeeze_excite(d, get: Get, x: Float) -> Float:  # type: ignore[no-untyped-def]
    z = convolve(_mean(x), get("fc1.weight"), get("fc1.bias"))
    z = z * _sigmoid(z) if d.silu else np.maximum(z, 0)
    return x * _sigmoid(convolve(z, get("fc2.weight"), get("fc2.bias")))


def _blur_pool(d, get: Get, x: Float) -> Float:  # type: ignore[no-untyped-def]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    view = windows(padded, 3, d.stride)
    return np.einsum("ncijkl,k,l->ncij", view, [0.25, 0.5, 0.25], [0.25, 0.5, 0.25])


def _pad_channels(d, get: Get, x: Float) -> Float:  # type: ignore[no-untyped-def]
    return np.pad(x, ((0, 0), (d.before, d.after), (0, 0), (0, 0)))


def _efficient_attention(d, get: Get, x: Float) -> Float:  # type: ignore[no-untyped-def]
    means = np.pad(x.mean((2, 3)), ((0, 0), (d.kernel // 2, d.kernel // 2)))
    view = np.lib.stride_tricks.sliding_window_view(means, d.kernel, axis=1)
    return x * _sigmoid(view @ get("conv.weight")[0, 0])[:, :, None, None]


def _quantize(d, get: Get, x: Float) -> Float:  # type: ignore[no-untyped-def]
    least, most = (-128, 127) if d.is_signed else (0, 255)
    return np.clip(np.round(x / d.scale), least, most) * d.scale


def _linear(d, get: Get, x: Float) -> Float:  # type: ignore[no-untyped-def]
    return (x[:, :, 0, 0] @ get("weight").T + get("bias"))[:, :, None, None]


_LAYERS: dict[str, Callable[..., Float]] = {
    "Input": lambda d, get, x: x,
    "Conv2d": _conv2d,
    "BatchNorm2d": _batch_norm,
    "Relu": lambda d, get, x: np.maximum(x, 0),
    "Silu": lambda d, get, x: x * _sigmoid(x),
    "MaxPool2d": _max_pool,
    "AvgPool2d": _avg_pool,
    "BlurPool2d": _blur_pool,
    "PadChannels": _pad_channels,
    "GlobalAvgPool2d": lambda d, get, x: _mean(x),
    "Add": lambda d, get, x, y: x + y,
    "SplitAttention": _split_attention,
    "SqueezeExcite": _squeeze_excite,
    "EfficientChannelAttention": _efficient_attention,
    "Quantize": _quantize,
    "Linear": _linear,
}
