"""From photographs to batches: decode, resize, crop, normalise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from resrt import _core
from resrt.errors import FileError, InputError

# A path, a Pillow image, or uint8 pixels (H, W), (H, W, 1) or (H, W, 3).
ImageLike: TypeAlias = str | PathLike[str] | Image.Image | npt.NDArray[np.uint8]

# A JPEG that is decoded at reduced size still has this many times the pixels per side that it is
# resized to; Pillow calls what is resized from three times as many indistinguishable.
_LEAST_REDUCTION = 3

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Prediction:
    """One of the classes that an image may be of.

    `index` is the class's number, `label` its name (the number as text, where the engine has no
    labels), `probability` its softmax over all classes.
    """

    index: int
    label: str
    probability: float


def imagenet_preprocessing(
    in_channels: int, resize: int, pipeline: str = "torchvision"
) -> _core.Preprocessing:
    """Return ImageNet's normalisation; for images that are not RGB, its average over RGB."""
    return _core.Preprocessing(
        resize=resize,
        interpolation="bilinear",
        mean=per_channel(_IMAGENET_MEAN, in_channels),
        std=per_channel(_IMAGENET_STD, in_channels),
        pipeline=pipeline,
    )


def per_channel(rgb: Sequence[float], channels: int) -> list[float]:
    """Return a value for each channel: for images that are not RGB, the average over RGB."""
    return list(rgb) if channels == len(rgb) else [float(np.mean(rgb))] * channels


def open_image(image: ImageLike, channels: int, least: int | None = None) -> Image.Image:
    """Return an upright Pillow image of 1 (grey) or 3 (RGB) channels.

    Where `least` is given, a JPEG file may be decoded at a half, a quarter or an eighth of its
    size, whichever is the smallest whose sides are at least `least` pixels.

    Raises FileError where a path cannot be read, InputError for what is no image.
    """
    require_photographs(channels)
    opened = _open(image, least)
    try:
        return _upright(opened, "L" if channels == 1 else "RGB")
    except Exception as error:
        # A Pillow image is decoded when it is first used, and some modes have no way to RGB.
        raise InputError(f"an image cannot be decoded or converted: {error}") from None


def require_photographs(channels: int) -> None:
    """Raise InputError where an engine of that many input channels takes no photographs."""
    if channels not in (1, 3):
        raise InputError(
            f"an engine of {channels} input channels takes no photographs; "
            "prepare float32 batches of your own and call infer"
        )


def _upright(opened: Image.Image, mode: str) -> Image.Image:
    upright: Image.Image = ImageOps.exif_transpose(opened)
    if upright.mode.startswith("I"):
        # 16 bits of grey, which Pillow's own conversion would cut off at 255.
        grey = np.asarray(upright).clip(0, 65535) // 257
        upright = Image.fromarray(grey.astype(np.uint8))
    return upright.convert(mode)


def _open(image: ImageLike, least: int | None) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, np.ndarray):
        is_image = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3))
        is_image = is_image and image.size > 0
        if image.dtype != np.uint8 or not is_image:
            raise InputError(
                "an image as an array is uint8 of shape (H, W), (H, W, 1) or (H, W, 3), not "
                f"{image.dtype} {image.shape}; float batches go to infer"
            )
        return Image.fromarray(image.squeeze(2) if image.shape[2:] == (1,) else image)
    if not isinstance(image, (str, PathLike)):
        raise InputError(
            f"an image is a path, a Pillow image or an array, not {type(image).__name__}"
        )
    path = fspath(image)
    if Path(path).exists() and not Path(path).is_file():
        raise FileError(f"cannot read the image '{path}': it is no regular file")
    opened: Image.Image
    try:
        with Image.open(path) as opened:
            if least is not None:
                opened.draft(None, (least, least))
            opened.load()
    except UnidentifiedImageError:
        raise InputError(f"'{path}' is no image of a format that Pillow knows") from None
    except Exception as error:
        if isinstance(error, OSError) and error.strerror is not None:
            raise FileError(f"cannot read the image '{path}': {error.strerror}") from None
        # Pillow's decoders fail in many ways on a file that is damaged, or too large to be a photo.
        raise InputError(f"'{path}' cannot be decoded: {error}") from None
    return opened


def preprocess(
    image: ImageLike,
    steps: _core.Preprocessing,
    input_shape: tuple[int, int, int],
    *,
    exact: bool = True,
) -> npt.NDArray[np.float32]:
    """Return float32 (channels, height, width): what the weights' source makes of this image.

    Args:
        image: a path, a Pillow image, or uint8 (H, W), (H, W, 1) or (H, W, 3) in RGB.
        steps: an engine's `info.preprocessing`.
        input_shape: (channels, height, width) of the engine's input.
        exact: False allows that a large JPEG is decoded at a half, a quarter or an eighth of its
            size where that hardly shows; see `open_image`.

    Raises FileError or InputError where there is no image that can be preprocessed.
    """
    channels, height, width = input_shape
    # OpenCV's resize picks pixels where Pillow's averages: after it, any reduction would show.
    may_reduce = not exact and steps.pipeline == "torchvision"
    least = max(steps.resize, height, width) * _LEAST_REDUCTION if may_reduce else None
    opened = open_image(image, channels, least)
    pixels = np.asarray(opened).reshape(opened.height, opened.width, channels)
    return _core.preprocess(pixels, steps, input_shape)


def preprocess_batch(
    images: Iterable[ImageLike],
    steps: _core.Preprocessing,
    input_shape: tuple[int, int, int],
    *,
    exact: bool = True,
) -> npt.NDArray[np.float32]:
    """Return float32 (N, channels, height, width)."""
    prepared = [preprocess(image, steps, input_shape, exact=exact) for image in images]
    return np.stack(prepared) if prepared else np.empty((0, *input_shape), np.float32)


def top_k(logits: npt.NDArray[np.float32], k: int, labels: Sequence[str]) -> list[list[Prediction]]:
    """Return each row's k most probable classes, the most probable first."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True, initial=-np.inf)
    exponentials = np.exp(shifted)
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    # Stable, so that equal logits come in the order of their classes.
    order = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    return [
        [Prediction(int(i), labels[i] if labels else str(i), float(row[i])) for i in best]
        for row, best in zip(probabilities, order, strict=True)
    ]
