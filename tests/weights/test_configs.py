"""Preprocessing and labels in files beside weights, and `preprocessing` as the user gives it."""

from __future__ import annotations

import json
import logging
import math
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image
from safetensors.numpy import save_file

import resrt
from resrt import _core
from resrt.weights.metadata import fields

LABELS = [f"class {i}" for i in range(7)]
TIMM = {
    "architecture": "resnet18",
    "label_names": LABELS,
    "pretrained_cfg": {
        "input_size": [3, 64, 64],
        "mean": [0.5, 0.4, 0.3],
        "std": [0.25, 0.25, 0.5],
        "crop_pct": 0.9,
        "interpolation": "bilinear",
    },
}
CONVNEXT = {
    "image_processor_type": "ConvNextImageProcessor",
    "crop_pct": 0.875,
    "size": {"shortest_edge": 96},
    "resample": 3,
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.5, 0.5, 0.5],
}


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return _core.random_weights(resrt.build_graph("resnet18", classes=7), 0)


@pytest.fixture
def weights(arrays: dict[str, np.ndarray], tmp_path: Path) -> Path:
    save_file(arrays, tmp_path / "mine.safetensors")
    return tmp_path / "mine.safetensors"


def info(weights: object, **options: Any) -> resrt.EngineInfo:
    options = {"precision": "fp32", "max_batch": 1, **options}
    return resrt.build("resnet18", weights, **options).info


def info_of_random(network: str, size: int | tuple[int, int]) -> resrt.Preprocessing:
    options = {"precision": "fp32", "max_batch": 1, "tune": 0, "input_size": size}
    return resrt.build(network, "random", **options).info.preprocessing


def write(folder: Path, **documents: object) -> None:
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document))


def steps(found: resrt.EngineInfo) -> tuple[object, ...]:
    given = fields(found.preprocessing)
    mean, std = ([round(value, 6) for value in given[name]] for name in ("mean", "std"))
    return given["resize"], given["interpolation"], mean, std, given["pipeline"]


NESTED = TIMM["pretrained_cfg"] | {"label_names": LABELS}


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("config", TIMM),
        ("config", {"architecture": "resnet18", "pretrained_cfg": NESTED}),
        ("pretrained_cfg", {"architecture": "resnet18", **NESTED}),
    ],
)
def test_timm(weights: Path, name: str, document: dict[str, Any]) -> None:
    write(weights.parent, **{name: document})
    found = info(weights)
    assert found.input_shape == (3, 64, 64)
    assert steps(found) == (71, "bilinear", [0.5, 0.4, 0.3], [0.25, 0.25, 0.5], "torchvision")
    assert found.labels == LABELS
    assert found.preprocessing_source == f"{name}.json beside the weights"
    assert info(weights, input_size=32).preprocessing.resize == 35  # 32 / 0.9
    # The same for a conversion, from which it is built again elsewhere.
    elsewhere = weights.parent / "elsewhere" / "converted.safetensors"
    elsewhere.parent.mkdir()
    resrt.convert(weights, elsewhere, network="resnet18")
    again = info(elsewhere)
    assert (steps(again), again.labels) == (steps(found), LABELS)
    assert again.preprocessing_source == f"{name}.json beside the weights"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (96, 109, "bicubic", "torchvision")),
        ({"size": 384}, (384, 384, "bicubic", "squash")),
        ({"image_processor_type": "ViTImageProcessor", "crop_pct": None, "size": 80}, None),
    ],
)
def test_transformers(weights: Path, changes: dict[str, Any], expected: Any) -> None:
    write(
        weights.parent,
        preprocessor_config=CONVNEXT | changes,
        config={"model_type": "resnet", "id2label": dict(enumerate(LABELS))},
    )
    found = info(weights)
    size, resize, interpolation, pipeline = expected or (80, 91, "bicubic", "torchvision")
    assert found.input_shape == (3, size, size)
    assert steps(found) == (resize, interpolation, [0.1, 0.2, 0.3], [0.5] * 3, pipeline)
    assert found.labels == LABELS
    assert found.preprocessing_source == "preprocessor_config.json beside the weights"


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        ({"size": 80}, (80, 80, "squash")),
        ({"size": {"height": 80, "width": 80}}, (80, 80, "squash")),
        (
            {"size": {"shortest_edge": 90}, "do_center_crop": True, "crop_size": 64},
            (64, 90, "torchvision"),
        ),
        (
            {
                "size": {"height": 90, "width": 90},
                "do_center_crop": True,
                "crop_size": {"height": 64, "width": 64},
                "do_normalize": False,
            },
            (64, 90, "squash"),
        ),
    ],
)
def test_other_image_processors(
    weights: Path, processor: dict[str, Any], expected: tuple[int, int, str]
) -> None:
    write(weights.parent, preprocessor_config=processor)
    found = info(weights)
    size, resize, pipeline = expected
    assert found.input_shape == (3, size, size)
    given = found.preprocessing
    assert (given.resize, given.interpolation, given.pipeline) == (resize, "bilinear", pipeline)
    if "do_normalize" in processor:
        assert (given.mean, given.std) == ([0, 0, 0], [1, 1, 1])


@pytest.mark.parametrize(
    ("name", "document", "message"),
    [
        ("preprocessor_config", {"size": {"shortest_edge": 96}}, "it crops nothing"),
        ("preprocessor_config", {"size": 96, "resample": 0}, "resample must be one of"),
        ("preprocessor_config", {"size": 96, "rescale_factor": 1}, "rescale_factor must be 1/255"),
        ("preprocessor_config", {"size": 96, "do_resize": False}, "do_resize and do_rescale"),
        ("preprocessor_config", {"size": {"longest_edge": 9}}, "'height' is missing"),
        ("preprocessor_config", {"size": "large"}, "the shortest edge must be an integer"),
        ("preprocessor_config", {"size": {"shortest_edge": [1, 2]}}, "not [1, 2]"),
        ("preprocessor_config", {"size": 96, "crop_size": 0.5}, "crop_size must be an integer"),
        ("config", TIMM["pretrained_cfg"] | {"crop_mode": "border"}, "crop_mode must be one of"),
        ("config", TIMM["pretrained_cfg"] | {"mean": ["x"]}, "could not convert string"),
        ("config", TIMM["pretrained_cfg"] | {"crop_pct": "x"}, "crop_pct must be a number"),
        ("config", TIMM["pretrained_cfg"] | {"input_size": [3]}, "not enough values"),
    ],
)
def test_unsupported_preprocessing(
    weights: Path, name: str, document: dict[str, Any], message: str
) -> None:
    write(weights.parent, **{name: document})
    with pytest.raises(
        resrt.InputError, match=f"{name}.json' has preprocessing that resrt does not support: "
    ) as caught:
        info(weights)
    assert message in str(caught.value)
    # Whoever gives all of it does not need the file.
    assert info(weights, preprocessing="resnet18.tv_in1k").preprocessing.resize == 256


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"downsample_in_bottleneck": True}, "downsample_in_bottleneck=True, which has the stride"),
        ({"downsample_in_first_stage": True}, "downsample_in_first_stage=True, whose first stage"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu', another activation"),
        ({"global_pool": "max"}, "global_pool='max', which ends in another pooling"),
        ({"model_args": {"global_pool": "max"}}, "global_pool='max', which ends"),
        ({"model_args": {"output_stride": 16}}, "output_stride=16, whose last stages"),
    ],
)
def test_configs_of_another_function_are_refused(
    weights: Path, config: dict[str, Any], message: str
) -> None:
    document = {"model_type": "resnet", **config}
    write(weights.parent, config=document)
    for run in (
        lambda: info(weights),
        lambda: info(weights, preprocessing="resnet18.tv_in1k"),
        lambda: resrt.convert(weights, weights.parent / "out", network="resnet18"),
    ):
        with pytest.raises(resrt.WeightsError, match=rf"config.json' has {message}"):
            run()
    # That of another network is ignored.
    write(weights.parent, config={**document, "model_type": "regnet"})
    assert info(weights).classes == 7


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({**TIMM, "architecture": "resnet50"}, "which describes resnet50, not resnet18"),
        ({"model_type": "vit", "id2label": {"0": "x"}}, "which describes vit, not resnet18"),
        ({**TIMM, "label_names": LABELS[:3]}, "ignored the 3 labels beside the weights, which"),
        ([], ""),
        ({"name": "something else"}, ""),
    ],
)
def test_configs_of_something_else_are_ignored(
    weights: Path, document: object, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(weights.parent, config=document)
    found = info(weights)
    assert found.labels == []
    assert message in caplog.text
    (weights.parent / "config.json").write_text("{")
    info(weights)
    assert "config.json', which cannot be read" in caplog.text


def test_what_is_assumed_is_said(
    weights: Path, arrays: dict[str, np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    found = info(weights)
    assert found.preprocessing_source == "assumed as for resnet18.a1_in1k"
    assert (
        "the weights from mine.safetensors do not say how photographs are preprocessed: assumed"
        in caplog.text
    )
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert info("random").preprocessing_source == "assumed as for resnet18.a1_in1k"
        own = resrt.Preprocessing(resize=70, interpolation="bilinear", mean=[0] * 3, std=[1] * 3)
        assert info(weights, preprocessing=own).preprocessing_source == "as given"
        assert resrt.build("resnet18.tv_in1k", weights, max_batch=1).info.preprocessing_source == (
            "as for resnet18.tv_in1k"
        )
    assert caplog.text == ""
    graph = resrt.build_graph("resnet18", classes=7)
    own_graph = resrt.build(graph, arrays, max_batch=1).info
    assert own_graph.preprocessing_source == "assumed as usual for ImageNet"
    assert "from arrays do not say" in caplog.text


def test_source_is_kept_in_the_engine_file(weights: Path) -> None:
    file = weights.parent / "x.engine"
    resrt.build_file("resnet18", file, weights, preprocessing={"mean": 0.5}, cache=False)
    expected = "mean as given; the rest assumed as for resnet18.a1_in1k"
    assert resrt.inspect(file).document()["preprocessing_source"] == expected
    assert resrt.load(file).info.preprocessing_source == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"crop_pct": 1}, {"resize": 64}),
        ({"crop_pct": 0.875}, {"resize": 73}),
        ({"resize": 99, "interpolation": "lanczos"}, {"resize": 99, "interpolation": "lanczos"}),
        ({"mean": 0.5, "std": [0.25]}, {"mean": [0.5] * 3, "std": [0.25] * 3}),
        ({"crop_mode": "squash"}, {"pipeline": "squash"}),
        ({"crop_mode": "center", "mean": (0, 0.5, 1)}, {"mean": [0, 0.5, 1]}),
        ({"pipeline": "paddleclas", "interpolation": "bilinear"}, None),
        ("resnet18.tv_in1k", {"resize": 73, "interpolation": "bilinear"}),
        ({"like": "ResNet18", "std": 0.5}, {"pipeline": "paddleclas", "std": [0.5] * 3}),
    ],
)
def test_changes(weights: Path, given: Any, expected: dict[str, Any]) -> None:
    expected = given if expected is None else expected
    assumed = fields(info(weights, input_size=64).preprocessing)
    found = fields(info(weights, input_size=64, preprocessing=given).preprocessing)
    if given == "resnet18.tv_in1k" or "like" in given:
        assert expected.items() <= found.items()
    else:
        assert found == assumed | expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"crop": 1}, "unknown preprocessing option 'crop'; expected like, mean, std"),
        ({"crop_pct": 1.5}, "crop_pct must be a number from 0.01 to 1, not 1.5"),
        ({"crop_pct": 1, "resize": 64}, "resize and crop_pct exclude each other"),
        ({"crop_mode": "border"}, "crop_mode must be one of center, squash, not 'border'"),
        ({"interpolation": "nearest"}, "nearest"),
        ({"interpolation": 3}, "interpolation and pipeline are str"),
        ({"mean": [0.1, 0.2]}, "one value for each of 3 channels"),
        ({"mean": [127, 127, 127]}, "mean is for pixels from 0 to 1, .*divide it, and std, by 255"),
        ({"mean": "dark"}, "mean must be numbers, one for each channel, not 'dark'"),
        ({"like": 3}, "like must be the name of pretrained weights, not 3"),
        ({"resize": 0}, "resize must be an integer of at least 1, not 0"),
        (3, "must be a resrt.Preprocessing, the name of pretrained weights or a dict"),
    ],
)
def test_invalid_changes(weights: Path, given: Any, message: str) -> None:
    with pytest.raises(resrt.InputError, match=message):
        info(weights, preprocessing=given)


def test_unknown_names(weights: Path) -> None:
    with pytest.raises(resrt.ModelError, match="no network named 'nobody'"):
        info(weights, preprocessing="nobody")
    with pytest.raises(resrt.WeightsError, match="unknown pretrained weights"):
        info(weights, preprocessing="resnet18.nobody")
    unpublished = next(one.name for one in resrt.list_models() if not one.pretrained)
    with pytest.raises(resrt.InputError, match="has no pretrained weights whose preprocessing"):
        info(weights, preprocessing=unpublished)


def test_conversion_takes_both(weights: Path) -> None:
    output = weights.parent / "out.safetensors"
    options = {"input_size": 64, "preprocessing": {"mean": 0.5, "crop_pct": 1}}
    resrt.convert(weights, output, network="resnet18", **options)
    found, expected = info(output), info(weights, **options)
    assert found.input_shape == (3, 64, 64)
    assert steps(found) == steps(expected)
    assert found.preprocessing_source == expected.preprocessing_source


def test_squash_ignores_the_proportions() -> None:
    """As timm does: resize to the input's proportions, then crop the centre."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (90, 201, 3), dtype=np.uint8))
    for height, width, resize in ((32, 32, 32), (32, 32, 40), (32, 48, 36), (32, 32, 20)):
        steps = resrt.Preprocessing(
            resize=resize, interpolation="bicubic", mean=[0] * 3, std=[1] * 3, pipeline="squash"
        )
        found = resrt.images.preprocess(image, steps, (3, height, width))
        resize = max(resize, 32)
        wide = round(resize * width / height)
        resized = image.resize((wide, resize), Image.Resampling.BICUBIC)
        left, top = round((wide - width) / 2), round((resize - height) / 2)
        cropped = np.asarray(resized.crop((left, top, left + width, top + height)))
        np.testing.assert_array_equal(found, cropped.transpose(2, 0, 1) / np.float32(255))


# --- Inputs that are not square ---


def like_timm(photograph: Image.Image, size: tuple[int, int], cfg: dict[str, Any]) -> np.ndarray:
    """The resize and the crop of timm's transforms_imagenet_eval, as grey levels."""
    height, width = (math.floor(side / cfg["crop_pct"]) for side in size)
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    if cfg.get("crop_mode") != "squash":
        ratio = min(photograph.height / height, photograph.width / width)
        height, width = round(photograph.height / ratio), round(photograph.width / ratio)
    resized = photograph.resize((width, height), filters[cfg["interpolation"]])
    top, left = round((height - size[0]) / 2), round((width - size[1]) / 2)
    return np.asarray(resized)[top : top + size[0], left : left + size[1]]


@pytest.mark.parametrize("crop_mode", ["center", "squash"])
@pytest.mark.parametrize("size", [(96, 64), (64, 96), (100, 101), (64, 64)])
def test_timm_resizes_each_side_of_an_input_that_is_not_square(
    size: tuple[int, int], crop_mode: str, weights: Path, tmp_path: Path
) -> None:
    config = {
        **TIMM["pretrained_cfg"],  # type: ignore[dict-item]
        "input_size": [3, *size],
        "crop_pct": 0.95,
        "crop_mode": crop_mode,
    }
    write(tmp_path, config=TIMM | {"pretrained_cfg": config})
    steps = info(weights).preprocessing
    assert steps.input_size == size
    for shape in ((120, 160, 3), (160, 120, 3), (130, 110, 3)):
        pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        expected = like_timm(Image.fromarray(pixels), size, config)
        found = resrt.preprocess(pixels, steps).transpose(1, 2, 0)
        levels = (found * np.float32([0.25, 0.25, 0.5]) + np.float32([0.5, 0.4, 0.3])) * 255
        # Pillow 13 filters in another order where the height is reduced much more than the width.
        most = 0 if int(PIL.__version__.split(".")[0]) < 13 else 4
        assert np.abs(np.rint(levels) - expected).max() <= most
        is_shifted = np.abs(np.rint(levels) - np.roll(expected, 1, axis=0)).mean() > 10
        assert is_shifted  # so that the bound above means something


def test_the_size_before_the_crop_survives_files(weights: Path, tmp_path: Path) -> None:
    preprocessing = {"crop_pct": 0.95, "crop_mode": "squash"}
    engine = resrt.build(
        "resnet18",
        weights,
        precision="fp32",
        max_batch=1,
        input_size=(96, 64),
        tune=0,
        preprocessing=preprocessing,
    )
    steps = engine.info.preprocessing
    assert steps.resize == (101, 67)
    engine.save(tmp_path / "x.engine")
    assert resrt.load(tmp_path / "x.engine").info.preprocessing == steps
    assert pickle.loads(pickle.dumps(steps)) == steps
    assert "resize=(101, 67)" in repr(steps)
    converted = tmp_path / "converted.safetensors"
    resrt.convert(
        weights, converted, network="resnet18", input_size=(96, 64), preprocessing=preprocessing
    )
    assert info(converted).preprocessing == steps
    assert info(converted, input_size=(64, 160)).preprocessing.resize == (67, 168)
    # Without a ratio, the proportions remain.
    for resize, expected in (((120, 80), (80, 200)), (80, 80)):
        resrt.convert(
            weights,
            converted,
            network="resnet18",
            input_size=(96, 64),
            preprocessing={"resize": resize},
        )
        assert info(converted, input_size=(64, 160)).preprocessing.resize == expected
    with pytest.raises(resrt.InputError, match="resize"):
        info(weights, preprocessing={"resize": (0, 80)})
    with pytest.raises(resrt.InputError, match="with the pipelines torchvision and squash"):
        info(
            weights,
            preprocessing={
                "resize": (80, 90),
                "pipeline": "paddleclas",
                "interpolation": "bilinear",
            },
        )


@pytest.mark.parametrize(("size", "resize"), [(160, 168), (288, 288), ((96, 160), (101, 168))])
def test_assumed_preprocessing_is_rounded_as_timm_does(
    size: int | tuple[int, int], resize: int | tuple[int, int]
) -> None:
    """In proportion to 235 pixels for an input of 224, it would be another number."""
    steps = info_of_random("resnet50", size)
    assert steps.resize == resize


def test_files_beside_weights_that_cannot_be_used_are_named(
    weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, config=TIMM["pretrained_cfg"] | {"interpolation": "nearest"})  # type: ignore
    with pytest.raises(resrt.InputError, match=r"config\.json' has preprocessing.*nearest"):
        info(weights)
    write(tmp_path, config=TIMM["pretrained_cfg"] | {"crop_mode": "border"})  # type: ignore
    with pytest.raises(
        resrt.InputError, match=r"config\.json' has preprocessing.*border'; say all"
    ):
        info(weights, preprocessing={"mean": 0.5})
    given = {
        "mean": 0.5,
        "std": 0.5,
        "crop_pct": 1,
        "crop_mode": "center",
        "interpolation": "bicubic",
    }
    assert info(weights, input_size=64, preprocessing=given).preprocessing.resize == 64
    (tmp_path / "config.json").unlink()
    write(tmp_path, preprocessor_config=[1, 2])
    caplog.clear()
    info(weights)
    assert "preprocessor_config.json', which is not a JSON object" in caplog.text


def test_a_network_of_ones_own_has_the_preprocessing_beside_its_weights(tmp_path: Path) -> None:
    config = resrt.ResNet(depths=[1, 1], width=8)
    graph = resrt.build_graph(config, classes=7)
    save_file(_core.random_weights(graph, 0), tmp_path / "mine.safetensors")
    write(tmp_path, config=TIMM | {"architecture": "resnet8"})
    options = {"precision": "fp32", "max_batch": 1, "tune": 0}
    found = resrt.build(config, tmp_path / "mine.safetensors", **options).info
    assert (found.preprocessing.resize, found.labels) == (71, LABELS)
    assert found.preprocessing_source == "config.json beside the weights"


def test_what_was_given_before_is_named_once(weights: Path, tmp_path: Path) -> None:
    converted = tmp_path / "converted.safetensors"
    resrt.convert(weights, converted, network="resnet18", preprocessing={"std": 0.5, "mean": 0.5})
    rest = "as given; the rest assumed as for resnet18.a1_in1k"
    assert info(converted).preprocessing_source == f"std, mean {rest}"
    changed = info(converted, preprocessing={"mean": 0.25, "crop_pct": 1})
    assert changed.preprocessing_source == f"mean, crop_pct, std {rest}"
    whole = {"mean": 0.5, "std": 0.5, "resize": 64, "crop_mode": "center"}
    whole["interpolation"] = "bicubic"
    given = ", ".join(whole)
    assert info(weights, preprocessing=whole).preprocessing_source == f"{given} as given"


def test_a_pipe_in_the_place_of_a_config_is_ignored(
    weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(weights.parent / "config.json")
    assert info(weights).labels == []
    assert "config.json', which is not a regular file" in caplog.text
