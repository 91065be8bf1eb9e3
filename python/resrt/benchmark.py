"""`resrt.time`: how long an engine takes on this machine, and what its user waits for beside."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from time import perf_counter
from typing import Any

import numpy as np
from PIL import Image

from resrt import images, machine, models, timing
from resrt._arguments import seconds, whole
from resrt.engine import Engine, load
from resrt.errors import InputError, ModelError

# Of the photograph that is preprocessed: about a megapixel.
_WIDTH, _HEIGHT = 1152, 864


@dataclass(frozen=True)
class Settings:
    """What a measurement was asked to be; see `resrt.time`."""

    repeats: int
    duration: float
    warm_up: int
    threads: int | None
    concurrency: int


@dataclass(frozen=True)
class Benchmark:
    """What `resrt.time` found.

    `load_ms` is from the engine's file to an engine that is warm, `first_ms` its first inference
    then, of one image; both are None where the engine had been loaded before. `preprocessing` is
    one JPEG photograph of about a megapixel, from its bytes to the network's input, on one thread;
    None where the engine takes no photographs. `published` are PaddleClas's latencies of the same
    network at this input size: milliseconds per batch by columns such as "v100_fp32_bs1".
    """

    model: str
    backend: str
    backend_version: str
    precision: str
    input_shape: tuple[int, int, int]
    max_batch: int
    settings: Settings
    load_ms: float | None
    first_ms: float | None
    preprocessing: timing.Timing | None
    timings: list[timing.Timing]
    published: dict[str, float]
    machine: machine.Machine

    def document(self) -> dict[str, Any]:
        """Return everything as what JSON can hold, with the throughputs."""
        document = dataclasses.asdict(self)
        for found, listed in zip(self.timings, document["timings"], strict=True):
            listed["images_per_second"] = found.images_per_second
        return document


def time(
    engine: Engine | str | PathLike[str],
    *,
    batch_sizes: Sequence[int] = (1, 4, 8),
    repeats: int = 30,
    duration: float = 1.0,
    warm_up: int = 3,
    threads: int | None = None,
    device: str | None = None,
    concurrency: int = 1,
    progress: Callable[[str], None] | None = None,
) -> Benchmark:
    """Measure how long an engine takes to load, to preprocess a photograph, and to infer.

    Args:
        engine: the path of an engine file, or an engine.
        batch_sizes: images per inference, each measured by itself.
        repeats: timed inferences per batch size, at least.
        duration: seconds of them per batch size, at least.
        warm_up: untimed inferences before, by each caller.
        threads: processor threads per inference; None: one for each core. Only for a path.
        device: the GPU, for an engine that runs on one: "cuda:1"; None: the first. Only for a path.
        concurrency: callers at once. Where inferences have fewer threads than there are cores,
            several run at once; otherwise the callers take turns, and latencies count the wait.
        progress: called with what is about to be measured.

    Raises what `resrt.load` raises, and InputError for settings that cannot be.
    """
    settings = Settings(
        repeats=whole("repeats", repeats),
        duration=seconds("duration", duration),
        warm_up=whole("warm_up", warm_up, least=0),
        threads=threads,
        concurrency=whole("concurrency", concurrency),
    )
    batch_sizes = [whole("a batch size", size) for size in batch_sizes]
    tell = progress or (lambda _: None)
    tell("load")
    loaded, load_ms, first_ms = _loaded(engine, threads, device)
    tell("preprocessing")
    preprocessing = _time_preprocessing(loaded, settings)
    timings = []
    for size in batch_sizes:
        tell(f"batch {size}")
        timings += loaded.time(
            [size],
            repeats=settings.repeats,
            duration=settings.duration,
            warm_up=settings.warm_up,
            concurrency=settings.concurrency,
        )
    info = loaded.info
    return Benchmark(
        model=info.model,
        backend=info.backend,
        backend_version=info.backend_version,
        precision=info.precision,
        input_shape=info.input_shape,
        max_batch=info.max_batch,
        settings=settings,
        load_ms=load_ms,
        first_ms=first_ms,
        preprocessing=preprocessing,
        timings=timings,
        published=_published(info.model, info.input_shape),
        machine=machine.describe(),
    )


def _loaded(
    engine: Engine | str | PathLike[str], threads: int | None, device: str | None
) -> tuple[Engine, float | None, float | None]:
    """Return the engine, and the milliseconds of its loading and first inference."""
    if isinstance(engine, Engine):
        if threads is not None or device is not None:
            raise InputError(
                "an engine has its threads and its device from when it was loaded; give them to "
                "resrt.load"
            )
        return engine, None, None
    start = perf_counter()
    loaded = load(engine, threads=threads, device=device)
    is_loaded = perf_counter()
    batch = np.zeros((1, *loaded.info.input_shape), np.float32)
    begun = perf_counter()
    loaded.infer(batch)
    return loaded, 1000 * (is_loaded - start), 1000 * (perf_counter() - begun)


def _time_preprocessing(engine: Engine, settings: Settings) -> timing.Timing | None:
    info = engine.info
    if info.input_shape[0] not in (1, 3) or not info.preprocessing.mean:
        return None  # it takes no photographs
    jpeg = _photo()
    return timing.measure(
        lambda: images.preprocess(
            Image.open(io.BytesIO(jpeg)), info.preprocessing, info.input_shape
        ),
        batch=1,
        repeats=settings.repeats,
        warm_up=settings.warm_up,
    )


def _photo() -> bytes:
    """Return a JPEG file that is as much work to decode as a photograph.

    It has detail of every size, as photographs have, so that it takes a third of a byte per pixel.
    """
    rng = np.random.default_rng(0)
    detail = np.zeros((_HEIGHT, _WIDTH, 3))
    for octave in range(9):
        shape = (3 * 2**octave, 4 * 2**octave, 3)
        noise = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
        smooth = noise.resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC)
        detail += (np.asarray(smooth) - 127.5) / 1.2**octave
    pixels = (127.5 + 50 * detail / detail.std()).clip(0, 255).astype(np.uint8)
    jpeg = io.BytesIO()
    Image.fromarray(pixels).save(jpeg, "JPEG", quality=90)
    return jpeg.getvalue()


def _published(model: str, input_shape: tuple[int, int, int]) -> dict[str, float]:
    try:
        published = models.model_info(model).published
    except ModelError:  # a network of somebody's own
        return {}
    if published is None or input_shape != (3, published.crop, published.crop):
        return {}
    return published.latency_ms
