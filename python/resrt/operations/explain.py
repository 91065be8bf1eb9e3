"""Class activation maps: which parts of a photograph a class was found in.

These networks end in a mean over positions and a linear layer. Both are linear, so the linear layer
can as well be applied at each position before the mean: the values of a class add up to its logit
(https://arxiv.org/abs/1512.04150). Nothing is approximated.
"""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from resrt import _core, images
from resrt._support.arguments import fraction, whole
from resrt._support.files import current_folder, replacing
from resrt.engine.engine import Engine
from resrt.errors import FileError, InputError
from resrt.images import ImageLike, Prediction

# The outputs of an engine that can explain.
OUTPUTS = ("logits", "cam")

_SUFFIX = ".cam.jpg"
_LONGEST_NAME = 255  # of a file, in bytes


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where the network found a class in a photograph.

    Attributes:
        prediction: the class.
        map: float32 (H, W), what each position of the last feature map contributes. The mean plus
            the classifier's bias for the class is its logit.
        photograph: the upright photograph.
        region: the part of it that the network saw, after its resize and crop: (left, top, right,
            bottom) in pixels, which need not be integers. The map covers this part.
    """

    prediction: Prediction
    map: npt.NDArray[np.float32]
    photograph: Image.Image
    region: tuple[float, float, float, float]

    def overlay(self, *, size: int = 1024, opacity: float = 0.5) -> Image.Image:
        """Return the photograph with the map laid over it, in colours from blue (0) to red.

        Red is the largest contribution. Negative ones are blue, as in Grad-CAM. What the network
        did not see has no colour.

        Args:
            size: the longest side of the result; a smaller photograph keeps its size.
            opacity: of the colours, from 0 to 1.

        Raises InputError for invalid arguments.
        """
        opacity = fraction("opacity", opacity)
        shown = _at_most(self.photograph, whole("size", size)).convert("RGB")
        scale = (shown.width / self.photograph.width, shown.height / self.photograph.height) * 2
        region = [edge * factor for edge, factor in zip(self.region, scale, strict=True)]
        # The pixels that lie within the region as a whole.
        left, top = (max(0, math.ceil(edge - 1e-6)) for edge in region[:2])
        right, bottom = (math.floor(edge + 1e-6) for edge in region[2:])
        right, bottom = min(right, shown.width), min(bottom, shown.height)
        if left < right and top < bottom:
            heat = _stretch(self.map, region, (left, top, right, bottom))
            part = np.asarray(shown.crop((left, top, right, bottom)), np.float32)
            blended = part * (1 - opacity) + _colours(heat) * opacity
            shown.paste(Image.fromarray(np.rint(blended).astype(np.uint8)), (left, top))
        return shown


def explain_image(engine: Engine, image: ImageLike, index: int | None = None) -> Explanation:
    """Explain the most probable class, or that of a number; see `Engine.explain`."""
    engine.require_outputs(*OUTPUTS)
    info = engine.info
    if index is not None and whole("index", index, least=0) >= info.classes:
        raise InputError(f"{info.model} has the classes 0 to {info.classes - 1}, not {index}")
    photograph = images.open_image(image, info.input_shape[0])
    prepared = images.preprocess(photograph, info.preprocessing, info.input_shape)
    found = engine.outputs(prepared[None], *OUTPUTS)
    return explained(engine, photograph, found["logits"][0], found["cam"][0], index)


def explained(
    engine: Engine,
    photograph: Image.Image,
    logits: npt.NDArray[np.float32],
    maps: npt.NDArray[np.float32],
    index: int | None = None,
) -> Explanation:
    """Return the explanation from the outputs for a photograph."""
    info = engine.info
    count = 1 if index is None else info.classes
    (ranked,) = images.top_k(logits[None], count, info.labels)
    prediction = next(one for one in ranked if index in (None, one.index))
    region = _core.seen_region(*photograph.size, info.preprocessing, info.input_shape)
    return Explanation(prediction, maps[prediction.index].copy(), photograph, region)


class OverlayFolder:
    """A folder for overlays, which has the tree of the photographs.

    Those of photographs below the current folder have the same path below this one, and others
    their absolute path, each followed by ".cam.jpg". A name that becomes too long is shortened, and
    a checksum of it is added.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self._folder = Path(folder)

    def path(self, photograph: str) -> Path:
        """Return the path of a photograph's overlay."""
        here = current_folder()
        absolute = Path(os.path.normpath(here / photograph))
        base = here if absolute.is_relative_to(here) else Path(absolute.anchor)
        relative = absolute.relative_to(base)
        name = relative.name
        if len(os.fsencode(name)) + len(_SUFFIX) > _LONGEST_NAME:
            checksum = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
            kept = os.fsencode(name)[: _LONGEST_NAME - len(f".{checksum}{_SUFFIX}")]
            name = f"{kept.decode(errors='ignore')}.{checksum}"
        return self._folder / relative.with_name(f"{name}{_SUFFIX}")

    def write(self, photograph: str, explanation: Explanation) -> None:
        """Write the overlay of a photograph. Raises FileError."""
        path = self.path(photograph)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"cannot create '{path.parent}': {error.strerror}") from None
        with replacing(path) as temporary:
            explanation.overlay().save(temporary, "JPEG", quality=90)


def _at_most(photograph: Image.Image, size: int) -> Image.Image:
    factor = size / max(photograph.size)
    if factor >= 1:
        return photograph
    width, height = (max(1, round(side * factor)) for side in photograph.size)
    return photograph.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2)


def _stretch(
    values: npt.NDArray[np.float32], region: list[float], box: tuple[int, int, int, int]
) -> npt.NDArray[np.float32]:
    """Resize a map that covers `region` of a photograph, and return the pixels of `box`.

    Values are divided by the largest. Negative and non-finite ones become 0.
    """
    positive = np.nan_to_num(np.maximum(values, 0), nan=0, posinf=0)
    positive = positive / max(float(positive.max(initial=0)), float(np.finfo(np.float32).tiny))
    height, width = values.shape
    left, top, right, bottom = region
    across, down = width / (right - left), height / (bottom - top)
    source = (
        max(0.0, (box[0] - left) * across),
        max(0.0, (box[1] - top) * down),
        min(float(width), (box[2] - left) * across),
        min(float(height), (box[3] - top) * down),
    )
    size = (box[2] - box[0], box[3] - box[1])
    picture = Image.fromarray(positive.astype(np.float32))
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR, box=source), np.float32)


def _colours(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the colours of values from 0 to 1, (H, W, 3) from 0 to 255: blue, green, red.

    This is the map "jet" of MATLAB and Matplotlib, which overlays of this kind usually have.
    """
    channels = [1.5 - np.abs(4 * values - peak) for peak in (3, 2, 1)]
    return (255 * np.clip(np.stack(channels, axis=-1), 0, 1)).astype(np.float32)
