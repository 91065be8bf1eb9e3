"""The checks: functions of a workshop that return what they saw, and raise what went wrong."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import resrt
from gpu_checks import process
from gpu_checks.driver import Driver
from gpu_checks.workshop import RTX, Workshop, WrongError, difference, expect, why_no_torch

SMALLEST, SPLIT_ATTENTION = "ResNet18", "ResNeSt50"
KERNEL_CHECK = "resrt_split_attention_check"
_CALLERS, _CALLS = 8, 10
_ALIGNMENT = 256  # bytes, of memory as CUDA allots it
_BUILD_OPTIONS: list[dict[str, object]] = [
    {"optimum_batch": 1},
    {"hardware_compatibility": "ampere+"},
    {"version_compatible": True},
    {"workspace": 256},
    {"optimization_level": 1},
]


class NotRunError(Exception):
    """Why a check cannot be run here."""


@dataclass(frozen=True)
class Check:
    """What is checked; `run` is a function of a module, so that another process can be sent it."""

    name: str
    run: Callable[[Workshop], str]


@dataclass(frozen=True)
class Result:
    """What came of it: `outcome` is "ok", "failed" or "not run", `detail` what was seen, or why."""

    name: str
    outcome: str
    detail: str

    def __str__(self) -> str:
        return f"{self.name:44} {self.outcome}: {self.detail}"


def backend_checks(networks: Sequence[str], foreign: Path | None = None) -> list[Check]:
    """Return a backend's checks besides FIRST; `foreign` is an engine file of another GPU."""
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
        Check("batches in the GPU's memory", device_tensors),
        Check("parts of such batches, anywhere in memory", unaligned_parts),
        Check("the choice of a device", devices),
        Check("an engine for another GPU", functools.partial(another_gpu, foreign)),
        Check("memory that ends", out_of_memory),
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
    """Return the checks that need no TensorRT, of the plugin's kernels by their own program."""
    return [
        Check("the plugin's kernels", functools.partial(kernels, kernel_check, None)),
        *(
            Check(f"the plugin's kernels, {tool}", functools.partial(kernels, kernel_check, tool))
            for tool in ("memcheck", "racecheck")
        ),
    ]


def backend_is_there(workshop: Workshop) -> str:
    """A library may open and build, and yet refuse this GPU: that is seen here, once."""
    status = workshop.status()
    if status.why_not:
        raise NotRunError(status.why_not)
    expect(status.why_build_only is None, str(status.why_build_only))
    off, _ = _saved_and_loaded(_tiny(workshop), "fp32")
    versions = f"version {status.version}, {', '.join(status.precisions)}"
    return f"{versions}; a tiny network was built, loaded and run on the GPU, off by {off:.1e}"


# Comes before all others of a backend, which are not run where it fails.
FIRST = Check("the backend is there, and uses the GPU", backend_is_there)


def saved_engine_loads(workshop: Workshop) -> str:
    off, size = _saved_and_loaded(workshop, "fp16")
    return f"{size / 1e6:.1f} MB, off by {off:.1e}"


def engine_built_without_gpu(workshop: Workshop) -> str:
    if workshop.backend != RTX:
        raise NotRunError("only TensorRT for RTX builds without a GPU")
    file = workshop.file("ahead.engine")
    script = "import sys; from pathlib import Path; from gpu_checks import checks; "
    script += "checks.build_ahead(sys.argv[1], Path(sys.argv[2]))"
    subprocess.run(
        [sys.executable, "-c", script, workshop.backend, file],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    images = workshop.images(SMALLEST, workshop.max_batch)
    off = difference(resrt.load(file).infer(images), workshop.reference(SMALLEST, images), "fp16")
    return f"off by {off:.1e}"


def build_ahead(backend: str, file: Path) -> None:
    """Build an engine where the GPUs were hidden."""
    workshop = Workshop(backend, file.parent)
    expect(workshop.status().why_build_only is not None, "the GPUs are not hidden")
    workshop.build(SMALLEST, "fp16").save(file)


def logits(network: str, precision: str, workshop: Workshop) -> str:
    _require(precision, workshop)
    images = workshop.images(network, workshop.max_batch)
    found = workshop.engine(network, precision).infer(images)
    return f"off by {difference(found, workshop.reference(network, images), precision):.1e}"


def plugin(precision: str, workshop: Workshop) -> str:
    _require_plugins(workshop)
    _require(precision, workshop)
    images = workshop.images(SPLIT_ATTENTION, workshop.max_batch)
    engine = workshop.engine(SPLIT_ATTENTION, precision, split_attention_plugin=True)
    expected = workshop.reference(SPLIT_ATTENTION, images)
    return f"off by {difference(engine.infer(images), expected, precision):.1e}"


def every_batch(workshop: Workshop) -> str:
    engine = workshop.engine(SMALLEST, "fp16")
    most = 2 * workshop.max_batch + 1  # larger ones are run in parts
    images = workshop.images(SMALLEST, most)
    expected = workshop.reference(SMALLEST, images)
    for batch in range(1, most + 1):
        # Each time others come first, so that logits left from before are seen to be wrong.
        order = np.roll(np.arange(most), -batch)[:batch]
        try:
            difference(engine.infer(images[order]), expected[order], "fp16")
        except WrongError as error:
            raise WrongError(f"batch {batch}: {error}") from None
    expect(engine.infer(images[:0]).shape == (0, expected.shape[1]), "batch 0 has other logits")
    return f"0 to {most}"


def graphs(workshop: Workshop) -> str:
    """A size that is not warmed up is launched once and recorded, and replayed from then on."""
    if workshop.backend == RTX:
        raise NotRunError("TensorRT for RTX records graphs by itself")
    engine = workshop.engine(SMALLEST, "fp16")
    several = [workshop.images(SMALLEST, 3, seed) for seed in range(4)]
    found = [engine.infer(images) for images in several]
    for images, launched in zip(several, found, strict=True):
        expected = workshop.reference(SMALLEST, images)
        difference(launched, expected, "fp16")
        difference(engine.infer(images), expected, "fp16")
    return f"{2 * len(several)} inferences of batch 3, the first not from a graph"


def concurrent_callers(workshop: Workshop) -> str:
    engine = workshop.engine(SMALLEST, "fp16")
    images = workshop.images(SMALLEST, _CALLERS * workshop.max_batch)
    expected = workshop.reference(SMALLEST, images)

    def call(caller: int) -> None:
        for i in range(_CALLS):
            batch = (caller + i) % workshop.max_batch + 1
            rows = slice(caller * workshop.max_batch, caller * workshop.max_batch + batch)
            difference(engine.infer(images[rows]), expected[rows], "fp16")

    with ThreadPoolExecutor(_CALLERS) as callers:
        for finished in [callers.submit(call, caller) for caller in range(_CALLERS)]:
            finished.result()
    return f"{_CALLERS} callers, {_CALLS} inferences each"


def device_tensors(workshop: Workshop) -> str:
    """PyTorch's tensors, in its default stream and in another, where they have just been made."""
    _require_torch()
    import torch

    engine = workshop.engine(SMALLEST, "fp16")
    images = workshop.images(SMALLEST, 2 * workshop.max_batch + 1)
    expected = workshop.reference(SMALLEST, images)
    tensor = torch.from_numpy(images).to("cuda")
    off = difference(torch.from_dlpack(engine.infer(tensor)).cpu().numpy(), expected, "fp16")
    side = torch.cuda.Stream()
    kept = []
    for stream in (side.cuda_stream, None):
        for _ in range(_CALLS):
            with torch.cuda.stream(side):
                made = torch.zeros_like(tensor).add_(tensor)
                logits = torch.from_dlpack(engine.infer(made, stream=stream))
                kept.append((made, logits.clone()))
    between = engine.infer(images)  # from the processor, while others are under way
    torch.cuda.synchronize()
    for logits in (between, *(logits.cpu().numpy() for _, logits in kept)):
        difference(logits, expected, "fp16")
    for wrong in (tensor.half(), tensor.to(memory_format=torch.channels_last), tensor[0]):
        try:
            engine.infer(wrong)
        except resrt.InputError:
            continue
        raise WrongError(f"{wrong.dtype} {tuple(wrong.shape)} {wrong.stride()} was not refused")
    return f"{len(kept) + 1} inferences in two streams, off by {off:.1e}"


def unaligned_parts(workshop: Workshop) -> str:
    """Neither the images nor the logits of these parts begin where TensorRT would have them."""
    _require_torch()
    import torch

    tiny = _tiny(workshop)
    images = tiny.images(SMALLEST, 4)
    expect(images[0].nbytes % _ALIGNMENT != 0, "all images are aligned")
    engine = tiny.engine(SMALLEST, "fp32")
    expected = engine.infer(images)
    difference(expected, tiny.reference(SMALLEST, images), "fp32")
    tensor = torch.from_numpy(images).to("cuda")
    for rows in (slice(3), slice(1, None)):
        found = torch.from_dlpack(engine.infer(tensor[rows])).cpu().numpy()
        try:
            off = difference(found, expected[rows], "fp32")
        except WrongError as error:
            raise WrongError(f"images {rows.start or 0} to {rows.stop or 4}: {error}") from None
    return f"batch 3 in parts of 1, the last off by {off:.1e} from NumPy's"


def devices(workshop: Workshop) -> str:
    count = Driver().count()
    file = workshop.engine_file(SMALLEST, "fp16")
    message = _refusal(lambda: resrt.load(file, device=f"cuda:{count}"))
    expect(f"there is no GPU {count} here" in message, f"another message: {message}")
    images = workshop.images(SMALLEST, workshop.max_batch)
    expected = workshop.reference(SMALLEST, images)
    for device in range(count):
        engine = resrt.load(file, device=f"cuda:{device}")
        difference(engine.infer(images), expected, "fp16")
    only = " (the only one, so that no choice was made)" if count == 1 else ""
    return f"{count} ran it{only}, cuda:{count} was refused"


def another_gpu(foreign: Path | None, workshop: Workshop) -> str:
    if foreign is None and workshop.backend != RTX:
        raise NotRunError("needs an engine file that another GPU built: --foreign FILE")
    if foreign is None:
        here = Driver().gpu().compute_capability
        target = 75 if here >= 120 else 120
        foreign = workshop.engine_file(SMALLEST, "fp16", compute_capabilities=[target])
    message = _refusal(lambda: resrt.load(foreign))
    expect("may be for another GPU" in message, f"another message: {message}")
    _still_runs(workshop)
    return message


def out_of_memory(workshop: Workshop) -> str:
    file = workshop.engine_file(SMALLEST, "fp16")
    workshop.engine(SMALLEST, "fp16")  # libraries take memory of their own, once
    with Driver().memory_used_up():
        message = _refusal(lambda: resrt.load(file))
    expect("memory" in message.lower(), f"another message: {message}")
    _still_runs(workshop)
    return message


def runtime_cache(workshop: Workshop) -> str:
    """The second engine reads the kernels that the first has compiled."""
    if workshop.backend != RTX:
        raise NotRunError("TensorRT's engines bring their kernels along")
    file = workshop.engine_file(SMALLEST, "fp16")
    images = workshop.images(SMALLEST, workshop.max_batch)
    expected = workshop.reference(SMALLEST, images)
    cache = workshop.file("checked.kernels")
    cache.unlink(missing_ok=True)
    for _ in range(2):
        found = resrt.load(file, runtime_cache=cache).infer(images)
        off = difference(found, expected, "fp16")
        expect(cache.exists() and cache.stat().st_size > 0, "no kernels were kept")
    return f"{cache.stat().st_size / 1e6:.1f} MB of kernels, off by {off:.1e}"


def timing_cache(workshop: Workshop) -> str:
    """The second build reads what the first has written."""
    cache = workshop.file("checked.cache")
    cache.unlink(missing_ok=True)
    for _ in range(2):
        found = build_options({"timing_cache": str(cache)}, workshop)
        expect(cache.exists() and cache.stat().st_size > 0, "no timing cache was written")
    return found


def build_options(options: dict[str, object], workshop: Workshop) -> str:
    if workshop.backend == RTX:
        raise NotRunError("TensorRT for RTX has none that need a GPU")
    images = workshop.images(SMALLEST, workshop.max_batch)
    found = workshop.build(SMALLEST, "fp16", **options).infer(images)
    return f"off by {difference(found, workshop.reference(SMALLEST, images), 'fp16'):.1e}"


def kernels(program: Path | None, tool: str | None, workshop: Workshop) -> str:
    found = program or shutil.which(KERNEL_CHECK)
    if found is None:
        raise NotRunError(f"needs {KERNEL_CHECK}, of a build with RESRT_TESTS: --kernels FILE")
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


def _tiny(workshop: Workshop) -> Workshop:
    """One whose engines are small, and whose images and logits are of odd sizes."""
    return replace(workshop, max_batch=1, input_size=33, classes=10)


def _saved_and_loaded(workshop: Workshop, precision: str) -> tuple[float, int]:
    """Return how far an engine is off that is built now, saved, and loaded; and its file's size."""
    images = workshop.images(SMALLEST, workshop.max_batch)
    expected = workshop.reference(SMALLEST, images)
    built = workshop.build(SMALLEST, precision)
    difference(built.infer(images), expected, precision)
    file = workshop.file("saved.engine")
    built.save(file)
    off = difference(resrt.load(file).infer(images), expected, precision)
    return off, file.stat().st_size


def _require_torch() -> None:
    if why := why_no_torch():
        raise NotRunError(why)


def _require(precision: str, workshop: Workshop) -> None:
    available = workshop.status().precisions
    if precision not in available:
        raise NotRunError(f"this GPU has {', '.join(available)}")


def _require_plugins(workshop: Workshop) -> None:
    if workshop.backend == RTX:
        raise NotRunError("TensorRT for RTX takes no plugins")


def _refusal(call: Callable[[], object]) -> str:
    try:
        call()
    except resrt.BackendError as error:
        return str(error)
    raise WrongError("no BackendError was raised")


def _still_runs(workshop: Workshop) -> None:
    images = workshop.images(SMALLEST, 2)
    found = workshop.engine(SMALLEST, "fp16").infer(images)
    difference(found, workshop.reference(SMALLEST, images), "fp16")


def result_of(check: Check, workshop: Workshop) -> Result:
    """Run a check here."""
    try:
        return Result(check.name, "ok", check.run(workshop))
    except NotRunError as error:
        return Result(check.name, "not run", str(error))
    except (WrongError, resrt.Error) as error:
        return Result(check.name, "failed", str(error))
    except Exception as error:
        return Result(check.name, "failed", f"{type(error).__name__}: {error}")


def run_apart(check: Check, workshop: Workshop, limit: float) -> Result:
    """Run a check in a process of its own, for at most `limit` seconds."""
    try:
        return process.run_apart(result_of, check, workshop, limit=limit)
    except process.ProcessError as error:
        return Result(check.name, "failed", str(error))
