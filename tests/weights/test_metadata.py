"""What travels with weights: reading and writing it, other input sizes, and conversions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import resrt
from resrt import _core, weights
from resrt.catalog import pretrained
from resrt.weights.metadata import Metadata, Recommended, fields

STEPS = _core.Preprocessing(
    resize=256,
    interpolation="bilinear",
    mean=[0.5, 0.25, 0.125],
    std=[1.0, 0.5, 2.0],
    pipeline="paddleclas",
)
DOCUMENT = fields(STEPS)
OPTIONS: dict[str, Any] = {"max_batch": 1, "precision": "fp32"}


def assert_equal(found: Metadata, wanted: Metadata) -> None:
    """Compare all fields. Preprocessing, a class of the core, is compared by its own fields."""
    for metadata in (found, wanted):
        assert metadata.preprocessing is not None
    assert fields(found.preprocessing) == fields(wanted.preprocessing)  # type: ignore[arg-type]
    for name in ("origin", "labels", "input_size", "recommended"):
        assert getattr(found, name) == getattr(wanted, name), name


def of_pretrained(name: str, channels: int = 3) -> Metadata:
    entry = pretrained.find(name)
    assert entry is not None
    return Metadata.of_pretrained(entry, channels)


# --- Reading and writing ---


@pytest.mark.parametrize("recommended", [None, Recommended(crop=288, resize=320)])
def test_metadata_is_read_as_it_was_written(recommended: Recommended | None) -> None:
    metadata = Metadata(
        origin="resnet50",
        labels=["größer", 'a "quoted" name', "c"],
        preprocessing=STEPS,
        input_size=(224, 256),
        recommended=recommended,
    )
    texts = metadata.write()
    assert all(isinstance(text, str) for text in texts.values())
    assert_equal(Metadata.read(texts, origin="resnet50"), metadata)


def test_unknown_metadata_is_not_written() -> None:
    assert Metadata(origin="arrays").write() == {}
    assert Metadata.read({"format": "pt", "network": "resnet18"}) == Metadata()


@pytest.mark.parametrize("name", ["resnet50", "ResNeSt50", "regnetx_002.pycls_in1k"])
def test_metadata_of_pretrained_weights_is_read_as_it_was_written(name: str) -> None:
    metadata = of_pretrained(name)
    assert_equal(Metadata.read(metadata.write(), origin=metadata.origin), metadata)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "3",
        "[]",
        '"text"',
        "[" * 100_000,
        "{}",
        json.dumps(DOCUMENT | {"resize": "256"}),
        json.dumps(DOCUMENT | {"resize": 1.5}),
        json.dumps(DOCUMENT | {"resize": 0}),
        json.dumps(DOCUMENT | {"resize": -1}),
        json.dumps(DOCUMENT | {"resize": 2**31 - 1}),
        json.dumps(DOCUMENT | {"resize": 10**30}),
        json.dumps(DOCUMENT | {"mean": "abc"}),
        json.dumps(DOCUMENT | {"another": 1}),
        json.dumps(DOCUMENT | {"recommended": 288}),
        json.dumps(DOCUMENT | {"recommended": {"crop": 288}}),
        json.dumps(DOCUMENT | {"recommended": {"crop": 288, "resize": "320"}}),
        json.dumps(DOCUMENT | {"recommended": {"crop": 288, "resize": 0}}),
    ],
)
def test_invalid_preprocessing(text: str) -> None:
    with pytest.raises(resrt.InputError, match=r"invalid preprocessing in .* convert the weights"):
        Metadata.read({"preprocessing": text})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 100_000,
        "9" * 10_000,
        "224",
        "[224]",
        "[224, 224, 3]",
        "[224, 0]",
        "[224, -1]",
        "[224, 65537]",
        "[224, 1.5]",
        "[true, 224]",
        '["a", "b"]',
        '{"a": 1, "b": 2}',
    ],
)
def test_invalid_input_sizes(text: str) -> None:
    with pytest.raises(resrt.InputError, match=r"invalid input size in .* convert the weights"):
        Metadata.read({"input_size": text})


@pytest.mark.parametrize("text", ["[1, 2]", '["a"', "[" * 100_000])
def test_invalid_labels(text: str) -> None:
    with pytest.raises(resrt.InputError, match="labels"):
        Metadata.read({"labels": text})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("preprocessing", "{", "invalid preprocessing"),
        ("preprocessing", json.dumps(DOCUMENT | {"interpolation": "none"}), "interpolation"),
        ("preprocessing", json.dumps(DOCUMENT | {"mean": []}), "mean"),
        ("input_size", "224", "invalid input size"),
        ("labels", '["a", "b"]', "2 labels for 1000 classes"),
    ],
)
def test_invalid_metadata_of_a_file(key: str, value: str, message: str, tmp_path: Path) -> None:
    graph = resrt.build_graph("RegNetX_200MF")
    path = tmp_path / "model.safetensors"
    # As in a file of `resrt.convert`; another program may use the same keys in its own way.
    texts = {key: value, "network": "RegNetX_200MF", "source_sha256": "0"}
    save_file(_core.random_weights(graph, 0), path, texts)
    with pytest.raises(resrt.InputError, match=message):
        resrt.build("RegNetX_200MF", path, **OPTIONS | {"input_size": 32})


# --- Other input sizes ---


@pytest.mark.parametrize(
    ("name", "size", "resize"),
    [
        ("resnet50", 224, 235),  # timm's crop_pct of 0.95, rounded down
        ("resnet50", 288, 288),  # its test size, with its test_crop_pct of 1
        ("resnet50", 448, 471),  # 448 / 0.95 rounded down, not 448 * 235 / 224
        ("ResNet50", 224, 256),
        ("ResNet50", 288, 329),
        ("ResNet50", 320, 366),
        ("Fix_ResNet50_vd_ssld_v2", 320, 320),
        ("resnest269e", 416, 448),
    ],
)
def test_resizing_is_scaled_to_the_input_size(name: str, size: int, resize: int) -> None:
    metadata = of_pretrained(name)
    scaled = metadata.at((size, size))
    assert scaled.input_size == (size, size)
    assert scaled.preprocessing is not None
    assert scaled.preprocessing.resize == resize
    others = {"resize": None}
    assert metadata.preprocessing is not None
    assert fields(scaled.preprocessing) | others == fields(metadata.preprocessing) | others


def test_the_shorter_side_decides() -> None:
    metadata = of_pretrained("ResNet50")
    for size in ((288, 512), (512, 288)):
        scaled = metadata.at(size).preprocessing
        assert scaled is not None
        assert scaled.resize == 329


def test_an_unknown_size_or_preprocessing_is_not_scaled() -> None:
    assert Metadata(preprocessing=STEPS).at((64, 64)).preprocessing == STEPS
    assert Metadata(input_size=(224, 224)).at((64, 32)) == Metadata(input_size=(64, 32))


def test_channels_that_are_not_rgb_get_the_average() -> None:
    steps = of_pretrained("ResNet50", channels=1).preprocessing
    assert steps is not None
    assert steps.mean == pytest.approx([0.449])


# --- Conversions ---


def write_weights(path: Path, network: str) -> Path:
    graph = resrt.build_graph(network)
    save_file(_core.random_weights(graph, 3), path)
    return path


def info(network: str, path: Path, size: int | None) -> resrt.EngineInfo:
    options = OPTIONS if size is None else OPTIONS | {"input_size": size}
    return resrt.build(network, path, **options).info


@pytest.mark.parametrize(
    ("network", "size", "resize"),
    [
        ("ResNet18", 64, 73),
        ("ResNet18", None, 256),
        ("RegNetX_200MF", 288, 329),
        ("resnet18", 64, 67),
        ("resnet18", 288, 288),  # the size at which timm's weights are most accurate
    ],
)
def test_converted_weights_have_the_preprocessing_of_the_original(
    network: str, size: int | None, resize: int, tmp_path: Path
) -> None:
    source, out = write_weights(tmp_path / "source", network), tmp_path / "out.safetensors"
    resrt.convert(source, out, network=network)
    before, after = info(network, source, size), info(network, out, size)
    assert fields(after.preprocessing) == fields(before.preprocessing)
    assert after.preprocessing.resize == resize
    assert after.input_shape == before.input_shape == (3, size or 224, size or 224)
    # The metadata of a converted file is that of its source.
    again = tmp_path / "again.safetensors"
    resrt.convert(out, again, network=network)
    assert_equal(
        Metadata.read(weights.read(again).metadata), Metadata.read(weights.read(out).metadata)
    )


def test_the_input_size_travels_with_the_weights(tmp_path: Path) -> None:
    """It differs from the network's own."""
    source, out = tmp_path / "source", tmp_path / "out.safetensors"
    graph = resrt.build_graph("resnet18", classes=7)
    labels = list("abcdefg")
    metadata = Metadata(labels=labels, preprocessing=STEPS, input_size=(64, 96))
    save_file(_core.random_weights(graph, 3), source, metadata.write())
    written = resrt.convert(source, out)
    assert json.loads(written["input_size"]) == [64, 96]
    built = resrt.build("resnet18", out, **OPTIONS)
    assert built.info.input_shape == (3, 64, 96)
    assert built.info.labels == labels
    assert fields(built.info.preprocessing) == DOCUMENT
    images = np.random.default_rng(0).standard_normal((1, 3, 64, 96), np.float32)
    expected = resrt.build("resnet18", source, **OPTIONS).infer(images)
    np.testing.assert_array_equal(built.infer(images), expected)
    smaller = resrt.build("resnet18", out, **OPTIONS | {"input_size": 32}).info
    assert (smaller.input_shape, smaller.preprocessing.resize) == ((3, 32, 32), 128)
