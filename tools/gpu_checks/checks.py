"""The checks: functions of an engine store that return what they saw, or raise what is wrong."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import resrt
from gpu_checks.driver import Driver
from gpu_checks.engines import RTX, EngineStore, WrongError, difference, expect, why_no_torch
from resrt.measuring.processes import Failed, Process, sentence

SMALLEST, SPLIT_ATTENTION = "ResNet18", "ResNeSt50"
KERNEL_CHECK = "resrt_split_attention_check"
_CALLERS, _CALLS = 8, 10
_ALIGNMENT = 256  # bytes, of memory that CUDA allocates
_BUILD_OPTIONS: list[dict[str, object]] = [
    {"optimum_batch": 1},
    {"hardware_compatibility": "ampere+"},
    {"version_compatible": True},
    {"workspace": 256},
    {"optimization_level": 1},
]


class NotRunError(Exception):
    """A check cannot run here; the text is the reason."""


@dataclass(frozen=True)
class Check:
    """A check; `run` is a function of a module, so that it can be sent to another process."""

    name: str
    run: Callable[[EngineStore], str]


@dataclass(frozen=True)
class Result:
    """The outcome of a check: "ok", "failed" or "not run", and what was seen, or the reason."""

    name: str
    outcome: str
    detail: str

    def __str__(self) -> str:
        return f"{self.name:44} {self.outcome}: {self.detail}"


def run(check: Check, engines: EngineStore, limit: float) -> Result:
    """Run a check in its own process, for at most `limit` seconds."""
    with Process() as process:
        try:
            return process.call(run_here, check, engines, timeout=limit)
        except Failed as failure:
            return Result(check.name, "failed", str(failure))


def run_here(check: Check, engines: EngineStore) -> Result:
    """Run a check in this process."""
    try:
        return Result(check.name, "ok", check.run(engines))
    except NotRunError as error:
        return Result(check.name, "not run", str(error))
    except Exception as error:
        return Result(check.name, "failed", sentence(error))


def backend_checks(networks: Sequence[str], foreign: Path | None = None) -> list[Check]:
    """Return a backend's checks other than FIRST; `foreign` is an engine file of another GPU."""
    return [
        Check("an engine is built, saved and loaded", saved_engine_loads),
        Check("an engine that was built without a GPU loads", engine_built_without_gpu),
        *(
            Check(
                f"logits of {network} in {precision}", functools.partial(logits, network, precision)
            )
            for network in networks
            for precision in ("fp32", "tf32", "fp16", "bf16")
        ),
        *(
            Check(f"logits with the plugin in {precision}", functools.partial(plugin, precision))
            for precision in ("fp32", "fp16", "bf16")
        ),
        Check("every batch size", every_batch),
        Check("a CUDA graph repeats what it recorded", graphs),
        Check("concurrent callers", concurrent_callers),
        Check("batches in GPU memory", device_tensors),
        Check("slices of such batches at any address", unaligned_slices),
        *(
            Check(
                f"NaN and infinity in GPU memory, {precision}",
                functools.partial(non_finite_tensors, precision),
            )
            for precision in ("fp32", "fp16", "bf16")
        ),
        Check("the choice of a device", devices),
        Check("an engine for another GPU", functools.partial(another_gpu, foreign)),
        Check("insufficient memory", out_of_memory),
        Check("loaded with a runtime cache, twice", runtime_cache),
        Check("built with a timing cache, twice", timing_cache),
        *(
            Check(
                f"built with {', '.join(f'{name}={value}' for name, value in options.items())}",
                functools.partial(build_options, options),
            )
            for options in _BUILD_OPTIONS
        ),
    ]


def machine_checks(kernel_check: Path | None) -> list[Check]:
    """Return the checks that need no TensorRT: those of the plugin's kernels."""
    return [
        Check("the plugin's kernels", functools.partial(kernels, kernel_check, None)),
        *(
            Check(f"the plugin's kernels, {tool}", functools.partial(kernels, kernel_check, tool))
            for tool in ("memcheck", "racecheck")
        ),
    ]


def backend_works(engines: EngineStore) -> str:
    """Run a tiny network: a library may open and build, and still reject this GPU."""
    status = engines.status()
    if status.why_not:
        raise NotRunError(status.why_not)
    expect(status.why_build_only is None, str(status.why_build_only))
    error, _ = _saved_and_loaded(_tiny(engines), "fp32")
    versions = f"version {status.version}, {', '.join(status.precisions)}"
    return f"{versions}; built, loaded and ran a tiny network on the GPU, error {error:.1e}"


# Runs before a backend's other checks, which do not run if it fails.
FIRST = Check("the backend runs on the GPU", backend_works)


def saved_engine_loads(engines: EngineStore) -> str:
    error, size = _saved_and_loaded(engines, "fp16")
    return f"{size / 1e6:.1f} MB, error {error:.1e}"


def engine_built_without_gpu(engines: EngineStore) -> str:
    if engines.backend != RTX:
        raise NotRunError("only TensorRT for RTX builds without a GPU")
    file = engines.file("ahead.engine")
    with Process({"CUDA_VISIBLE_DEVICES": ""}) as process:
        process.call(build_ahead, engines, file)
    images = engines.images(SMALLEST, engines.max_batch)
    error = difference(resrt.load(file).infer(images), engines.reference(SMALLEST, images), "fp16")
    return f"error {error:.1e}"


def build_ahead(engines: EngineStore, file: Path) -> None:
    """Build an engine in a process from which the GPUs are hidden."""
    expect(engines.status().why_build_only is not None, "the GPUs are not hidden")
    engines.build(SMALLEST, "fp16").save(file)


def logits(network: str, precision: str, engines: EngineStore) -> str:
    _require(precision, engines)
    images = engines.images(network, engines.max_batch)
    found = engines.engine(network, precision).infer(images)
    return f"error {difference(found, engines.reference(network, images), precision):.1e}"


def plugin(precision: str, engines: EngineStore) -> str:
    if engines.backend == RTX:
        raise NotRunError("TensorRT for RTX does not support plugins")
    _require(precision, engines)
    images = engines.images(SPLIT_ATTENTION, engines.max_batch)
    engine = engines.engine(SPLIT_ATTENTION, precision, split_attention_plugin=True)
    expected = engines.reference(SPLIT_ATTENTION, images)
    return f"error {difference(engine.infer(images), expected, precision):.1e}"


def every_batch(engines: EngineStore) -> str:
    engine = engines.engine(SMALLEST, "fp16")
    largest = 2 * engines.max_batch + 1  # batches above max_batch are split
    images = engines.images(SMALLEST, largest)
    expected = engines.reference(SMALLEST, images)
    for batch in range(1, largest + 1):
        # The first image is different each time, so that logits of the last inference are wrong.
        order = np.roll(np.arange(largest), -batch)[:batch]
        try:
            difference(engine.infer(images[order]), expected[order], "fp16")
        except WrongError as error:
            raise WrongError(f"batch {batch}: {error}") from None
    expect(engine.infer(images[:0]).shape == (0, expected.shape[1]), "batch 0 has other logits")
    return f"0 to {largest}"


def graphs(engines: EngineStore) -> str:
    """A size that is not warmed up is launched once and recorded, and replayed from then on."""
    if engines.backend == RTX:
        raise NotRunError("TensorRT for RTX records graphs by itself")
    engine = engines.engine(SMALLEST, "fp16")
    batches = [engines.images(SMALLEST, 3, seed) for seed in range(4)]
    found = [engine.infer(images) for images in batches]
    for images, launched in zip(batches, found, strict=True):
        expected = engines.reference(SMALLEST, images)
        difference(launched, expected, "fp16")
        difference(engine.infer(images), expected, "fp16")
    return f"{2 * len(batches)} inferences of batch 3, all but the first from a graph"


def concurrent_callers(engines: EngineStore) -> str:
    engine = engines.engine(SMALLEST, "fp16")
    images = engines.images(SMALLEST, _CALLERS * engines.max_batch)
    expected = engines.reference(SMALLEST, images)

    def call(caller: int) -> None:
        for i in range(_CALLS):
            batch = (caller + i) % engines.max_batch + 1
            rows = slice(caller * engines.max_batch, caller * engines.max_batch + batch)
            difference(engine.infer(images[rows]), expected[rows], "fp16")

    with ThreadPoolExecutor(_CALLERS) as callers:
        for finished in [callers.submit(call, caller) for caller in range(_CALLERS)]:
            finished.result()
    return f"{_CALLERS} callers, {_CALLS} inferences each"


def device_tensors(engines: EngineStore) -> str:
    """PyTorch tensors, in its default stream and in another in which they have just been made."""
    _require_torch()
    import torch

    engine = engines.engine(SMALLEST, "fp16")
    images = engines.images(SMALLEST, 2 * engines.max_batch + 1)
    expected = engines.reference(SMALLEST, images)
    tensor = torch.from_numpy(images).to("cuda")
    error = difference(torch.from_dlpack(engine.infer(tensor)).cpu().numpy(), expected, "fp16")
    side = torch.cuda.Stream()
    kept = []
    for stream in (side.cuda_stream, None):
        for _ in range(_CALLS):
            with torch.cuda.stream(side):
                made = torch.zeros_like(tensor).add_(tensor)
                logits = torch.from_dlpack(engine.infer(made, stream=stream))
                kept.append((made, logits.clone()))
    on_host = engine.infer(images)  # while the others are in progress
    torch.cuda.synchronize()
    for logits in (on_host, *(logits.cpu().numpy() for _, logits in kept)):
        difference(logits, expected, "fp16")
    for wrong in (tensor.half(), tensor.to(memory_format=torch.channels_last), tensor[0]):
        try:
            engine.infer(wrong)
        except resrt.InputError:
            continue
        raise WrongError(f"{wrong.dtype} {tuple(wrong.shape)} {wrong.stride()} was accepted")
    return f"{len(kept) + 1} inferences in two streams, error {error:.1e}"


def unaligned_slices(engines: EngineStore) -> str:
    """Neither the images nor the logits of these slices are aligned as TensorRT requires."""
    _require_torch()
    import torch

    tiny = _tiny(engines)
    images = tiny.images(SMALLEST, 4)
    expect(images[0].nbytes % _ALIGNMENT != 0, "all images are aligned")
    engine = tiny.engine(SMALLEST, "fp32")
    expected = engine.infer(images)
    difference(expected, tiny.reference(SMALLEST, images), "fp32")
    tensor = torch.from_numpy(images).to("cuda")
    for rows in (slice(3), slice(1, None)):
        found = torch.from_dlpack(engine.infer(tensor[rows])).cpu().numpy()
        try:
            error = difference(found, expected[rows], "fp32")
        except WrongError as wrong:
            raise WrongError(f"images {rows.start or 0} to {rows.stop or 4}: {wrong}") from None
    return f"batch 3 with max_batch 1, difference from NumPy arrays {error:.1e}"


def non_finite_tensors(precision: str, engines: EngineStore) -> str:
    """The logits of such images are NaN, and those of the other images are unaffected."""
    _require(precision, engines)
    _require_torch()
    import torch

    engine = engines.engine(SMALLEST, precision)
    images = engines.images(SMALLEST, engines.max_batch)
    tensor = torch.from_numpy(images).to("cuda")
    expected = torch.from_dlpack(engine.infer(tensor)).cpu().numpy()
    values = (np.nan, np.inf, -np.inf)
    places = (0, images[0].size // 2, images[0].size - 1)
    for value in values:
        for image, place in enumerate(places[: len(images)]):
            changed = tensor.clone()
            changed[image].view(-1)[place] = value
            found = torch.from_dlpack(engine.infer(changed)).cpu().numpy()
            expect(np.isnan(found[image]).all(), f"{value} in an image gave finite logits")
            others = np.arange(len(images)) != image
            expect(np.array_equal(found[others], expected[others]), f"{value} affects other images")
    return f"{len(values)} values in {len(places)} places"


def devices(engines: EngineStore) -> str:
    count = Driver().count()
    file = engines.engine_file(SMALLEST, "fp16")
    message = _rejection(lambda: resrt.load(file, device=f"cuda:{count}"))
    expect(f"there is no GPU {count} here" in message, f"another message: {message}")
    images = engines.images(SMALLEST, engines.max_batch)
    expected = engines.reference(SMALLEST, images)
    for device in range(count):
        engine = resrt.load(file, device=f"cuda:{device}")
        difference(engine.infer(images), expected, "fp16")
    only = " (the only one, so there was no choice)" if count == 1 else ""
    return f"ran on {count}{only}; cuda:{count} was rejected"


def another_gpu(foreign: Path | None, engines: EngineStore) -> str:
    if foreign is None and engines.backend != RTX:
        raise NotRunError("requires an engine file that was built for another GPU: --foreign FILE")
    if foreign is None:
        here = Driver().gpu().compute_capability
        target = 75 if here >= 120 else 120
        foreign = engines.engine_file(SMALLEST, "fp16", compute_capabilities=[target])
    message = _rejection(lambda: resrt.load(foreign))
    expect("may be for another GPU" in message, f"another message: {message}")
    _still_runs(engines)
    return message


def out_of_memory(engines: EngineStore) -> str:
    file = engines.engine_file(SMALLEST, "fp16")
    engines.engine(SMALLEST, "fp16")  # libraries allocate memory of their own once
    with Driver().memory_used_up():
        message = _rejection(lambda: resrt.load(file))
    expect("memory" in message.lower(), f"another message: {message}")
    _still_runs(engines)
    return message


def runtime_cache(engines: EngineStore) -> str:
    """The second load reads the kernels that the first has compiled."""
    if engines.backend != RTX:
        raise NotRunError("engines of TensorRT contain their kernels")
    file = engines.engine_file(SMALLEST, "fp16")
    images = engines.images(SMALLEST, engines.max_batch)
    expected = engines.reference(SMALLEST, images)
    cache = engines.file("checked.kernels")
    cache.unlink(missing_ok=True)
    for _ in range(2):
        found = resrt.load(file, runtime_cache=cache).infer(images)
        error = difference(found, expected, "fp16")
        expect(cache.exists() and cache.stat().st_size > 0, "no kernels were saved")
    return f"{cache.stat().st_size / 1e6:.1f} MB of kernels, error {error:.1e}"


def timing_cache(engines: EngineStore) -> str:
    """The second build reads what the first has written."""
    cache = engines.file("checked.cache")
    cache.unlink(missing_ok=True)
    for _ in range(2):
        found = build_options({"timing_cache": str(cache)}, engines)
        expect(cache.exists() and cache.stat().st_size > 0, "no timing cache was written")
    return found


def build_options(options: dict[str, object], engines: EngineStore) -> str:
    if engines.backend == RTX:
        raise NotRunError("TensorRT for RTX has no options that need a GPU")
    images = engines.images(SMALLEST, engines.max_batch)
    found = engines.build(SMALLEST, "fp16", **options).infer(images)
    return f"error {difference(found, engines.reference(SMALLEST, images), 'fp16'):.1e}"


def kernels(program: Path | None, tool: str | None, engines: EngineStore) -> str:
    found = program or shutil.which(KERNEL_CHECK)
    if found is None:
        raise NotRunError(f"requires {KERNEL_CHECK} of a build with RESRT_TESTS: --kernels FILE")
    command = [str(found)]
    if tool is not None:
        if shutil.which("compute-sanitizer") is None:
            raise NotRunError("compute-sanitizer is not installed")
        command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    wrong = [line for line in lines if line.startswith("WRONG") or "wrong, seed" in line]
    why = "; ".join((wrong or lines)[-3:])
    expect(done.returncode == 0, f"exit status {done.returncode}: {why}")
    return lines[-1]


def _tiny(engines: EngineStore) -> EngineStore:
    """Return a store of small engines, whose images and logits have odd sizes."""
    return replace(engines, max_batch=1, input_size=33, classes=10)


def _saved_and_loaded(engines: EngineStore, precision: str) -> tuple[float, int]:
    """Build an engine, save it and load it; return its error and the size of its file."""
    images = engines.images(SMALLEST, engines.max_batch)
    expected = engines.reference(SMALLEST, images)
    built = engines.build(SMALLEST, precision)
    difference(built.infer(images), expected, precision)
    file = engines.file("saved.engine")
    built.save(file)
    error = difference(resrt.load(file).infer(images), expected, precision)
    return error, file.stat().st_size


def _require_torch() -> None:
    if why := why_no_torch():
        raise NotRunError(why)


def _require(precision: str, engines: EngineStore) -> None:
    available = engines.status().precisions
    if precision not in available:
        raise NotRunError(f"this GPU supports {', '.join(available)}")


def _rejection(call: Callable[[], object]) -> str:
    try:
        call()
    except resrt.BackendError as error:
        return str(error)
    raise WrongError("no BackendError was raised")


def _still_runs(engines: EngineStore) -> None:
    images = engines.images(SMALLEST, 2)
    found = engines.engine(SMALLEST, "fp16").infer(images)
    difference(found, engines.reference(SMALLEST, images), "fp16")
