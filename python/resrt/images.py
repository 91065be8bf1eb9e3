"""Decoding, resizing, cropping and normalising of images."""

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

# A JPEG decoded at reduced size keeps at least this many times the pixels per side that it is
# resized to. On photographs full of detail, that changed grey levels by 2 on average.
_MIN_OVERSAMPLING = 3

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Prediction:
    """A predicted class of an image.

    `index` is the number of the class and `label` its name, or the number as text if the engine
    has no labels. `probability` is the softmax over all classes.
    """

    index: int
    label: str
    probability: float


def imagenet_preprocessing(
    in_channels: int, resize: int, pipeline: str = "torchvision"
) -> _core.Preprocessing:
    """Return ImageNet's normalisation; if images are not RGB, its average over the channels."""
    return _core.Preprocessing(
        resize=resize,
        interpolation="bilinear",
        mean=per_channel(_IMAGENET_MEAN, in_channels),
        std=per_channel(_IMAGENET_STD, in_channels),
        pipeline=pipeline,
    )


def per_channel(rgb: Sequence[float], channels: int) -> list[float]:
    """Return a value for each channel; if images are not RGB, the average of the RGB values."""
    return list(rgb) if channels == len(rgb) else [float(np.mean(rgb))] * channels


def open_image(image: ImageLike, channels: int, least: int | None = None) -> Image.Image:
    """Return an upright Pillow image with 1 (grey) or 3 (RGB) channels.

    With `least`, a JPEG file may be decoded at a half, a quarter or an eighth of its size: the
    smallest whose sides have at least `least` pixels.

    Raises FileError if a path cannot be read, InputError for an invalid image.
    """
    require_photographs(channels)
    opened = _open(image, least)
    try:
        return _upright(opened, "L" if channels == 1 else "RGB")
    except Exception as error:
        # Pillow decodes an image when it is first used, and cannot convert every mode to RGB.
        raise InputError(f"cannot decode or convert the image: {error}") from None


def require_photographs(channels: int) -> None:
    """Raise InputError if images with this number of channels cannot be photographs."""
    if channels not in (1, 3):
        raise InputError(
            f"an engine with {channels} input channels cannot classify photographs, which have 1 "
            "or 3; preprocess the images yourself and call infer"
        )


def _upright(opened: Image.Image, mode: str) -> Image.Image:
    upright: Image.Image = ImageOps.exif_transpose(opened)
    if upright.mode.startswith("I"):
        # Pillow's conversion of 16-bit grey would clip at 255.
        grey = np.asarray(upright).clip(0, 65535) // 257
        upright = Image.fromarray(grey.astype(np.uint8))
    return upright.convert(mode)


def _open(image: ImageLike, least: int | None) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, np.ndarray):
        is_image = image.ndim >= 2 and image.shape[2:] in ((), (1,), (3,)) and image.size > 0
        if image.dtype != np.uint8 or not is_image:
            raise InputError(
                "an image array must be uint8 of shape (H, W), (H, W, 1) or (H, W, 3), not "
                f"{image.dtype} {image.shape}; pass float batches to infer"
            )
        return Image.fromarray(image.squeeze(2) if image.shape[2:] == (1,) else image)
    if not isinstance(image, (str, PathLike)):
        raise InputError(
            f"an image must be a path, a Pillow image or an array, not {type(image).__name__}"
        )
    path = fspath(image)
    if Path(path).exists() and not Path(path).is_file():
        raise FileError(f"cannot read the image '{path}': not a regular file")
    opened: Image.Image
    try:
        with Image.open(path) as opened:
            if least is not None:
                _reduce(opened, least)
            opened.load()
    except UnidentifiedImageError:
        raise InputError(f"'{path}' is not an image in a format that Pillow supports") from None
    except Exception as error:
        if isinstance(error, OSError) and error.strerror is not None:
            raise FileError(f"cannot read the image '{path}': {error.strerror}") from None
        # Pillow raises many kinds of exceptions for damaged files and for "decompression bombs".
        raise InputError(f"cannot decode the image '{path}': {error}") from None
    return opened


def _reduce(opened: Image.Image, least: int) -> None:
    """Decode a JPEG at an eighth, a quarter or a half of its size if `least` pixels remain.

    The sides must be multiples, because rounding them would move the crop.
    """
    width, height = opened.size
    for scale in (8, 4, 2):
        if width % scale == height % scale == 0 and min(opened.size) >= scale * least:
            opened.draft(None, (width // scale, height // scale))
            return


def preprocess(
    image: ImageLike,
    steps: _core.Preprocessing,
    input_shape: tuple[int, int, int],
    *,
    exact: bool = True,
) -> npt.NDArray[np.float32]:
    """Return float32 (channels, height, width), preprocessed as by the source of the weights.

    Args:
        image: a path, a Pillow image, or uint8 (H, W), (H, W, 1) or (H, W, 3) in RGB.
        steps: the `info.preprocessing` of an engine.
        input_shape: (channels, height, width) of the engine's input.
        exact: False allows decoding a large JPEG at a half, a quarter or an eighth of its size if
            that hardly changes the result.

    Raises FileError if a path cannot be read, InputError for an invalid image.
    """
    channels, height, width = input_shape
    # OpenCV's resize picks pixels instead of averaging, so a reduction would always show.
    may_reduce = not exact and steps.pipeline == "torchvision"
    least = max(steps.resize, height, width) * _MIN_OVERSAMPLING if may_reduce else None
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
    """Return float32 (N, channels, height, width); see `preprocess`."""
    prepared = [preprocess(image, steps, input_shape, exact=exact) for image in images]
    return np.stack(prepared) if prepared else np.empty((0, *input_shape), np.float32)


def top_k(logits: npt.NDArray[np.float32], k: int, labels: Sequence[str]) -> list[list[Prediction]]:
    """Return the k most probable classes of each row, the most probable first.

    The probabilities of a row with a logit that is NaN or infinity are NaN.
    """
    with np.errstate(invalid="ignore"):  # infinity minus itself
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True, initial=-np.inf)
    exponentials = np.exp(shifted)
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    # Stable, so that equal logits, and NaNs at the end, are in the order of their classes.
    order = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    return [
        [Prediction(int(i), labels[i] if labels else str(i), float(row[i])) for i in best]
        for row, best in zip(probabilities, order, strict=True)
    ]
