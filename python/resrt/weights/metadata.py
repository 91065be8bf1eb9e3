"""What travels with weights besides their arrays: origin, labels, preprocessing, input size.

This module alone reads it from a weights file, writes it to one, and scales it to another input
size. Every other module passes a `Metadata` on.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

from resrt import _core, images, labels
from resrt.catalog.pretrained import Pretrained
from resrt.errors import InputError

_LOG = logging.getLogger("resrt.weights")
_LABELS, _PREPROCESSING, _INPUT_SIZE = "labels", "preprocessing", "input_size"


@dataclass(frozen=True)
class Recommended:
    """The input size at which weights are most accurate, and the short side to resize to there."""

    crop: int
    resize: int


@dataclass(frozen=True)
class Metadata:
    """What travels with weights.

    Attributes:
        origin: where the weights are from: the name of a catalog entry or file, "arrays" or
            "random".
        labels: a name for each class; None if unknown.
        preprocessing: how photographs become inputs of `input_size`; None if unknown.
        preprocessing_source: where the preprocessing is from, for people to read.
        input_size: (height, width) in pixels; None if unknown.
        recommended: the input size at which the weights are most accurate, if it is another.
        crop_pct: timm's ratio of the input's size to that before the crop; None if that size is
            not derived from a ratio.
    """

    origin: str = ""
    labels: list[str] | None = None
    preprocessing: _core.Preprocessing | None = None
    input_size: tuple[int, int] | None = None
    recommended: Recommended | None = None
    preprocessing_source: str = ""
    crop_pct: float | None = None

    @classmethod
    def of_pretrained(cls, entry: Pretrained, channels: int = 3) -> Metadata:
        """Return the metadata of published weights, for a network of that many input channels."""
        recommended = None
        if entry.test_crop is not None and entry.test_resize is not None:
            recommended = Recommended(entry.test_crop, entry.test_resize)
        return cls(
            origin=entry.name,
            preprocessing=_core.Preprocessing(
                resize=entry.resize,
                interpolation=entry.interpolation,
                mean=images.per_channel(entry.mean, channels),
                std=images.per_channel(entry.std, channels),
                pipeline=entry.pipeline,
            ),
            input_size=(entry.crop, entry.crop),
            recommended=recommended,
            preprocessing_source=f"as for {entry.name}",
            crop_pct=entry.crop_pct,
        )

    @classmethod
    def read(cls, texts: Mapping[str, str], *, origin: str = "") -> Metadata:
        """Read the metadata of a weights file, whose values are texts.

        Raises InputError if the labels, preprocessing or input size are not as `write` writes them.
        """
        found = cls(origin=origin)
        if _LABELS in texts:
            found = dataclasses.replace(found, labels=labels.parse(texts[_LABELS]))
        if _INPUT_SIZE in texts:
            found = dataclasses.replace(found, input_size=_input_size(texts[_INPUT_SIZE]))
        if _PREPROCESSING in texts:
            steps, recommended, source, crop_pct = _preprocessing(texts[_PREPROCESSING])
            found = dataclasses.replace(
                found,
                preprocessing=steps,
                recommended=recommended,
                preprocessing_source=source or "the weights file's metadata",
                crop_pct=crop_pct,
            )
        return found

    def write(self) -> dict[str, str]:
        """Return the metadata, without the origin, as texts for a weights file."""
        texts = {}
        if self.labels:
            texts[_LABELS] = json.dumps(self.labels, ensure_ascii=False)
        if self.preprocessing is not None:
            document = fields(self.preprocessing)
            if self.recommended is not None:
                document["recommended"] = dataclasses.asdict(self.recommended)
            if self.crop_pct is not None:
                document["crop_pct"] = self.crop_pct
            if self.preprocessing_source:
                document["source"] = self.preprocessing_source
            texts[_PREPROCESSING] = json.dumps(document)
        if self.input_size is not None:
            texts[_INPUT_SIZE] = json.dumps(self.input_size)
        return texts

    def at(self, input_size: tuple[int, int]) -> Metadata:
        """Return the metadata for another input size.

        The size before the crop is as timm computes it if the ratio is known, or in proportion.
        """
        if self.preprocessing is None or self.input_size is None:
            return dataclasses.replace(self, input_size=input_size)
        crop_pct, resize = self.crop_pct, self.preprocessing.resize
        if self.recommended is not None and input_size == (self.recommended.crop,) * 2:
            crop_pct, resize = None, self.recommended.resize
        elif crop_pct is not None:
            resize = before_crop(input_size, crop_pct, self.preprocessing.pipeline)
        elif isinstance(resize, tuple):
            height, width = (
                round(one * side / own)
                for one, side, own in zip(resize, input_size, self.input_size, strict=True)
            )
            resize = height, width
        else:
            resize = round(min(input_size) * resize / min(self.input_size))
        steps = _core.Preprocessing(**fields(self.preprocessing) | {"resize": resize})
        return dataclasses.replace(
            self,
            preprocessing=steps,
            input_size=input_size,
            recommended=None,
            crop_pct=crop_pct,
        )

    def with_labels(self, names: Sequence[str] | PathLike[str] | None, classes: int) -> Metadata:
        """Return the metadata with other labels, checked against the number of classes.

        Args:
            names: the labels, or the path of a file of them; None keeps those that are here, or
                ImageNet's for 1000 classes.
            classes: the network's number of classes.

        Raises FileError or InputError.
        """
        if names is None:
            chosen = self.labels or (labels.imagenet() if classes == 1000 else [])
        else:
            chosen = labels.read(names) if isinstance(names, (str, PathLike)) else list(names)
        if not all(isinstance(name, str) for name in chosen):
            raise InputError("labels must be str, one for each class")
        _core.check_labels(chosen, classes)
        return dataclasses.replace(self, labels=chosen)


def crop_fraction(value: object) -> float:
    """Return a valid crop_pct. Raises InputError."""
    least = 0.01
    if isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= 1:
        return float(value)
    raise InputError(f"crop_pct must be a number from {least} to 1, not {value!r}")


def before_crop(
    input_size: tuple[int, int], crop_pct: float, pipeline: str
) -> int | tuple[int, int]:
    """Return timm's size before the crop: a short side, or a height and width.

    For an input that is not square, timm's images cover that height and width.
    """
    height, width = (math.floor(side / crop_pct) for side in input_size)
    if pipeline == "paddleclas":
        return min(height, width)
    is_square = height == width and (pipeline != "squash" or input_size[0] == input_size[1])
    return height if is_square else (height, width)


def ours(texts: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata of a file without what another program wrote under the same keys.

    What is not as `Metadata.write` writes it is logged and left out, unless `resrt.convert` wrote
    the file, which is then damaged.
    """
    if {"network", "source_sha256"} <= texts.keys():
        return dict(texts)
    return {key: text for key, text in texts.items() if _is_ours(key, text)}


def _is_ours(key: str, text: str) -> bool:
    """Return whether the metadata is in the form that `Metadata.write` gives it."""
    parse = {_LABELS: labels.parse, _INPUT_SIZE: _input_size, _PREPROCESSING: _preprocessing}
    if key in parse:
        try:
            if key == _LABELS and not text.startswith("["):
                raise InputError("labels must be a JSON list")
            parse[key](text)
        except InputError:
            _LOG.warning("ignored %s in the weights file's metadata: %r", key, text[:100])
            return False
    return True


def fields(steps: _core.Preprocessing) -> dict[str, Any]:
    """Return preprocessing as the keyword arguments that make it, which JSON can hold."""
    return {
        "resize": steps.resize,
        "interpolation": steps.interpolation,
        "mean": steps.mean,
        "std": steps.std,
        "pipeline": steps.pipeline,
    }


def _preprocessing(
    text: str,
) -> tuple[_core.Preprocessing, Recommended | None, str, float | None]:
    try:
        document = json.loads(text)
        recommended, source = document.pop("recommended", None), document.pop("source", "")
        crop_pct = document.pop("crop_pct", None)
        if recommended is not None:
            recommended = Recommended(**recommended)
            _check_size(recommended.crop, recommended.resize)
        steps = _core.Preprocessing(**document)
        _check_size(*(steps.resize if isinstance(steps.resize, tuple) else (steps.resize,)))
        if not isinstance(source, str):
            raise TypeError
        if crop_pct is not None:
            crop_pct = crop_fraction(crop_pct)
    except (AttributeError, InputError, TypeError, ValueError, RecursionError):
        raise InputError(
            f"invalid preprocessing in the weights file's metadata: {text[:100]!r}; convert the "
            "weights again"
        ) from None
    return steps, recommended, source, crop_pct


def _input_size(text: str) -> tuple[int, int]:
    try:
        height, width = json.loads(text)
        _check_size(height, width)
    except (TypeError, ValueError, RecursionError):
        raise InputError(
            f"invalid input size in the weights file's metadata: {text[:100]!r}; convert the "
            "weights again"
        ) from None
    return height, width


def _check_size(*sizes: object) -> None:
    if not all(type(size) is int and 0 < size <= 65536 for size in sizes):
        raise ValueError
