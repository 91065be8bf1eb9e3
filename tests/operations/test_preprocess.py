"""`resrt.preprocess`, and `resrt.Preprocessing` in other processes."""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import resrt
from support.paths import PHOTOS

CONFIG = resrt.ResNet(depths=[1, 1], width=8)


@pytest.fixture(scope="module")
def engine() -> resrt.Engine:
    return resrt.build(CONFIG, "random", input_size=(32, 48), classes=9, max_batch=2)


def test_logits_equal_those_of_the_engine(engine: resrt.Engine) -> None:
    photos = sorted(PHOTOS.glob("*.jpg"))
    prepared = [resrt.preprocess(photo, engine.info.preprocessing) for photo in photos]
    for found in prepared:
        assert (found.shape, found.dtype) == ((3, 32, 48), np.float32)
    predictions = engine.classify(photos, topk=9)
    expected = resrt.images.top_k(engine.infer(np.stack(prepared)), 9, engine.info.labels)
    assert predictions == expected


def test_reduced_decoding(engine: resrt.Engine, tmp_path: Path) -> None:
    """`exact=False` is what `resrt.classify` does."""
    even, steps = tmp_path / "even.jpg", engine.info.preprocessing
    Image.open(PHOTOS / "china.jpg").crop((0, 0, 640, 424)).save(even)
    exact, quick = (resrt.preprocess(even, steps, exact=chosen) for chosen in (True, False))
    assert not np.array_equal(exact, quick)
    (found,) = resrt.classify(engine, [even], topk=9)
    assert [found.predictions] == resrt.images.top_k(engine.infer(quick[None]), 9, [])


def test_input_size_is_that_of_the_engine(engine: resrt.Engine, tmp_path: Path) -> None:
    engine.save(tmp_path / "x.engine")
    for info in (engine.info, resrt.inspect(tmp_path / "x.engine").info):
        assert info.preprocessing.input_size == (32, 48)
        assert "input_size=(32, 48)" in repr(info.preprocessing)


def test_an_engine_takes_the_input_size_of_the_preprocessing(engine: resrt.Engine) -> None:
    steps = engine.info.preprocessing
    built = resrt.build(CONFIG, "random", preprocessing=steps, max_batch=1)
    assert built.info.input_shape == (3, 32, 48)
    assert built.info.preprocessing == steps


@pytest.mark.parametrize("make", [resrt.build, resrt.export])
def test_a_preprocessing_of_another_size_is_refused(make, engine, tmp_path) -> None:  # type: ignore[no-untyped-def]
    steps = engine.info.preprocessing
    output = [tmp_path / "x.onnx"] if make is resrt.export else []
    with pytest.raises(
        resrt.InputError, match=r"for inputs of 32x48 pixels, but the network's are 64x64; leave"
    ):
        make(CONFIG, *output, weights="random", input_size=64, preprocessing=steps)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [(0, 8), (8, -1)])
def test_invalid_input_size(size: tuple[int, int]) -> None:
    with pytest.raises(resrt.InputError, match=r"input_size must be the height and width"):
        resrt.Preprocessing(
            resize=8, interpolation="bilinear", mean=[0.5], std=[1.0], input_size=size
        )


def test_a_preprocessing_without_size_is_refused() -> None:
    steps = resrt.Preprocessing(resize=8, interpolation="bilinear", mean=[0.5], std=[1.0])
    with pytest.raises(resrt.InputError, match="has no input size; create it with"):
        resrt.preprocess(PHOTOS / "china.jpg", steps)
    with pytest.raises(resrt.InputError, match="must be a resrt.Preprocessing, .* not dict"):
        resrt.preprocess(PHOTOS / "china.jpg", {})  # type: ignore[arg-type]


def test_grey_input() -> None:
    steps = resrt.Preprocessing(
        resize=16, interpolation="bilinear", mean=[0.0], std=[1.0], input_size=(12, 10)
    )
    prepared = resrt.preprocess(np.full((20, 30, 3), 255, np.uint8), steps)
    np.testing.assert_array_equal(prepared, np.ones((1, 12, 10), np.float32))


@pytest.mark.parametrize("pipeline", ["torchvision", "paddleclas"])
@pytest.mark.parametrize("size", [None, (32, 48)])
def test_pickle(pipeline: str, size: tuple[int, int] | None) -> None:
    steps = resrt.Preprocessing(
        resize=37,
        interpolation="bilinear",
        mean=[0.1, 0.2, 0.3],
        std=[0.4, 0.5, 0.6],
        pipeline=pipeline,
        input_size=size,
    )
    for twin in (pickle.loads(pickle.dumps(steps)), copy.deepcopy(steps)):
        assert twin == steps
        assert repr(twin) == repr(steps)
        assert hash(twin) == hash(steps)
    other = resrt.Preprocessing(
        resize=37, interpolation="bilinear", mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.7]
    )
    assert other != steps
    assert steps != 37


def test_in_spawned_processes(engine: resrt.Engine) -> None:
    """As in the workers of a DataLoader."""
    photos = sorted(map(str, PHOTOS.glob("*.jpg")))
    steps = engine.info.preprocessing
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        prepared = pool.map(partial(resrt.preprocess, preprocessing=steps), photos)
    for photo, found in zip(photos, prepared, strict=True):
        np.testing.assert_array_equal(found, resrt.preprocess(photo, steps))


def test_open_file(engine: resrt.Engine) -> None:
    photo, steps = PHOTOS / "china.jpg", engine.info.preprocessing
    prepared = resrt.preprocess(io.BytesIO(photo.read_bytes()), steps)
    np.testing.assert_array_equal(prepared, resrt.preprocess(Image.open(photo), steps))
