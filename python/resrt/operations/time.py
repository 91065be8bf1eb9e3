"""`resrt.time`: how long an engine takes to load, to preprocess a photograph, and to infer."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from PIL import Image

from resrt import images
from resrt._core import EngineInfo
from resrt._support.arguments import seconds, whole
from resrt._support.files import writing_whole
from resrt.catalog.models import published_for
from resrt.engine.engine import Engine, load
from resrt.engine.profile import Profile
from resrt.errors import InputError
from resrt.measuring import timing
from resrt.system import machine

# The size of the photograph that is preprocessed: about a megapixel.
_WIDTH, _HEIGHT = 1152, 864

# The fields of EngineInfo that a Benchmark has, too.
_OF_ENGINE = ("model", "backend", "backend_version", "precision", "input_shape", "max_batch")


@dataclass(frozen=True)
class Settings:
    """The settings of a measurement; see `resrt.time`. Raises InputError for invalid ones."""

    repeats: int
    duration: float
    warm_up: int
    threads: int | None
    concurrency: int
    compile_for: Sequence[int] = ()

    def __post_init__(self) -> None:
        whole("repeats", self.repeats)
        seconds("duration", self.duration)
        whole("warm_up", self.warm_up, least=0)
        whole("concurrency", self.concurrency)


@dataclass(frozen=True)
class Benchmark:
    """The result of `resrt.time`.

    Attributes:
        load_ms: from the engine file to a warm engine; None if the engine was already loaded.
        first_ms: the first inference after that, of one image; None likewise.
        preprocessing: from the bytes of a JPEG photograph of about a megapixel to the network's
            input, on one thread; None if the engine cannot classify photographs.
        published: PaddleClas's latencies of the same network at this input size, in milliseconds
            per batch by column, such as "v100_fp32_bs1".
        load: the average number of runnable processes in the minute before. On a machine that is
            busy otherwise, the figures mean little.
        profile: the time of each layer; None if it was not asked for.
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
    load: float
    profile: Profile | None = None

    @property
    def busy(self) -> str | None:
        """A remark, if the machine was busy otherwise."""
        return machine.busy(self.load, self.machine.cores)

    def document(self) -> dict[str, Any]:
        """Return everything, including the throughputs, as a document for JSON."""
        document = dataclasses.asdict(self)
        for found, listed in zip(self.timings, document["timings"], strict=True):
            listed["images_per_second"] = found.images_per_second
        if self.profile is not None:
            document["profile"] = self.profile.document()
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
    compile_for: Sequence[int] = (),
    concurrency: int = 1,
    profile: bool = False,
    output: str | PathLike[str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Benchmark:
    """Measure how long an engine takes to load, to preprocess a photograph, and to infer.

    Args:
        engine: an engine, or the path of an engine file.
        batch_sizes: images per inference, each measured separately.
        repeats: minimum number of timed inferences per batch size.
        duration: minimum number of seconds of timed inferences per batch size.
        warm_up: untimed inferences of each caller before the timed ones.
        threads: processor threads per inference; None: one per core. Only for a path.
        device: the GPU to run on, such as "cuda:1"; None: the first. Only for a path.
        compile_for: the batch sizes to compile the network for, which are the `batch_sizes` of
            `resrt.load`; by default, it is compiled once for all. Only for a path, and OpenVINO.
        concurrency: the number of concurrent callers. If inferences have fewer threads than there
            are cores, several run at once; otherwise the callers take turns, and latencies include
            the wait.
        profile: also measure the time of each layer, by the backend's own counters, at the first of
            the batch sizes. An engine file is loaded again for it, so that counting does not affect
            the latencies; an engine must have been loaded with `profile=True`. Only for OpenVINO.
        output: a file to write the result to, as JSON; it is written completely or not at all.
        progress: called with the name of each step before it.

    Raises what `resrt.load` raises, InputError for invalid settings, and FileError if the output
    cannot be written.
    """
    compile_for = [whole("compile_for", size) for size in compile_for]
    settings = Settings(repeats, duration, warm_up, threads, concurrency, compile_for)
    report = progress or (lambda _: None)
    load_before = machine.load()
    with contextlib.ExitStack() as stack:
        # Opened first, so that an output that cannot be written is reported before the measurement.
        file = None if output is None else stack.enter_context(writing_whole(Path(output)))
        batch_sizes = [whole("a batch size", size) for size in batch_sizes]
        if profile and not batch_sizes:
            raise InputError("profile requires a batch size; give at least one in batch_sizes")
        report("load")
        options = {"threads": threads, "device": device, "batch_sizes": compile_for}
        loaded, load_ms, first_ms = _loaded(engine, options)
        layers = None
        if profile:
            report("layers")
            layers = _with_counters(engine, options).profile(batch_sizes[0], repeats=repeats)
        report("preprocessing")
        preprocessing = _time_preprocessing(loaded, settings)
        timings = []
        for size in batch_sizes:
            report(f"batch {size}")
            timings += time_batches(loaded, [size], settings)
        found = Benchmark(
            **{name: getattr(loaded.info, name) for name in _OF_ENGINE},
            settings=settings,
            load_ms=load_ms,
            first_ms=first_ms,
            preprocessing=preprocessing,
            timings=timings,
            published=_published(loaded.info),
            machine=machine.describe(),
            load=load_before,
            profile=layers,
        )
        if file is not None:
            json.dump(found.document(), file, indent=2, ensure_ascii=False)
            file.write("\n")
    return found


def time_batches(
    engine: Engine, batch_sizes: Sequence[int], settings: Settings
) -> list[timing.Timing]:
    """Return a Timing per batch size, of random images; see `Engine.time`."""
    rng = np.random.default_rng(0)

    def measure(size: int) -> timing.Timing:
        batch = rng.standard_normal((size, *engine.info.input_shape), np.float32)
        return timing.measure(
            lambda: engine.infer(batch),
            size,
            repeats=settings.repeats,
            duration=settings.duration,
            warm_up=settings.warm_up,
            concurrency=settings.concurrency,
        )

    return [measure(size) for size in [whole("a batch size", size) for size in batch_sizes]]


def _loaded(
    engine: Engine | str | PathLike[str], options: dict[str, Any]
) -> tuple[Engine, float | None, float | None]:
    """Return the engine, and the milliseconds of its loading and first inference."""
    if isinstance(engine, Engine):
        if any(value not in (None, []) for value in options.values()):
            raise InputError(
                "a loaded engine already has its threads, its device and its batch sizes; give "
                "them to resrt.load"
            )
        return engine, None, None
    start = perf_counter()
    loaded = load(engine, **options)
    is_loaded = perf_counter()
    batch = np.zeros((1, *loaded.info.input_shape), np.float32)
    begun = perf_counter()
    loaded.infer(batch)
    return loaded, 1000 * (is_loaded - start), 1000 * (perf_counter() - begun)


def _with_counters(engine: Engine | str | PathLike[str], options: dict[str, Any]) -> Engine:
    if isinstance(engine, Engine):
        return engine
    return load(engine, **options, warm_up=False, profile=True)


def _time_preprocessing(engine: Engine, settings: Settings) -> timing.Timing | None:
    info = engine.info
    if info.input_shape[0] not in (1, 3) or not info.preprocessing.mean:
        return None  # the engine cannot classify photographs
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
    """Return a JPEG file that takes as much work to decode as a photograph.

    It has detail at every scale, as photographs have, so it takes a third of a byte per pixel.
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


def _published(info: EngineInfo) -> dict[str, float]:
    published = published_for(info.model)
    if published is None or info.input_shape != (3, published.crop, published.crop):
        return {}
    return published.latency_ms
