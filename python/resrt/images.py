"""Decoding, resizing, cropping and normalising of images."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import os
import stat
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from resrt import _core
from resrt._support.environment import max_pixels
from resrt.errors import Error, FileError, InputError

ImageLike: TypeAlias = (
    str
    | PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | BinaryIO
    | Image.Image
    | npt.NDArray[np.uint8]
)
"""A path, the content of an image file as bytes or an open file, a Pillow image, or pixels.

Pixels are uint8, (H, W) or (H, W, 1) for grey, (H, W, 3) for RGB, and (H, W, 2) or (H, W, 4) with
an alpha channel, which is ignored. Array types of other libraries, such as PyTorch's on the CPU,
are accepted too.
"""

# What the last axis of an array of pixels may have: grey, grey and alpha, RGB, RGB and alpha.
_CHANNELS = (1, 2, 3, 4)

# The formats of image files, by Pillow's names. For EPS, for example, it would start Ghostscript.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

# The modes of Pillow with four bytes for each pixel. Large files in these are decoded in place.
_WIDE = ("RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "LA", "I")

# Files with more pixels, or if they are copied into memory, bytes, are decoded one at a time,
# whatever the number of threads.
_LARGE = 50_000_000
_large_image = threading.Lock()
# A thread that holds the lock does not exist in a child process.
os.register_at_fork(after_in_child=_large_image._at_fork_reinit)  # type: ignore[attr-defined]

# The longest side, in pixels. Pillow has a pointer for each row.
_LONGEST_SIDE = 1_000_000

# Encoders write about 10 scans of a progressive JPEG, and at most 4 of others. Those of the
# previews in a file count too.
_START_OF_SCAN = b"\xff\xda"
_MOST_SCANS = 200

# Images are converted in squares with sides of this many pixels.
_TILE = 2048

# What makes pixels (H, W) upright, for each orientation in EXIF data.
_TURNS: dict[int, Callable[[npt.NDArray[Any]], npt.NDArray[Any]]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.T,
    6: lambda pixels: pixels[::-1].T,
    7: lambda pixels: pixels[::-1, ::-1].T,
    8: lambda pixels: pixels[:, ::-1].T,
}

# A JPEG decoded at reduced size keeps at least this many times the pixels per side that it is
# resized to. On photographs full of detail, that changed grey levels by 2 on average.
_MIN_OVERSAMPLING = 3

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Prediction:
    """A predicted class of an image.

    `index` is the number of the class and `label` its name, or the number as text if the engine
    has no labels. `probability` is the softmax over all classes, or the sigmoid with `multilabel`.
    """

    index: int
    label: str
    probability: float


def imagenet_preprocessing(
    in_channels: int, resize: int | tuple[int, int], pipeline: str = "torchvision"
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
    with _decoding(image, channels, least) as pixels:
        return Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels)


def require_photographs(channels: int) -> None:
    """Raise InputError if images with this number of channels cannot be photographs."""
    if channels not in (1, 3):
        raise InputError(
            f"an engine with {channels} input channels cannot classify photographs, which have 1 "
            "or 3; preprocess the images yourself and call infer"
        )


@contextlib.contextmanager
def _decoding(
    image: ImageLike, channels: int, least: int | None
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield upright pixels (H, W, channels). Only one large file is held in memory at a time."""
    require_photographs(channels)
    mode = "L" if channels == 1 else "RGB"
    with contextlib.ExitStack() as turn:
        if isinstance(image, (str, PathLike)):
            yield _from_path(fspath(image), mode, least, turn)
            return
        if isinstance(image, (bytes, bytearray, memoryview)):
            name = f"<{memoryview(image).nbytes} bytes>"
            yield _from_file(io.BytesIO(image), name, mode, least, turn)
            return
        if not isinstance(image, Image.Image) and hasattr(image, "read"):
            name = f"<{type(image).__name__}>"
            yield _from_file(_seekable(image, name), name, mode, least, turn)
            return
    given = image if isinstance(image, Image.Image) else _from_array(image)
    _check_numbers(given, "")
    try:
        pixels = _upright(_convert(given, mode), _orientation(given))
    except Exception as error:
        # Pillow decodes an image when it is first used, and cannot convert every mode to RGB.
        raise InputError(f"cannot decode or convert the image: {error}") from None
    yield pixels


def separate(images: ImageLike | Sequence[ImageLike]) -> Sequence[ImageLike]:
    """Return the images of a sequence, of a batch of pixels (N, H, W, channels), or just one."""
    if isinstance(images, Sequence) and not isinstance(images, (str, bytes, bytearray, memoryview)):
        return images
    if _is_array(images) and (pixels := _as_numpy(images)).ndim == 4:
        return list(pixels)
    return [cast(ImageLike, images)]


def _is_array(image: object) -> bool:
    return hasattr(image, "__array__") and not isinstance(image, Image.Image)


def _as_numpy(image: object) -> npt.NDArray[Any]:
    try:
        return np.asarray(image)
    except (RuntimeError, TypeError, ValueError) as error:  # such as a tensor in a GPU's memory
        raise InputError(f"cannot read the pixels of a {type(image).__name__}: {error}") from None


def _from_array(image: object) -> Image.Image:
    if not _is_array(image):
        raise InputError(
            "an image must be a path, bytes, an open file, a Pillow image or an array, not "
            f"{type(image).__name__}"
        )
    pixels = _as_numpy(image)
    is_image = pixels.ndim in (2, 3) and pixels.shape[2:] in ((), *((n,) for n in _CHANNELS))
    if pixels.dtype != np.uint8 or not is_image or pixels.size == 0:
        raise InputError(
            "an image array must be uint8 of shape (H, W) or (H, W, channels) with 1 to 4 "
            f"channels, not {pixels.dtype} {pixels.shape}; {_advice(pixels)}"
        )
    return Image.fromarray(pixels.squeeze(2) if pixels.shape[2:] == (1,) else pixels)


def _advice(pixels: npt.NDArray[Any]) -> str:
    if np.issubdtype(pixels.dtype, np.floating):
        return "pass float batches to infer"
    if pixels.dtype != np.uint8:
        return "convert it to uint8"
    if pixels.ndim == 3 and pixels.shape[0] in _CHANNELS:
        return "put the channels last with .transpose(1, 2, 0)"
    return "pass several images as (N, H, W, channels) or as a list"


def _seekable(file: Any, name: str) -> BinaryIO:
    """Return a file, or the content of one that cannot seek, such as a response over HTTP."""
    try:
        # Before Python 3.11, a SpooledTemporaryFile, which can seek, does not say so.
        can_seek = file.seekable() if hasattr(file, "seekable") else hasattr(file, "seek")
        content = file.read(0 if can_seek else -1)
    except (OSError, ValueError) as error:  # ValueError is that of a closed file
        raise InputError(f"cannot read the image {name}: {error}") from None
    if not isinstance(content, bytes):
        raise InputError(
            f"cannot read the image {name}: its read() returns {type(content).__name__}, not "
            "bytes; open a file with 'rb', or pass the bytes themselves"
        )
    return cast(BinaryIO, file) if can_seek else io.BytesIO(content)


def _from_path(
    path: str, mode: str, least: int | None, turn: contextlib.ExitStack
) -> npt.NDArray[np.uint8]:
    """Return the upright pixels of the file with this path; see `_from_file`."""
    try:
        kind = Path(path).stat().st_mode
        # A pipe would wait for a writer. Opening a folder fails with the reason.
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            raise FileError(f"cannot read the image '{path}': not a regular file")
        with Path(path).open("rb") as file:
            return _from_file(file, f"'{path}'", mode, least, turn)
    except Error:
        raise
    except OSError as error:
        raise FileError(f"cannot read the image '{path}': {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"cannot decode the image '{path}': {error}") from None


def _from_file(
    file: BinaryIO, name: str, mode: str, least: int | None, turn: contextlib.ExitStack
) -> npt.NDArray[np.uint8]:
    """Return the upright pixels of a file. `turn` ends when those of a large one are released."""
    try:
        try:
            opened = _identify(file, name)
        except Image.DecompressionBombError:  # from WebP's plugin
            with _turn():
                opened = _identify(file, name)
        if least is not None:
            _reduce(opened, least)
        decode = _convert
        is_large = math.prod(opened.size) > _LARGE
        is_mapped = getattr(opened, "use_load_libtiff", False) and not isinstance(file, io.BytesIO)
        if is_large or (is_mapped and file.seek(0, os.SEEK_END) > _LARGE):
            turn.enter_context(_turn())
        if is_mapped:
            opened = _identify(_copied(file, name), name)
        if is_large and opened.mode in _WIDE and not _turns_itself(opened):
            decode = _decode_in_place
        pixels = decode(opened, mode)
        orientation = _orientation(opened)
        del opened  # frees Pillow's memory
        return _upright(pixels, orientation)
    except Error:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.strerror is not None:
            raise FileError(f"cannot read the image {name}: {error.strerror}") from None
        # Pillow raises many kinds of exceptions for damaged files and unsupported modes.
        raise InputError(f"cannot decode the image {name}: {error}") from None


def _copied(file: BinaryIO, name: str) -> BinaryIO:
    """Return a file's content in memory.

    libtiff, which decodes compressed TIFFs, would map the file. Another process that cut it
    meanwhile would end this one. Raises InputError for a file that is larger than its pixels can
    be.
    """
    longest = int(min(8 * max_pixels(), 1 << 40))
    file.seek(0)
    content = file.read(longest + 1)
    if len(content) > longest:
        raise InputError(
            f"the image {name} has more than {longest >> 20} MiB, the limit for a compressed TIFF; "
            "set RESRT_MAX_PIXELS to a higher limit to read it"
        )
    return io.BytesIO(content)


def _identify(file: BinaryIO, name: str) -> ImageFile.ImageFile:
    """Read an image's header, as `Image.open` does, but with our own limits.

    Raises InputError for other formats than FORMATS, and for more than `max_pixels` pixels.
    """
    Image.init()
    file.seek(0)
    prefix = file.read(16)
    for factory, accepts in (Image.OPEN[name] for name in FORMATS if name in Image.OPEN):
        try:
            # A text is the reason why this build of Pillow cannot read the format.
            if accepts is not None and accepts(prefix) is not True:
                continue
            file.seek(0)
            # Without a file name, Pillow does not map the file, which might be truncated meanwhile.
            opened = factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue  # it is of another format
        has_one_scan = _has_one_scan(opened, file)
        _check_numbers(opened, name)
        width, height = opened.size
        if max(width, height) > _LONGEST_SIDE:
            raise InputError(
                f"the image {name} has {width} x {height} pixels; its sides may have at most "
                f"{_LONGEST_SIDE}"
            )
        if not has_one_scan:
            _check_scans(file, name)
        copies, kind = _copies(opened)
        limit = max_pixels() / copies
        if width * height > limit:
            raise InputError(
                f"the image {name} has {width} x {height} pixels, more than the limit of "
                f"{limit:.0f}{kind}; set RESRT_MAX_PIXELS to a higher limit to read it"
            )
        if (tile := _tile_pixels(opened)) > limit:
            raise InputError(
                f"the image {name} of {width} x {height} pixels has tiles of {tile} pixels, more "
                f"than the limit of {limit:.0f}{kind}"
            )
        return opened
    raise InputError(
        f"{name} is not an image in a supported format; expected one of {', '.join(FORMATS)}"
    )


def _check_numbers(opened: Image.Image, name: str) -> None:
    """Raise InputError for pixels in a unit that is unknown, which would all become black."""
    is_wide_integer = opened.mode == "I" and opened.format == "TIFF"
    if opened.mode == "F" or is_wide_integer:
        what = "32-bit integers" if is_wide_integer else "floating-point numbers"
        raise InputError(
            f"the image {f'{name} ' if name else ''}has pixels of {what}, whose range is unknown; "
            "convert it to 8 or 16 bits"
        )


def _tile_pixels(opened: ImageFile.ImageFile) -> int:
    """Return the pixels of a tile of a TIFF, which is decoded as a whole; 0 without tiles."""
    if opened.format != "TIFF":
        return 0
    sides = [getattr(opened, "tag_v2", {}).get(tag, 0) for tag in (322, 323)]
    return math.prod(side if isinstance(side, int) else 0 for side in sides)


def _has_one_scan(opened: ImageFile.ImageFile, file: BinaryIO) -> bool:
    """Return whether an image has a single scan; False for a JPEG of which that is not known.

    The file is where Pillow has left it, after the header of the first scan.
    """
    if opened.format not in ("JPEG", "MPO"):
        return True
    if opened.info.get("progressive"):
        return False
    components = getattr(opened, "layers", 0)
    length = 6 + 2 * components
    header = _START_OF_SCAN + length.to_bytes(2, "big") + bytes([components])
    end = file.tell()
    file.seek(max(0, end - 2 - length))
    found = file.read(len(header))
    file.seek(end)
    return found == header


def _check_scans(file: BinaryIO, name: str) -> None:
    """Raise InputError for a JPEG with more scans than any encoder writes.

    Each is decoded for the whole image, and may take a few bytes.
    """
    file.seek(0)
    scans, last = 0, b""
    while chunk := file.read(1 << 20):
        scans += (last + chunk).count(_START_OF_SCAN)
        last = chunk[-1:]
    if scans > _MOST_SCANS:
        raise InputError(
            f"the image {name} has {scans} scans, more than the limit of {_MOST_SCANS}; save it "
            "again"
        )


def _copies(opened: ImageFile.ImageFile) -> tuple[int, str]:
    """Return how many times the memory a decoder needs, and of what, for the limit of pixels."""
    if opened.format == "WEBP":
        return 3, " for WebP, which is a third of the usual one"
    if opened.info.get("progressive"):
        return 2, " for a progressive JPEG, which is a half of the usual one"
    if _turns_itself(opened):
        return 2, " for a TIFF that has to be turned, which is a half of the usual one"
    return 1, ""


def _turns_itself(opened: ImageFile.ImageFile) -> bool:
    """Return whether Pillow turns the image into its orientation when it decodes it."""
    return opened.format == "TIFF" and _orientation(opened) != 1


@contextlib.contextmanager
def _turn() -> Iterator[None]:
    """Wait until no other thread holds a large image, and lift Pillow's own limit until the end."""
    with _large_image:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _reduce(opened: Image.Image, least: int) -> None:
    """Decode a JPEG at an eighth, a quarter or a half of its size if `least` pixels remain.

    The sides must be multiples, because rounding them would move the crop.
    """
    width, height = opened.size
    for scale in (8, 4, 2):
        if width % scale == height % scale == 0 and min(opened.size) >= scale * least:
            opened.draft(None, (width // scale, height // scale))
            return


def _decode_in_place(opened: Image.Image, mode: str) -> npt.NDArray[np.uint8]:
    """Decode into an array and convert it there: Pillow's copy and another would be too large."""
    width, height = opened.size
    memory = np.zeros(height * width * 4, np.uint8)
    wide = memory.reshape(height, width, 4)
    decoded = Image.core.map_buffer(  # type: ignore[attr-defined]
        wide, opened.size, "raw", 0, (opened.mode, 0, 1)
    )
    opened.im = decoded
    opened.load()
    if opened.im is not decoded:
        return _convert(opened, mode)
    size = height * width * len(mode)
    pixels = memory[:size].reshape(height, width, len(mode))
    rows = _TILE**2 // width + 1
    for top in range(0, height, rows):
        if opened.mode == mode == "RGB":
            pixels[top : top + rows] = wide[top : top + rows, :, :3]
        else:
            part = opened.crop((0, top, width, min(top + rows, height)))
            pixels[top : top + rows] = _converted(part, mode)
    del wide, pixels, decoded
    opened.im = Image.new(opened.mode, (0, 0)).im  # only its metadata are still read
    memory.resize(size, refcheck=False)  # nothing refers to it any more
    return memory.reshape(height, width, len(mode))


def _convert(opened: Image.Image, mode: str) -> npt.NDArray[np.uint8]:
    """Return the pixels (H, W, channels), converted in tiles to need little more memory."""
    opened.load()
    width, height = opened.size
    if max(width, height) <= _TILE:
        return _converted(opened, mode)
    pixels = np.empty((height, width, len(mode)), np.uint8)
    for top, left in itertools.product(range(0, height, _TILE), range(0, width, _TILE)):
        right, bottom = min(left + _TILE, width), min(top + _TILE, height)
        part = opened.crop((left, top, right, bottom))
        pixels[top:bottom, left:right] = _converted(part, mode)
    return pixels


def _converted(image: Image.Image, mode: str) -> npt.NDArray[np.uint8]:
    if image.mode.startswith("I"):
        # Pillow's conversion of 16-bit grey would clip at 255.
        grey = np.asarray(image).clip(0, 65535) // 257
        image = Image.fromarray(grey.astype(np.uint8))
    converted = image if image.mode == mode else image.convert(mode)
    return np.asarray(converted).reshape(image.height, image.width, len(mode))


def _orientation(image: Image.Image) -> int:
    """Return the orientation that the EXIF data give, from 1, which is upright, to 8."""
    orientation: int = image.getexif().get(0x0112, 1)
    return orientation


def _upright(pixels: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    turn = _TURNS.get(orientation)
    if turn is None:
        return pixels
    # NumPy copies elements of three bytes faster than three elements.
    elements = pixels.view(f"V{pixels.shape[2]}")[..., 0]
    turned = np.ascontiguousarray(turn(elements))
    return turned.view(np.uint8).reshape(*turned.shape, pixels.shape[2])


def preprocess(
    image: ImageLike,
    steps: _core.Preprocessing,
    input_shape: tuple[int, int, int],
    *,
    exact: bool = True,
) -> npt.NDArray[np.float32]:
    """Return float32 (channels, height, width), preprocessed as by the source of the weights.

    Args:
        image: a path, the bytes of a file, an open file, a Pillow image or pixels.
        steps: the `info.preprocessing` of an engine.
        input_shape: (channels, height, width) of the engine's input.
        exact: False allows decoding a large JPEG at a half, a quarter or an eighth of its size if
            that hardly changes the result.

    Raises FileError if a path cannot be read, InputError for an invalid image.
    """
    channels, height, width = input_shape
    # OpenCV's resize picks pixels instead of averaging, so a reduction would always show.
    may_reduce = not exact and steps.pipeline == "torchvision"
    resized = steps.resize if isinstance(steps.resize, tuple) else (steps.resize,)
    least = max(*resized, height, width) * _MIN_OVERSAMPLING if may_reduce else None
    with _decoding(image, channels, least) as pixels:
        return _core.preprocess(pixels, steps, input_shape)


def preprocess_batch(
    images: Iterable[ImageLike],
    steps: _core.Preprocessing,
    input_shape: tuple[int, int, int],
    *,
    exact: bool = True,
) -> npt.NDArray[np.float32]:
    """Return float32 (N, channels, height, width); see `preprocess`."""
    prepared = []
    for number, image in enumerate(images):
        try:
            prepared.append(preprocess(image, steps, input_shape, exact=exact))
        except InputError as error:
            if isinstance(image, (str, PathLike)):  # the message names it
                raise
            raise InputError(f"image {number} of the batch: {error}") from None
    return np.stack(prepared) if prepared else np.empty((0, *input_shape), np.float32)


def top_k(
    logits: npt.NDArray[np.float32],
    k: int,
    labels: Sequence[str],
    *,
    multilabel: bool = False,
    threshold: float | None = None,
) -> list[list[Prediction]]:
    """Return the k most probable classes of each row, the most probable first.

    Probabilities are a softmax over the classes, or with `multilabel` the sigmoid of each logit.
    Those below the threshold are omitted. The softmax of a row with a logit that is NaN or infinity
    is NaN.
    """
    probabilities = sigmoid(logits) if multilabel else _softmax(logits)
    # Stable, so that equal logits, and NaNs at the end, are in the order of their classes.
    order = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    return [
        [
            Prediction(int(i), labels[i] if labels else str(i), float(row[i]))
            for i in best
            if threshold is None or row[i] >= threshold
        ]
        for row, best in zip(probabilities, order, strict=True)
    ]


def sigmoid(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the probability of each class of its own, for heads of several labels."""
    with np.errstate(over="ignore"):  # of a logit that is far below 0, whose sigmoid is 0
        probabilities: npt.NDArray[np.float64] = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return probabilities


def _softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # infinity minus itself
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True, initial=-np.inf)
    exponentials = np.exp(shifted)
    probabilities: npt.NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities
