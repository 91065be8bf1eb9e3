"""Preprocessing of images, and predictions."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

import resrt
from resrt import images
from support.paths import PHOTOS


@pytest.fixture(scope="module")
def engine() -> resrt.Engine:
    """An engine for RGB images of 32x48 pixels, with the labels of ImageNet."""
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


def test_kinds_of_images(engine: resrt.Engine, photograph: Path) -> None:
    opened = Image.open(photograph)
    pixels = np.asarray(opened)
    several = engine.classify([photograph, str(photograph), opened, pixels, photograph], topk=3)
    assert len(several) == 5  # more than max_batch
    assert all(row == several[0] for row in several)
    assert engine.classify(photograph, topk=3) == several[:1]
    assert engine.classify([]) == []


class Response(io.RawIOBase):
    """A stream that cannot seek, as a response over HTTP."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        return self._content.readinto(buffer)


class Tensor:
    """An array of another library."""

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = pixels

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return self._pixels


def test_files_in_memory(engine: resrt.Engine, photograph: Path) -> None:
    content = photograph.read_bytes()
    at_the_end = io.BytesIO(content)
    at_the_end.read()
    spooled = tempfile.SpooledTemporaryFile()  # noqa: SIM115  # what a web framework has
    spooled.write(content)
    (expected,) = engine.classify(photograph)
    with photograph.open("rb") as file:
        for image in (
            content,
            bytearray(content),
            memoryview(content),
            io.BytesIO(content),
            at_the_end,
            spooled,
            file,
            Response(content),
        ):
            assert engine.classify(image) == [expected], image  # type: ignore[arg-type]
        assert not file.closed


def test_arrays(engine: resrt.Engine, photograph: Path) -> None:
    image = Image.open(photograph)
    pixels = np.asarray(image)
    (expected,) = engine.classify(image)
    transparent = np.dstack([pixels, np.arange(90 * 120).reshape(90, 120) % 256]).astype(np.uint8)
    for array in (transparent, np.asfortranarray(pixels), Tensor(pixels)):
        assert engine.classify(array) == [expected]  # type: ignore[arg-type]
    grey = np.asarray(image.convert("L"))
    assert (
        engine.classify(grey)
        == engine.classify(grey[:, :, None])
        == engine.classify(np.dstack([grey, grey]))
        == engine.classify(image.convert("L"))
    )
    with pytest.raises(resrt.InputError, match="<192 bytes> is not an image"):
        engine.classify(np.zeros((8, 8, 3), np.uint8).tobytes())


@pytest.mark.parametrize("batch_type", [np.asarray, Tensor])
def test_batches_of_pixels(engine: resrt.Engine, batch_type) -> None:  # type: ignore[no-untyped-def]
    batch = np.random.default_rng(0).integers(0, 256, (5, 40, 60, 3), np.uint8)
    rows = engine.classify(batch_type(batch), topk=3)
    assert rows == [engine.classify(image, topk=3)[0] for image in batch]
    alpha = np.pad(batch, ((0, 0),) * 3 + ((0, 1),))
    assert engine.classify(batch_type(alpha), topk=3) == rows
    assert engine.classify(batch_type(batch[:0])) == []


def test_invalid_files_in_memory(engine: resrt.Engine, photograph: Path) -> None:
    cut = photograph.read_bytes()[:200]
    closed = io.BytesIO(cut)
    closed.close()
    with photograph.open() as text:
        for image, message in [
            (b"", "<0 bytes> is not an image in a supported format"),
            (b"not an image", "<12 bytes> is not an image in a supported format; expected one of"),
            (cut, "cannot decode the image <200 bytes>"),
            (io.BytesIO(cut), "cannot decode the image <BytesIO>"),
            (text, r"<TextIOWrapper>: its read\(\) returns str, not bytes; open a file with 'rb'"),
            (closed, "cannot read the image <BytesIO>: .*closed file"),
        ]:
            with pytest.raises(resrt.InputError, match=message):
                engine.classify(image)
    with pytest.raises(resrt.InputError, match="image 1 of the batch: cannot decode"):
        engine.classify([photograph, cut])


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


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.filterwarnings("error")
def test_logits_that_are_not_finite_have_nan_probabilities(value: float) -> None:
    logits = np.array([[1, value, 3], [value] * 3, [1, 2, 3]], np.float32)
    some, all_of_them, none = images.top_k(logits, 3, ["a", "b", "c"])
    assert np.isnan([prediction.probability for prediction in some + all_of_them]).all()
    assert [prediction.label for prediction in all_of_them] == ["a", "b", "c"]
    assert [prediction.label for prediction in none] == ["c", "b", "a"]
    assert sum(prediction.probability for prediction in none) == pytest.approx(1)


GOLDEN = json.loads((Path(__file__).parent / "golden" / "paddleclas_inputs.json").read_text())


@pytest.mark.parametrize(("photo", "height", "width", "resize", "crop", "digest"), GOLDEN)
def test_preprocessing_equals_that_of_paddleclas(
    photo: str, height: int, width: int, resize: int, crop: int, digest: str
) -> None:
    """golden/make_paddleclas_inputs.py wrote the checksums with PaddleClas's own operators."""
    part = np.asarray(Image.open(PHOTOS / photo))[:height, :width]
    steps = images.imagenet_preprocessing(3, resize, "paddleclas")
    prepared = images.preprocess(part, steps, (3, crop, crop))
    assert hashlib.sha256(prepared.astype("<f4").tobytes()).hexdigest() == digest


def preprocess_as_torchvision(
    image: Image.Image, steps: resrt.Preprocessing, crop: int
) -> np.ndarray:
    """Apply torchvision's Resize, CenterCrop, ToTensor and Normalize, as timm composes them."""
    short, long = sorted(image.size)
    other = int(steps.resize * long / short)
    size = (steps.resize, other) if image.width < image.height else (other, steps.resize)
    resized = image.resize(size, Image.Resampling[steps.interpolation.upper()])
    left, top = round((size[0] - crop) / 2), round((size[1] - crop) / 2)
    pixels = np.asarray(resized.crop((left, top, left + crop, top + crop)), np.float32)
    normalised = (pixels / 255 - np.float32(steps.mean)) / np.float32(steps.std)
    return normalised.transpose(2, 0, 1)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(
    ("resize", "crop"), [(256, 224), (235, 224), (224, 224), (321, 288), (8, 5)]
)
@pytest.mark.parametrize(
    ("height", "width"), [(427, 640), (427, 301), (47, 33), (224, 224), (1, 1)]
)
def test_preprocessing_equals_that_of_timm(
    interpolation: str, resize: int, crop: int, height: int, width: int
) -> None:
    steps = resrt.Preprocessing(
        resize=resize,
        interpolation=interpolation,
        mean=[0.485, 0.456, 0.406],
        std=[0.229, 0.224, 0.225],
    )
    for photo in sorted(PHOTOS.glob("*.jpg")):
        part = Image.open(photo).crop((0, 0, width, height))
        prepared = images.preprocess(part, steps, (3, crop, crop))
        np.testing.assert_array_equal(prepared, preprocess_as_torchvision(part, steps, crop))


def test_resized_image_smaller_than_the_input() -> None:
    """The input is 48 pixels wide, and the shorter side of the image is resized to 37."""
    steps = images.imagenet_preprocessing(3, 37)
    ramp = np.linspace(0, 255, 90, dtype=np.uint8)
    square = np.broadcast_to(ramp[:, None], (90, 90, 3)[:2])
    (prepared,) = images.preprocess_batch([square], steps, (3, 32, 48))
    column = prepared[0, :, 0] * 0.229 + 0.485
    # The image is resized to 48 x 48 and cropped to the middle 32 rows, so proportions are kept.
    np.testing.assert_allclose(column[[0, -1]], [8.5 / 48, 39.5 / 48], atol=0.01)


def test_a_large_jpeg_is_decoded_at_reduced_size(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    whole = Image.open(PHOTOS / "china.jpg")  # full of detail
    whole.crop((0, 0, 640, 426)).save(path, quality=92)
    assert images.open_image(path, 3, least=3 * 71).size == (320, 213)
    assert images.open_image(path, 3, least=3 * 72).size == (640, 426)
    whole.save(tmp_path / "odd.jpg")  # 427 pixels high, which is odd
    assert images.open_image(tmp_path / "odd.jpg", 3, least=8).size == (640, 427)
    for pipeline, interpolation in [("torchvision", "bicubic"), ("paddleclas", "bilinear")]:
        steps = resrt.Preprocessing(
            resize=71,
            interpolation=interpolation,
            mean=[0.0] * 3,
            std=[1 / 255] * 3,
            pipeline=pipeline,
        )
        exact = images.preprocess(path, steps, (3, 62, 62))
        quick = images.preprocess(path, steps, (3, 62, 62), exact=False)
        difference = np.abs(exact - quick)  # in grey levels
        assert difference.mean() <= 2
        assert difference.max() <= 40
        # PaddleClas's resize picks pixels, so it always gets the full size.
        assert (difference.max() == 0) == (pipeline == "paddleclas")


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA"])
def test_other_modes_are_converted_to_rgb(
    engine: resrt.Engine, photograph: Path, mode: str
) -> None:
    image = Image.open(photograph).convert(mode)
    assert prepare(image, engine).shape == (3, 32, 48)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientation_is_applied(photograph: Path, mode: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = photograph.with_name("turned.png")
    Image.open(photograph).convert(mode).save(path, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(path))
    for image in (path, Image.open(path)):
        opened = images.open_image(image, len(mode))
        np.testing.assert_array_equal(np.asarray(opened), np.asarray(expected))


def test_preprocessing_depends_on_the_source() -> None:
    def steps(name: str) -> tuple[int, str, str]:
        steps = resrt.build(name, "random", max_batch=1).info.preprocessing
        return steps.resize, steps.interpolation, steps.pipeline

    assert steps("ResNet18") == (256, "bilinear", "paddleclas")
    assert steps("resnet18") == (235, "bicubic", "torchvision")
    assert steps("resnest14d") == (256, "bilinear", "torchvision")


def test_unknown_pipeline() -> None:
    with pytest.raises(resrt.InputError, match="no preprocessing pipeline named 'timm'; choose"):
        resrt.Preprocessing(
            resize=8, interpolation="bilinear", mean=[0.5], std=[1.0], pipeline="timm"
        )


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((32, 48, 3), np.float32), "uint8 .*pass float batches to infer"),
        (np.zeros((3, 32, 48), np.uint8), r"not uint8 \(3, 32, 48\)"),
        (np.zeros((3, 32, 48), np.uint8), r"put the channels last with .transpose\(1, 2, 0\)"),
        (np.zeros((2, 2, 2, 2, 3), np.uint8), r"pass several images as \(N, H, W, channels\)"),
        (np.zeros((32, 48, 3), np.uint16), "convert it to uint8"),
        (np.zeros((0, 48, 3), np.uint8), r"not uint8 \(0, 48, 3\)"),
        (np.zeros(7, np.uint8), "uint8 of shape"),
        (42, "not int"),
    ],
)
def test_invalid_images(engine, image, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(resrt.InputError, match=message):
        engine.classify([image])


def test_invalid_image_files(engine: resrt.Engine, photograph: Path) -> None:
    with pytest.raises(resrt.FileError, match="No such file"):
        engine.classify("missing.jpg")
    text = photograph.with_name("text.jpg")
    text.write_text("not an image")
    with pytest.raises(
        resrt.InputError, match="text.jpg' is not an image in a supported format; expected one of"
    ):
        engine.classify(text)
    cut = photograph.with_name("cut.png")
    cut.write_bytes(photograph.read_bytes()[:200])
    with pytest.raises(resrt.InputError, match=r"cannot decode the image '.*cut.png'"):
        engine.classify(cut)
    with pytest.raises(resrt.InputError, match="topk must be an integer of at least 1"):
        engine.classify(photograph, topk=0)


def test_paths_that_cannot_be_read(engine: resrt.Engine, photograph: Path) -> None:
    loop, pipe = photograph.with_name("loop.png"), photograph.with_name("pipe.png")
    loop.symlink_to(loop)
    os.mkfifo(pipe)
    for path, reason in [
        ("a" * 300, "File name too long"),
        (photograph / "below.png", "Not a directory"),
        (loop, "Too many levels of symbolic links"),
        (pipe, "not a regular file"),
        (photograph.parent, "Is a directory"),
    ]:
        with pytest.raises(resrt.FileError, match=f"cannot read the image '{path}': {reason}"):
            engine.classify(path)
    with pytest.raises(resrt.InputError, match="cannot decode the image 'a\0b': embedded null"):
        engine.classify("a\0b")


@pytest.mark.parametrize("form", images.FORMATS)
def test_formats_are_recognised_by_content(
    engine: resrt.Engine, photograph: Path, form: str
) -> None:
    image = Image.open(photograph)
    options = {"MPO": {"append_images": [image], "save_all": True}, "WEBP": {"lossless": True}}
    path = photograph.with_name("image.txt")
    image.save(path, form, **options.get(form, {}))
    np.testing.assert_array_equal(prepare(path, engine), prepare(Image.open(path), engine))


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "jpeg"])
def test_compressed_tiff(engine: resrt.Engine, photograph: Path, compression: str | None) -> None:
    path = photograph.with_name("image.tif")
    Image.open(photograph).save(path, compression=compression)
    np.testing.assert_array_equal(prepare(path, engine), prepare(Image.open(path), engine))


@pytest.mark.parametrize("form", ["EPS", "ICO", "PCX", "SGI", "TGA"])
def test_other_formats_are_refused(engine: resrt.Engine, photograph: Path, form: str) -> None:
    """Pillow would start Ghostscript for EPS."""
    path = photograph.with_name("image.jpg")
    Image.open(photograph).save(path, form)
    with pytest.raises(resrt.InputError, match="image.jpg' is not an image in a supported format"):
        engine.classify(path)


def test_unsupported_mode_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "lab.tif"
    Image.new("LAB", (8, 8)).save(path)
    message = "cannot decode the image '.*lab.tif': conversion from LAB to RGB not supported"
    with pytest.raises(resrt.InputError, match=message):
        images.open_image(path, 1)


# Large images


def write_png(path: Path, width: int, height: int, *, channels: int = 3) -> Path:
    """Write a chessboard without having its pixels in memory."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    compressor = zlib.compressobj(1)
    squares = [bytes([value] * 100 * channels) for value in (20, 230)]
    rows = [
        b"\0" + (first + second) * (width // 200 + 1) for first, second in (squares, squares[::-1])
    ]
    content = b"".join(
        compressor.compress(rows[y // 100 % 2][: 1 + width * channels]) for y in range(height)
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", content + compressor.flush())
        + chunk(b"IEND", b"")
    )
    return path


STEPS = {channels: images.imagenet_preprocessing(channels, 256) for channels in (1, 3)}


def write_large(path: Path, form: str, mode: str) -> Path:
    """Write 144 megapixels, with an orientation if the format has one."""
    if form == "PNG" and mode == "RGB":
        return write_png(path, 12000, 12000)
    # In a process of its own, whose memory does not count.
    script = (
        "import sys; from PIL import Image; path, form, mode = sys.argv[1:]\n"
        "left = Image.new(mode, (12000, 12000), 20 if len(mode) == 1 else (20, 230, 20, 99)[:len("
        "mode)])\n"
        "exif = Image.Exif(); exif[0x0112] = 6\n"
        "left.paste(230 if len(mode) == 1 else (230, 20, 230, 0)[:len(mode)], (0, 0, 6000, 9000))\n"
        "left.save(path, form, exif=exif, compress_level=1)\n"
    )
    subprocess.run([sys.executable, "-c", script, path, form, mode], check=True)
    return path


@pytest.mark.parametrize(
    ("form", "mode"),
    [("PNG", "RGB"), ("PNG", "RGBA"), ("JPEG", "RGB"), ("JPEG", "CMYK"), ("BMP", "RGB")],
)
def test_large_images_are_decoded_in_little_memory(tmp_path: Path, form: str, mode: str) -> None:
    """Pillow alone needs 576 MB for these 144 megapixels."""
    path = write_large(tmp_path / "large", form, mode)
    script = (
        "import pathlib, re, sys\n"
        "from resrt import images\n"
        "steps = images.imagenet_preprocessing(3, 256)\n"
        "prepared = images.preprocess(sys.argv[1], steps, (3, 224, 224))\n"
        # The system's ru_maxrss would include the memory of this process, which starts that one.
        "status = pathlib.Path('/proc/self/status').read_text()\n"
        "print(prepared.std(), re.search(r'VmHWM:\\s*(\\d+) kB', status)[1])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, check=True
    )
    deviation, kibibytes = map(float, result.stdout.split())
    assert deviation > 0.1
    assert kibibytes < 2**20
    assert result.stderr == ""


MODES = {
    "PNG": ["RGB", "L", "RGBA", "P", "LA", "I;16"],
    "JPEG": ["RGB", "L", "CMYK"],
    "TIFF": ["RGB", "L", "RGBA", "CMYK", "LA", "I;16", "YCbCr"],
    "WEBP": ["RGB", "RGBA"],
    "BMP": ["RGB", "P"],
    "GIF": ["P"],
}


@pytest.mark.parametrize(("form", "mode"), [(f, mode) for f in MODES for mode in MODES[f]])
@pytest.mark.parametrize("orientation", [1, 6])
def test_large_images_are_decoded_alike(
    photograph: Path, monkeypatch: pytest.MonkeyPatch, form: str, mode: str, orientation: int
) -> None:
    image = Image.open(photograph).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = photograph.with_name("image")
    image.save(path, form, exif=exif)
    for channels in (1, 3):
        expected = images.open_image(path, channels)
        with monkeypatch.context() as patched:
            patched.setattr(images, "_LARGE", 100)
            patched.setattr(images, "_TILE", 7)
            found = images.open_image(path, channels)
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


@pytest.mark.parametrize(
    ("form", "options", "limit"),
    [
        ("JPEG", {"progressive": True}, 500),
        ("WEBP", {}, 333),
        ("TIFF", {"tiffinfo": {0x0112: 6}}, 500),
        ("JPEG", {}, 1000),
        ("TIFF", {}, 1000),
    ],
)
def test_decoders_that_need_more_memory_have_lower_limits(
    form: str, options: dict[str, Any], limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "image"
    monkeypatch.setenv("RESRT_MAX_PIXELS", "1000")
    Image.new("RGB", (limit, 1)).save(path, form, **options)
    images.open_image(path, 3)
    Image.new("RGB", (limit + 1, 1)).save(path, form, **options)
    with pytest.raises(resrt.InputError, match=f"{limit + 1}.* pixels, more than .* {limit}"):
        images.open_image(path, 3)


def test_number_of_pixels_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = write_png(tmp_path / "allowed.png", 15_000, 10_000, channels=1)
    refused = tmp_path / "refused.png"
    # Only the header is read.
    refused.write_bytes(write_png(refused, 15_001, 10_000, channels=1).read_bytes()[:100])
    message = "refused.png' has 15001 x 10000 pixels, more than the limit of 150000000; set RESRT_"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images.preprocess(allowed, STEPS[1], (1, 224, 224))
        with pytest.raises(resrt.InputError, match=message):
            images.preprocess(refused, STEPS[1], (1, 224, 224))
        monkeypatch.setenv("RESRT_MAX_PIXELS", "999")
        small = write_png(tmp_path / "small.png", 10, 100)
        with pytest.raises(resrt.InputError, match="10 x 100 pixels, more than the limit of 999;"):
            images.preprocess(small, STEPS[3], (3, 224, 224))


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP", "PPM"])
def test_limit_of_pillow_does_not_apply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    path = tmp_path / "image"
    Image.new("1", (20_000, 9_500)).save(path, form)  # more than twice Pillow's limit
    monkeypatch.setenv("RESRT_MAX_PIXELS", "2e8")
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images.preprocess(path, STEPS[1], (1, 224, 224))
    assert limit == Image.MAX_IMAGE_PIXELS


def test_limit_of_pillow_does_not_apply_to_webp(
    photograph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow 13 checks it when it reads the header, and an image beyond it takes long to write."""
    Image.open(photograph).save(photograph, "WEBP")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    images.preprocess(photograph, STEPS[3], (3, 224, 224))
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_large_images_are_decoded_one_at_a_time(
    photograph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, most = 0, 0

    def preprocess(*_: object) -> np.ndarray:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.01)
        running -= 1
        return np.zeros(1)

    monkeypatch.setattr(images._core, "preprocess", preprocess)
    for large, is_alone in [(100, True), (10**6, False)]:
        monkeypatch.setattr(images, "_LARGE", large)
        most = 0
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: images.preprocess(photograph, STEPS[3], (3, 8, 8)), range(40)))
        assert (most == 1) == is_alone


def test_other_numbers_of_channels() -> None:
    config = resrt.ResNet(depths=[1], width=8)
    grey = resrt.build(config, "random", input_size=16, in_channels=1, classes=3)
    (row,) = grey.classify(np.zeros((20, 30, 3), np.uint8), topk=1)
    assert row[0].label == str(row[0].index)
    multispectral = resrt.build(config, "random", input_size=16, in_channels=4, classes=3)
    assert multispectral.infer(np.zeros((1, 4, 16, 16), np.float32)).shape == (1, 3)
    with pytest.raises(resrt.InputError, match="4 input channels cannot classify photographs"):
        multispectral.classify(np.zeros((20, 30, 3), np.uint8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"interpolation": "cubic"}, "no interpolation named 'cubic'; choose one of bilinear"),
        ({"pipeline": "paddleclas"}, "supports only bilinear interpolation, not bicubic"),
        ({"std": [0.5, 0, 0.5]}, "std must be positive"),
        ({"std": [0.5, np.nan, 0.5]}, "std must be positive"),
        ({"std": [0.5, np.inf, 0.5]}, "std must be finite"),
        ({"std": [0.5, 1e-40, 0.5]}, "give finite values"),
        ({"mean": [np.inf, 0.5, 0.5]}, r"mean and std must be finite .*, not \(inf, 0.5, 0.5\)"),
        ({"mean": [0.5, 0.5, -np.inf]}, "mean and std must be finite"),
        ({"mean": [0.5, np.nan, 0.5]}, "mean and std must be finite"),
        ({"mean": [0.5]}, "for each of 3 channels"),
        ({"resize": 0}, "at least 1 pixel"),
    ],
)
def test_invalid_preprocessing(small_graph, change, message) -> None:  # type: ignore[no-untyped-def]
    steps = {"resize": 32, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3}
    with pytest.raises(resrt.InputError, match=message):
        resrt.build(small_graph, "random", preprocessing=resrt.Preprocessing(**{**steps, **change}))


def test_16_bit_grey_is_scaled(engine: resrt.Engine) -> None:
    ramp = np.linspace(0, 65535, 32 * 48).reshape(32, 48).astype(np.uint16)
    deep, shallow = Image.fromarray(ramp), Image.fromarray((ramp // 257).astype(np.uint8))
    np.testing.assert_array_equal(prepare(deep, engine), prepare(shallow, engine))


def test_extreme_and_damaged_images(engine: resrt.Engine, photograph: Path) -> None:
    assert len(engine.classify(Image.new("RGB", (60000, 1)))) == 1
    assert len(engine.classify(Image.new("RGB", (1, 60000)))) == 1
    with pytest.raises(resrt.InputError, match="uint8 of shape"):
        engine.classify(np.zeros((0, 5, 3), np.uint8))
    assert len(engine.classify(Image.new("RGB", (1, 1)))) == 1
    content = photograph.read_bytes()
    for position in range(0, len(content), 7):
        broken = photograph.with_name("broken.png")
        broken.write_bytes(content[:position] + b"\xa5" + content[position + 1 :])
        # Either Pillow decodes it anyway, or an error of resrt is raised.
        with contextlib.suppress(resrt.InputError, resrt.FileError):
            engine.classify(broken, topk=1)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_of_an_unknown_range_are_refused(dtype: type, tmp_path: Path) -> None:
    """Pillow would make them black, also those that are NaN."""
    Image.fromarray(np.full((8, 9), 0.5, dtype)).save(tmp_path / "x.tif")
    with pytest.raises(resrt.InputError, match=r"x\.tif' has pixels of .*, whose range is unknown"):
        images.open_image(tmp_path / "x.tif", 3)
    if dtype is np.float32:
        with pytest.raises(resrt.InputError, match="the image has pixels of floating-point numb"):
            images.open_image(Image.fromarray(np.full((8, 9), np.nan, dtype)), 3)


def test_large_tiles_and_long_sides_are_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.tif"
    size, tile = (64, 48), 256
    tags = {256: size[0], 257: size[1], 258: 8, 259: 1, 262: 1, 277: 1, 322: tile, 323: tile}
    tags |= {324: 8, 325: tile * tile}  # the place and the size of the tile
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + tile * tile) + bytes(tile * tile) + directory)
    assert images.open_image(path, 1).size == size
    monkeypatch.setenv("RESRT_MAX_PIXELS", "10000")
    with pytest.raises(resrt.InputError, match="of 64 x 48 pixels has tiles of 65536 pixels, more"):
        images.open_image(path, 1)
    monkeypatch.setattr(images, "_LONGEST_SIDE", 63)
    with pytest.raises(resrt.InputError, match="its sides may have at most 63"):
        images.open_image(path, 1)


def test_a_lock_of_the_parent_does_not_stop_a_child() -> None:
    """A thread may decode a large image when its process forks."""
    script = (
        "import os\n"
        "from resrt import images\n"
        "images._large_image.acquire()\n"
        "child = os.fork()\n"
        "if child == 0: os._exit(0 if images._large_image.acquire(timeout=5) else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("is_progressive", [True, False])
def test_a_jpeg_of_too_many_scans_is_refused(
    tmp_path: Path, photograph: Path, is_progressive: bool
) -> None:
    """Each scan of some bytes takes the time of decoding the whole image."""
    buffer = io.BytesIO()
    Image.open(photograph).save(buffer, "JPEG", progressive=is_progressive)
    content = buffer.getvalue()
    last = content.rindex(b"\xff\xda")
    if not is_progressive:  # a sequential file may have a scan for each component
        assert content[last : last + 5] == b"\xff\xda\x00\x0c\x03"
        scan = b"\xff\xda\x00\x08\x01" + content[last + 5 : last + 7] + content[last + 11 : -2]
        content = content[:last] + scan + content[-2:]
    for repeats, is_accepted in ((50, True), (300, False)):
        path = tmp_path / f"{repeats}.jpg"
        path.write_bytes(content[:last] + content[last:-2] * repeats + content[-2:])
        if is_accepted:
            assert images.open_image(path, 3).size == Image.open(photograph).size
        else:
            with pytest.raises(resrt.InputError, match="scans, more than the limit of 200"):
                images.open_image(path, 3)


def test_a_jpeg_with_one_scan_is_not_read_twice(
    photograph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counting scans reads the whole file, which takes a share of the time that decoding does."""
    counted = []
    monkeypatch.setattr(images, "_check_scans", lambda *_: counted.append(1))
    for mode in ("RGB", "L", "CMYK"):
        buffer = io.BytesIO()
        Image.open(photograph).convert(mode).save(buffer, "JPEG")
        images.open_image(buffer.getvalue(), 3)
    assert not counted
    buffer = io.BytesIO()
    Image.open(photograph).save(buffer, "JPEG", progressive=True)
    images.open_image(buffer.getvalue(), 3)
    assert counted


def test_a_tiff_that_is_cut_does_not_end_the_process(tmp_path: Path, photograph: Path) -> None:
    """libtiff would map the file, of which another process may cut off the end."""
    path = tmp_path / "a.tif"
    Image.open(photograph).resize((2000, 1500)).save(path, compression="tiff_lzw")
    script = (
        "import mmap, sys\n"
        "from resrt import images\n"
        "size = images.open_image(sys.argv[1], 3).size\n"
        "print(size, sys.argv[1] in open('/proc/self/maps').read())\n"
    )
    mapped = (
        "from PIL import TiffImagePlugin as t\n"
        "load = t.TiffImageFile._load_libtiff\n"
        "def check(self):\n"
        "    assert not hasattr(self.fp, 'name'), 'libtiff gets the file itself'\n"
        "    return load(self)\n"
        "t.TiffImageFile._load_libtiff = check\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", mapped + script, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "(2000, 1500) False\n"


def test_a_tiff_that_is_larger_than_its_pixels_is_refused(
    tmp_path: Path, photograph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tif"
    Image.open(photograph).resize((64, 64)).save(path, compression="tiff_lzw")
    monkeypatch.setenv("RESRT_MAX_PIXELS", "5000")
    assert images.open_image(path, 3).size == (64, 64)
    with path.open("r+b") as file:
        file.truncate(40001)
    with pytest.raises(resrt.InputError, match="the limit for a compressed TIFF"):
        images.open_image(path, 3)
