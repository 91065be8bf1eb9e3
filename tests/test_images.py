"""From photographs to predictions."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import resrt
from resrt import images


@pytest.fixture(scope="module")
def engine() -> resrt.Engine:
    """1000 classes, and so ImageNet's labels; RGB of 32x48 pixels."""
    config = resrt.ResNet(depths=[1, 1], width=8)
    return resrt.build(config, "random", input_size=(32, 48), max_batch=2, precision="fp32")


def prepare(image: images.ImageLike, engine: resrt.Engine) -> np.ndarray:
    return images.preprocess(image, engine.info.preprocessing, engine.info.input_shape)


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    y, x = np.mgrid[0:90, 0:120]
    pixels = np.stack([2 * x, 2 * y, (x + y) % 256], axis=2).astype(np.uint8)
    path = tmp_path / "photograph.png"
    Image.fromarray(pixels).save(path)
    return path


def test_an_image_may_come_in_many_ways(engine: resrt.Engine, photograph: Path) -> None:
    opened = Image.open(photograph)
    pixels = np.asarray(opened)
    several = engine.classify([photograph, str(photograph), opened, pixels, photograph], topk=3)
    assert len(several) == 5  # more than max_batch
    assert all(row == several[0] for row in several)
    assert engine.classify(photograph, topk=3) == several[:1]
    assert engine.classify([]) == []


def test_predictions_are_ranked_probabilities(engine: resrt.Engine, photograph: Path) -> None:
    (row,) = engine.classify(photograph, topk=1000)
    assert sorted(prediction.index for prediction in row) == list(range(1000))
    probabilities = [prediction.probability for prediction in row]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1)
    logits = engine.infer(prepare(photograph, engine)[None])[0]
    assert row[0].index == logits.argmax()
    assert row[0].label == engine.info.labels[row[0].index]
    assert engine.info.labels[0] == "tench, Tinca tinca"
    assert len(engine.classify(photograph, topk=5000)[0]) == 1000


def test_preprocessing_is_resize_crop_normalise(engine: resrt.Engine, photograph: Path) -> None:
    steps = engine.info.preprocessing
    assert steps.resize == round(32 / 0.875)
    prepared = prepare(photograph, engine)
    assert (prepared.shape, prepared.dtype) == ((3, 32, 48), np.float32)
    size = (round(120 * steps.resize / 90), steps.resize)
    resized = Image.open(photograph).resize(size, Image.Resampling.BILINEAR)
    left, top = (size[0] - 48) // 2, (size[1] - 32) // 2
    pixels = np.asarray(resized)[top : top + 32, left : left + 48] / 255
    expected = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(prepared, expected.transpose(2, 0, 1), atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA"])
def test_modes_become_rgb(engine: resrt.Engine, photograph: Path, mode: str) -> None:
    image = Image.open(photograph).convert(mode)
    assert prepare(image, engine).shape == (3, 32, 48)


def test_photographs_are_turned_upright(engine: resrt.Engine, photograph: Path) -> None:
    upright = Image.open(photograph)
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees to see it upright
    path = photograph.with_name("turned.png")
    lying.save(path, exif=exif)
    np.testing.assert_array_equal(prepare(path, engine), prepare(upright, engine))


def test_sources_preprocess_as_they_published() -> None:
    def steps(name: str) -> tuple[int, str]:
        info = resrt.build(name, "random", max_batch=1).info
        return info.preprocessing.resize, info.preprocessing.interpolation

    assert steps("ResNet18") == (256, "bilinear")
    assert steps("resnet18") == (235, "bicubic")
    assert steps("resnest14d") == (256, "bilinear")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((32, 48, 3), np.float32), "uint8 .*float batches go to infer"),
        (np.zeros((3, 32, 48), np.uint8), r"not uint8 \(3, 32, 48\)"),
        (np.zeros(7, np.uint8), "uint8 of shape"),
        (42, "not int"),
    ],
)
def test_what_is_no_image_is_refused(engine, image, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(resrt.InputError, match=message):
        engine.classify([image])


def test_files_that_are_no_images(engine: resrt.Engine, photograph: Path) -> None:
    with pytest.raises(resrt.FileError, match="No such file"):
        engine.classify("missing.jpg")
    text = photograph.with_name("text.jpg")
    text.write_text("not an image")
    with pytest.raises(resrt.InputError, match="no image of a format"):
        engine.classify(text)
    cut = photograph.with_name("cut.png")
    cut.write_bytes(photograph.read_bytes()[:200])
    with pytest.raises(resrt.InputError, match=r"cut.png' cannot be decoded"):
        engine.classify(cut)
    with pytest.raises(resrt.InputError, match="topk must be a whole number"):
        engine.classify(photograph, topk=0)


def test_other_numbers_of_channels() -> None:
    config = resrt.ResNet(depths=[1], width=8)
    grey = resrt.build(config, "random", input_size=16, in_channels=1, classes=3)
    (row,) = grey.classify(np.zeros((20, 30, 3), np.uint8), topk=1)
    assert row[0].label == str(row[0].index)
    multispectral = resrt.build(config, "random", input_size=16, in_channels=4, classes=3)
    assert multispectral.infer(np.zeros((1, 4, 16, 16), np.float32)).shape == (1, 3)
    with pytest.raises(resrt.InputError, match="4 input channels takes no photographs"):
        multispectral.classify(np.zeros((20, 30, 3), np.uint8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"interpolation": "cubic"}, "no interpolation named 'cubic'; choose one of nearest"),
        ({"std": [0.5, 0, 0.5]}, "those of std above 0"),
        ({"mean": [0.5]}, "for each of 3 channels"),
        ({"resize": 0}, "at least 1 pixel"),
    ],
)
def test_preprocessing_of_ones_own_is_checked(small_graph, change, message) -> None:  # type: ignore[no-untyped-def]
    steps = {"resize": 32, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3}
    with pytest.raises(resrt.InputError, match=message):
        resrt.build(small_graph, "random", preprocessing=resrt.Preprocessing(**{**steps, **change}))


def test_sixteen_bits_of_grey_keep_their_range(engine: resrt.Engine) -> None:
    ramp = np.linspace(0, 65535, 32 * 48).reshape(32, 48).astype(np.uint16)
    deep, shallow = Image.fromarray(ramp), Image.fromarray((ramp // 257).astype(np.uint8))
    np.testing.assert_array_equal(prepare(deep, engine), prepare(shallow, engine))


def test_images_that_are_hostile(engine: resrt.Engine, photograph: Path) -> None:
    with pytest.raises(resrt.InputError, match="60000x1 pixels is too long"):
        engine.classify(Image.new("RGB", (60000, 1)))
    with pytest.raises(resrt.InputError, match="uint8 of shape"):
        engine.classify(np.zeros((0, 5, 3), np.uint8))
    assert len(engine.classify(Image.new("RGB", (1, 1)))) == 1
    content = photograph.read_bytes()
    for position in range(0, len(content), 7):
        broken = photograph.with_name("broken.png")
        broken.write_bytes(content[:position] + b"\xa5" + content[position + 1 :])
        # Either it decodes all the same, or the error is one of ours.
        with contextlib.suppress(resrt.InputError, resrt.FileError):
            engine.classify(broken, topk=1)
