"""The checks: functions of a workshop that return what they saw, and raise what went wrong."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import resrt
from gpu_checks import process
from gpu_checks.driver import Driver
from gpu_checks.workshop import Workshop, WrongError, difference, expect

RTX = "tensorrt_rtx"
SMALLEST, SPLIT_ATTENTION = "ResNet18", "ResNeSt50"
KERNEL_CHECK = "resrt_split_attention_check"
_CALLERS, _CALLS = 8, 10


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
        Check("the choice of a device", devices),
        Check("an engine for another GPU", functools.partial(another_gpu, foreign)),
        Check("memory that ends", out_of_memory),
        Check("options of the build", build_options),
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
    status = workshop.status()
    if status.why_not:
        raise NotRunError(status.why_not)
    expect(status.why_build_only is None, str(status.why_build_only))
    return f"version {status.version}, {', '.join(status.precisions)}"


# Comes before all others of a backend.
FIRST = Check("the backend is there", backend_is_there)


def saved_engine_loads(workshop: Workshop) -> str:
    images = workshop.images(SMALLEST, workshop.max_batch)
    expected = workshop.reference(SMALLEST, images)
    built = workshop.build(SMALLEST, "fp16")
    difference(built.infer(images), expected, "fp16")
    file = workshop.folder / "saved.engine"
    built.save(file)
    off = difference(resrt.load(file).infer(images), expected, "fp16")
    return f"{file.stat().st_size / 1e6:.1f} MB, off by {off:.1e}"


def engine_built_without_gpu(workshop: Workshop) -> str:
    if workshop.backend != RTX:
        raise NotRunError("only TensorRT for RTX builds without a GPU")
    file = workshop.folder / "ahead.engine"
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
    if importlib.util.find_spec("torch") is None:
        raise NotRunError("torch is not installed")
    import torch

    if not torch.cuda.is_available():
        raise NotRunError("this torch is not for CUDA")
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


def build_options(workshop: Workshop) -> str:
    if workshop.backend == RTX:
        raise NotRunError("TensorRT for RTX has none that need a GPU")
    images = workshop.images(SMALLEST, workshop.max_batch)
    expected = workshop.reference(SMALLEST, images)
    cache = workshop.folder / "timings.cache"
    alternatives: list[dict[str, object]] = [
        {"timing_cache": str(cache)},
        {"timing_cache": str(cache), "optimum_batch": 1},  # reads what the first wrote
        {"hardware_compatibility": "ampere+"},
        {"version_compatible": True},
        {"workspace": 256, "optimization_level": 1},
    ]
    for options in alternatives:
        engine = workshop.build(SMALLEST, "fp16", **options)
        difference(engine.infer(images), expected, "fp16")
    expect(cache.stat().st_size > 0, "the timing cache is empty")
    return f"{len(alternatives)} combinations"


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
    wrong = [line for line in lines if line.startswith("WRONG")]
    why = "; ".join((wrong or lines)[-3:])
    expect(done.returncode == 0, f"exit status {done.returncode}: {why}")
    return lines[-1]


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
