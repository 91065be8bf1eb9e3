"""Preprocessing and labels from the files that timm and Transformers write beside weights."""

from __future__ import annotations

import json
import logging
import math
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

from resrt import _core
from resrt._support.arguments import whole
from resrt._support.files import file_kind, read_text
from resrt.errors import InputError, WeightsError
from resrt.weights.metadata import Metadata, Recommended, before_crop, crop_fraction

_logger = logging.getLogger("resrt")

_Parse: TypeAlias = Callable[[Mapping[str, Any]], Metadata]

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_RESAMPLE = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def beside(
    folder: str | PathLike[str], network: str | None, *, is_preprocessing_needed: bool = True
) -> Metadata:
    """Return the preprocessing, input size and labels in the files in a folder of weights.

    None is a network of the user's own, which no name describes. A configuration of another network
    than the one that is named is ignored, and so is a file that is not JSON; both are
    logged. Raises InputError for preprocessing that is needed but that resrt does not support.
    """
    found, labels = Metadata(), None
    for name, parse in _CONFIGS.items():
        document = _read(Path(folder) / name)
        if not document or not (
            name == PROCESSOR or _is_of(document, network, Path(folder) / name)
        ):
            continue
        if network is not None:
            _check_function(document, Path(folder) / name)
        labels = labels or labels_of(document)
        try:
            found = _checked(parse, document, Path(folder) / name) or found
        except InputError:
            if is_preprocessing_needed:
                raise
    return replace(found, labels=labels)


def completed(metadata: Metadata, found: Metadata) -> Metadata:
    """Return metadata with the preprocessing and input size of a config where they are unknown."""
    if metadata.preprocessing is not None:
        return metadata
    return replace(
        metadata,
        preprocessing=found.preprocessing,
        preprocessing_source=found.preprocessing_source,
        input_size=metadata.input_size or found.input_size,
        recommended=found.recommended,
        crop_pct=found.crop_pct,
    )


def with_labels(metadata: Metadata, found: Metadata, classes: int) -> Metadata:
    """Return metadata with the labels of a config if it has none; a wrong number is logged."""
    if metadata.labels or not found.labels:
        return metadata
    if len(found.labels) != classes:
        _logger.warning(
            "ignored the %d labels beside the weights, which have %d classes",
            len(found.labels),
            classes,
        )
        return metadata
    return replace(metadata, labels=found.labels)


def of_timm(config: Mapping[str, Any]) -> Metadata:
    """Return the preprocessing and input size of timm's `pretrained_cfg`, or of its config.json.

    What it leaves open is timm's default. Raises InputError, KeyError, TypeError or ValueError for
    one that is invalid or not supported.
    """
    config = config.get("pretrained_cfg", config)
    if not {"mean", "std", "crop_pct", "interpolation"} & set(config):
        return Metadata()
    channels, height, width = config.get("input_size") or (3, 224, 224)
    crop_pct = crop_fraction(config.get("crop_pct") or 0.875)
    pipeline = pipeline_of(config.get("crop_mode") or "center")
    steps = _core.Preprocessing(
        resize=before_crop((height, width), crop_pct, pipeline),
        interpolation=config.get("interpolation") or "bicubic",
        mean=_channels(config.get("mean") or _IMAGENET_MEAN, channels),
        std=_channels(config.get("std") or _IMAGENET_STD, channels),
        pipeline=pipeline,
    )
    recommended = None
    if (test := config.get("test_input_size")) and (test_pct := config.get("test_crop_pct")):
        recommended = Recommended(min(test[1:]), math.floor(min(test[1:]) / test_pct))
    return Metadata(
        preprocessing=steps,
        input_size=(int(height), int(width)),
        recommended=recommended,
        crop_pct=crop_pct,
    )


def of_transformers(processor: Mapping[str, Any]) -> Metadata:
    """Return what an image processor of Transformers does: preprocessing and input size.

    Raises InputError, KeyError, TypeError or ValueError for one that is invalid or not supported.
    """
    if "size" not in processor:
        return Metadata()
    if not processor.get("do_resize", True) or not processor.get("do_rescale", True):
        raise InputError("do_resize and do_rescale must be true")
    if not math.isclose(processor.get("rescale_factor", 1 / 255), 1 / 255, rel_tol=1e-3):
        raise InputError(f"rescale_factor must be 1/255, not {processor['rescale_factor']}")
    kind = processor.get("image_processor_type") or processor.get("feature_extractor_type") or ""
    is_convnext = kind.startswith("ConvNext") or "crop_pct" in processor
    resize, input_size, pipeline = _sizes(processor, is_convnext=is_convnext)
    is_normalised = processor.get("do_normalize", True)
    resample = processor.get("resample", 3 if is_convnext else 2)
    if resample not in _RESAMPLE:
        raise InputError(f"resample must be one of {list(_RESAMPLE)}, not {resample!r}")
    steps = _core.Preprocessing(
        resize=resize,
        interpolation=_RESAMPLE[resample],
        mean=processor.get("image_mean", _IMAGENET_MEAN) if is_normalised else [0.0] * 3,
        std=processor.get("image_std", _IMAGENET_STD) if is_normalised else [1.0] * 3,
        pipeline=pipeline,
    )
    return Metadata(preprocessing=steps, input_size=input_size)


def _sizes(
    processor: Mapping[str, Any], *, is_convnext: bool
) -> tuple[int | tuple[int, int], tuple[int, int], str]:
    """Return the short side or the size to resize to, the input size, and the pipeline."""
    size, crop = processor["size"], processor.get("crop_size", 224)
    is_cropped = processor.get("do_center_crop", False)
    if isinstance(size, int) and not is_convnext and not is_cropped:
        size = {"height": size, "width": size}
    if isinstance(crop, Mapping):
        input_size = _side(crop, "height"), _side(crop, "width")
    else:
        input_size = (whole("crop_size", crop),) * 2
    short = size.get("shortest_edge") if isinstance(size, Mapping) else size
    if short is not None:
        short = whole("the shortest edge", short)
    if is_convnext and short is not None:
        if short >= 384:
            return short, (short, short), "squash"
        crop_pct = crop_fraction(processor.get("crop_pct") or 0.875)
        return int(short / crop_pct), (short, short), "torchvision"
    if short is not None:
        if not is_cropped:
            raise InputError("it crops nothing, so that images have no common size")
        return short, input_size, "torchvision"
    resized = _side(size, "height"), _side(size, "width")
    if not is_cropped:
        input_size = resized
    is_square = resized[0] == resized[1] and input_size[0] == input_size[1]
    return resized[0] if is_square else resized, input_size, "squash"


def _side(size: Mapping[str, Any], name: str) -> int:
    return whole(name, size[name])


def labels_of(config: Mapping[str, Any]) -> list[str] | None:
    """Return the labels in a config.json of timm or Transformers, if it has any."""
    names = config.get("label_names")
    if names is None and isinstance(own := config.get("pretrained_cfg"), Mapping):
        names = own.get("label_names")
    if isinstance(names, Sequence) and names and all(isinstance(name, str) for name in names):
        return list(names)
    numbered = config.get("id2label")
    if not isinstance(numbered, Mapping):
        return None
    ordered = [numbered.get(str(i)) for i in range(len(numbered))]
    # Transformers makes up names such as LABEL_0 if it was given none.
    if all(name == f"LABEL_{i}" for i, name in enumerate(ordered)):
        return None
    return [str(name) for name in ordered] if None not in ordered else None


def pipeline_of(crop_mode: str) -> str:
    """Return the pipeline for a crop mode of timm. Raises InputError for an unsupported one."""
    pipelines = {"center": "torchvision", "squash": "squash"}
    if crop_mode not in pipelines:
        raise InputError(f"crop_mode must be one of {', '.join(pipelines)}, not {crop_mode!r}")
    return pipelines[crop_mode]


def _checked(parse: _Parse, document: Mapping[str, Any], file: Path) -> Metadata | None:
    """Parse a document, and add where its preprocessing is from. Raises InputError."""
    try:
        found = parse(document)
        if found.preprocessing is not None and found.input_size is not None:
            shape = (len(found.preprocessing.mean), *found.input_size)
            _core.check_preprocessing(found.preprocessing, shape)
    except (InputError, KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise InputError(
            f"'{file}' has preprocessing that resrt does not support: {reason}; say all of it "
            "yourself, or that it is as for other weights (--like NAME), or move the file away"
        ) from None
    if found.preprocessing is None:
        return None
    return replace(found, preprocessing_source=f"{file.name} beside the weights")


def _check_function(document: Mapping[str, Any], file: Path) -> None:
    """Raise WeightsError for a config of a network that computes what none of the catalog does."""
    given = document.get("model_args")
    options = {**document, **(given if isinstance(given, Mapping) else {})}
    for name, (expected, what) in _FUNCTION.items():
        if name in options and options[name] != expected:
            raise WeightsError(
                f"'{file}' has {name}={options[name]!r}, {what}; the networks of the catalog have "
                f"{name}={expected!r}. Write its layers down (docs/adding_a_network.md), or move "
                "the file away if it does not belong to the weights"
            )


def _is_of(document: Mapping[str, Any], network: str | None, file: Path) -> bool:
    """Return whether a config is of the network. One of another network is logged."""
    if network is None:
        return True
    described = document.get("architecture") or document.get("model_type")
    if not isinstance(described, str):
        return "pretrained_cfg" in document or "mean" in document
    is_same = described.partition(".")[0].lower() == network.lower()
    if "architecture" not in document:  # Transformers names only the family
        is_same = network.lower().startswith(described.lower())
    if not is_same:
        _logger.warning("ignored '%s', which describes %s, not %s", file, described, network)
    return is_same


def _read(file: Path) -> Mapping[str, Any] | None:
    kind = file_kind(file)
    if kind is None:
        return None
    if kind not in (stat.S_IFREG, 0):  # a pipe would wait
        _logger.warning("ignored '%s', which is not a regular file", file)
        return None
    try:
        document = json.loads(read_text(file))
    except (OSError, ValueError, RecursionError) as error:
        _logger.warning("ignored '%s', which cannot be read: %s", file, error)
        return None
    if not isinstance(document, Mapping):
        _logger.warning("ignored '%s', which is not a JSON object", file)
        return None
    return document


def _channels(values: Any, channels: int) -> list[float]:
    values = [float(value) for value in values]
    return values if len(values) == channels else [sum(values) / len(values)] * channels


# Options of timm and Transformers that change what a network computes but not its parameters: the
# value of the networks of the catalog, and what another one means.
_FUNCTION: dict[str, tuple[object, str]] = {
    "downsample_in_bottleneck": (
        False,
        "which has the stride of a bottleneck in its first convolution",
    ),
    "downsample_in_first_stage": (False, "whose first stage has a stride of 2"),
    "hidden_act": ("relu", "another activation"),
    "global_pool": ("avg", "which ends in another pooling"),
    "output_stride": (32, "whose last stages are dilated"),
}

# What parses each file. Of two with preprocessing, the last counts.
PROCESSOR = "preprocessor_config.json"
_CONFIGS: dict[str, _Parse] = {
    "config.json": of_timm,
    "pretrained_cfg.json": of_timm,
    PROCESSOR: of_transformers,
}
