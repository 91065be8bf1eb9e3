"""Who decides how photographs are preprocessed: the user, the weights, or else an assumption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from resrt import _core, images
from resrt._support.arguments import whole
from resrt.catalog import pretrained
from resrt.errors import InputError
from resrt.weights.configs import pipeline_of
from resrt.weights.metadata import Metadata, before_crop, crop_fraction, fields

# What the public functions accept: all steps, the name of weights that have the same, or changes.
PreprocessingLike: TypeAlias = _core.Preprocessing | str | Mapping[str, Any]

# The changes, under timm's names.
CHANGES = ("mean", "std", "resize", "crop_pct", "crop_mode", "interpolation", "pipeline")

_GIVEN = "as given"
ASSUMED = "assumed"  # how the source of assumed preprocessing begins


def settle(
    metadata: Metadata,
    given: PreprocessingLike | None,
    entry: pretrained.Pretrained | None,
    shape: tuple[int, int, int],
    *,
    is_entry_of_weights: bool = False,
    source: str | None = None,
) -> Metadata:
    """Return metadata for an input of `shape` (channels, height, width) with preprocessing.

    Args:
        metadata: what the weights say about themselves.
        given: what the user says, in whole or in part.
        entry: the pretrained weights whose preprocessing is assumed if neither says anything.
        shape: the network's input.
        is_entry_of_weights: whether the user named these pretrained weights.
        source: where the network is from, whose usual preprocessing is assumed if there are none.

    Raises InputError or WeightsError for invalid preprocessing.
    """
    metadata = metadata.at(shape[1:])
    if isinstance(given, _core.Preprocessing):
        return replace(metadata, preprocessing=given, preprocessing_source=_GIVEN, crop_pct=None)
    changes = _changes(given)
    like = changes.pop("like", None)
    if like is not None:
        entry = _named(like)
    if like is not None or metadata.preprocessing is None:
        metadata = _assume(metadata, entry, shape, source)
        if like is not None or is_entry_of_weights:
            source = metadata.preprocessing_source.removeprefix(f"{ASSUMED} ")
            metadata = replace(metadata, preprocessing_source=source)
    return _changed(metadata, changes, shape) if changes else metadata


def is_whole(given: PreprocessingLike | None) -> bool:
    """Return whether the user says everything, so that nothing is needed from elsewhere."""
    if isinstance(given, Mapping):
        sides = {"resize", "crop_pct"} & set(given)
        pipeline = {"crop_mode", "pipeline"} & set(given)
        named = {"mean", "std", "interpolation"} <= set(given)
        return "like" in given or bool(sides and pipeline and named)
    return isinstance(given, (_core.Preprocessing, str))


def _assume(
    metadata: Metadata,
    entry: pretrained.Pretrained | None,
    shape: tuple[int, int, int],
    origin: str | None,
) -> Metadata:
    channels, height, width = shape
    if entry is not None:
        of_entry = Metadata.of_pretrained(entry, channels).at((height, width))
        steps, crop_pct = of_entry.preprocessing, of_entry.crop_pct
        source = f"{ASSUMED} as for {entry.name}"
    else:
        # Networks for small images see all of them.
        crop_pct = 1.0 if origin == "paper" else 0.875
        pipeline = "paddleclas" if origin == "PaddleClas" else "torchvision"
        resize = before_crop((height, width), crop_pct, pipeline)
        steps = images.imagenet_preprocessing(channels, resize, pipeline)
        source = f"{ASSUMED} as usual for ImageNet"
    return replace(metadata, preprocessing=steps, preprocessing_source=source, crop_pct=crop_pct)


def _changed(metadata: Metadata, changes: dict[str, Any], shape: tuple[int, int, int]) -> Metadata:
    assert metadata.preprocessing is not None
    given = list(changes)
    steps = fields(metadata.preprocessing)
    if "crop_mode" in changes:
        changes["pipeline"] = pipeline_of(changes.pop("crop_mode"))
    crop_pct, is_resize_given = metadata.crop_pct, {"resize", "crop_pct"} & set(changes)
    if "resize" in changes:
        changes["resize"], crop_pct = _resize(changes["resize"]), None
    elif "crop_pct" in changes:
        crop_pct = crop_fraction(changes.pop("crop_pct"))
    if crop_pct is not None:
        pipeline = changes.get("pipeline", steps["pipeline"])
        steps["resize"] = before_crop(shape[1:], crop_pct, pipeline)
    for name in ("mean", "std"):
        if name in changes:
            changes[name] = _values(name, changes[name], shape[0])
    try:
        changed = _core.Preprocessing(**steps | changes)
    except TypeError:
        raise InputError(
            f"invalid preprocessing: {changes}; interpolation and pipeline are str"
        ) from None
    named = set(changes) | ({"resize"} if is_resize_given else set())
    source = _GIVEN if named >= set(steps) else metadata.preprocessing_source
    return replace(
        metadata,
        preprocessing=changed,
        preprocessing_source=_source(given, source),
        crop_pct=crop_pct,
    )


def _source(given: list[str], before: str) -> str:
    """Return where preprocessing is from of which something was given, and the rest before."""
    if before == _GIVEN:
        return f"{', '.join(given)} {_GIVEN}" if given else _GIVEN
    earlier, found, rest = before.partition(f" {_GIVEN}")
    if not found:
        return f"{', '.join(given)} {_GIVEN}; the rest {before}"
    # Some of it was already given, for example when the weights were converted.
    return f"{', '.join(dict.fromkeys([*given, *earlier.split(', ')]))} {_GIVEN}{rest}"


def _changes(given: PreprocessingLike | None) -> dict[str, Any]:
    if given is None:
        return {}
    if isinstance(given, str):
        return {"like": given}
    if not isinstance(given, Mapping):
        raise InputError(
            "preprocessing must be a resrt.Preprocessing, the name of pretrained weights or a dict "
            f"of changes, not {type(given).__name__}"
        )
    known = ("like", *CHANGES)
    for name in given:
        if name not in known:
            raise InputError(f"unknown preprocessing option {name!r}; expected {', '.join(known)}")
    for one, other in (("resize", "crop_pct"), ("crop_mode", "pipeline")):
        if one in given and other in given:
            raise InputError(f"{one} and {other} exclude each other; give one of them")
    return dict(given)


def _named(like: object) -> pretrained.Pretrained:
    if not isinstance(like, str):
        raise InputError(f"like must be the name of pretrained weights, not {like!r}")
    entry = pretrained.find(like)
    if entry is None:
        raise InputError(
            f"{like} has no pretrained weights whose preprocessing could be used; "
            "`resrt.list_pretrained()` lists those that have"
        )
    return entry


def _resize(value: object) -> int | tuple[int, int]:
    """Return the short side after resizing, or the height and width that images cover."""
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        return whole("resize", value[0]), whole("resize", value[1])
    return whole("resize", value)


def _values(name: str, values: object, channels: int) -> list[float]:
    is_sequence = isinstance(values, Sequence) and not isinstance(values, str)
    try:
        listed = [float(value) for value in (values if is_sequence else [values])]  # type: ignore
    except (TypeError, ValueError):
        raise InputError(f"{name} must be numbers, one for each channel, not {values!r}") from None
    if name == "mean" and not all(0 <= value <= 1 for value in listed):
        raise InputError(
            f"mean is for pixels from 0 to 1, and cannot be {listed}; divide it, and std, by 255 "
            "if they are for pixels from 0 to 255"
        )
    return listed * channels if len(listed) == 1 else listed
