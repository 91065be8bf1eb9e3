"""The logic of tools/gpu_check.py, with engines of OpenVINO in the place of a GPU's."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import json
import operator
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import resrt
from support.paths import ROOT

TOOLS = ROOT / "tools"
if not TOOLS.exists():
    pytest.skip("tools/ is not here", allow_module_level=True)

import gpu_check  # noqa: E402
from gpu_checks import checks, latency, process  # noqa: E402
from gpu_checks.driver import Gpu  # noqa: E402
from gpu_checks.workshop import (  # noqa: E402
    RTX,
    Array,
    Workshop,
    WrongError,
    difference,
    fingerprint,
)

Infer = Callable[[Array], Array]


@dataclass(frozen=True)
class StandIn(Workshop):
    """Engines of OpenVINO in float32, whatever is asked for; `fault` makes them wrong."""

    fault: Callable[[Infer], Infer] = lambda infer: infer

    def status(self) -> Any:
        return SimpleNamespace(
            version="1.2.3", precisions=["fp16", "fp32"], why_not=None, why_build_only=None
        )

    def build(self, network: str, precision: str, **options: Any) -> resrt.Engine:
        workshop = Workshop("openvino", self.folder, self.max_batch, self.input_size, self.classes)
        return workshop.build(network, "fp32")

    def engine(self, network: str, precision: str, **options: Any) -> Any:
        return SimpleNamespace(infer=self.fault(super().engine(network, precision).infer))

    def reference(self, network: str, images: Array) -> Array:
        return super().engine(network, "fp32").infer(images)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


@pytest.fixture
def sound(folder: Path) -> StandIn:
    return StandIn("tensorrt", folder, max_batch=3, input_size=64)


def mixes_up_images(infer: Infer) -> Infer:
    return lambda batch: np.roll(infer(batch), 1, axis=0)


def is_wrong_in_the_last_image_of_three(infer: Infer) -> Infer:
    def wrong(batch: Array) -> Array:
        logits = infer(batch)
        logits[2:3] *= 1.05
        return logits

    return wrong


def shares_its_memory_among_callers(infer: Infer) -> Infer:
    shared: dict[int, Array] = {}
    two_have_written = threading.Barrier(2, timeout=5)

    def racing(batch: Array) -> Array:
        shared[0] = infer(batch)
        with contextlib.suppress(threading.BrokenBarrierError):  # the last is alone
            two_have_written.wait()
        return shared[0]

    return racing


def is_wrong_from_the_second_time_on(infer: Infer) -> Infer:
    first: list[Array] = []

    def replaying(batch: Array) -> Array:
        first.append(infer(batch))
        return first[0]

    return replaying


class OnGpu:
    """As a tensor of PyTorch."""

    def __init__(self, array: Array) -> None:
        self.array = array

    def __getitem__(self, rows: slice) -> OnGpu:
        return OnGpu(self.array[rows])

    def to(self, device: str) -> OnGpu:
        return self

    def cpu(self) -> OnGpu:
        return self

    def numpy(self) -> Array:
        return self.array


def reads_the_gpu(infer: Infer) -> Infer:
    return lambda batch: infer(batch.array if isinstance(batch, OnGpu) else batch)


def computes_only_the_first_image_of_a_slice(infer: Infer) -> Infer:
    def wrong(batch: Any) -> Array:
        logits = reads_the_gpu(infer)(batch)
        if isinstance(batch, OnGpu) and batch.array.base is not None:
            logits[1:] = logits[0]
        return logits

    return wrong


CHECKS: dict[str, Callable[[Workshop], str]] = {
    "logits": functools.partial(checks.logits, checks.SMALLEST, "fp16"),
    "every batch": checks.every_batch,
    "callers": checks.concurrent_callers,
    "graphs": checks.graphs,
    "first": checks.backend_is_there,
    "saved": checks.saved_engine_loads,
    "build options": functools.partial(checks.build_options, {"workspace": 256}),
}


@pytest.mark.parametrize("name", CHECKS)
def test_a_sound_engine_passes(name: str, sound: StandIn) -> None:
    result = checks.result_of(checks.Check(name, CHECKS[name]), sound)
    assert result.outcome == "ok", result


@pytest.mark.parametrize(
    ("name", "fault", "message"),
    [
        ("logits", mixes_up_images, "images are mixed up|off by"),
        ("logits", is_wrong_in_the_last_image_of_three, "off by .*e-02, more than 3e-03"),
        ("every batch", is_wrong_in_the_last_image_of_three, "^batch 3: logits are off"),
        ("callers", shares_its_memory_among_callers, "logits|mixed up"),
        ("graphs", is_wrong_from_the_second_time_on, "logits|mixed up"),
    ],
)
def test_a_fault_is_found(
    name: str, fault: Callable[[Infer], Infer], message: str, folder: Path
) -> None:
    faulty = StandIn("tensorrt", folder, max_batch=3, input_size=64, fault=fault)
    result = checks.result_of(checks.Check(name, CHECKS[name]), faulty)
    assert result.outcome == "failed"
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(result.detail)


@pytest.mark.parametrize(
    ("fault", "outcome", "message"),
    [
        (reads_the_gpu, "ok", "batch 3 in parts of 1"),
        (computes_only_the_first_image_of_a_slice, "failed", "images 0 to 3: "),
    ],
)
def test_parts_of_batches_on_the_gpu(
    fault: Callable[[Infer], Infer],
    outcome: str,
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checks, "why_no_torch", lambda: None)
    torch = SimpleNamespace(from_numpy=OnGpu, from_dlpack=OnGpu)
    monkeypatch.setitem(sys.modules, "torch", torch)
    check = checks.Check("parts", checks.unaligned_parts)
    result = checks.result_of(check, StandIn("tensorrt", folder, fault=fault))
    assert result.outcome == outcome
    assert message in result.detail


def test_a_backend_that_refuses_the_gpu_fails_at_once(
    sound: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: Path) -> resrt.Engine:
        raise resrt.BackendError("it may be for another GPU")

    monkeypatch.setattr(resrt, "load", refuse)
    result = checks.result_of(checks.FIRST, sound)
    assert (result.outcome, result.detail) == ("failed", "it may be for another GPU")


@pytest.mark.parametrize(
    ("kernels", "outcome", "message"),
    [(b"kernels", "ok", "0.0 MB of kernels"), (b"", "failed", "no kernels were kept")],
)
def test_kernels_that_are_kept(
    kernels: bytes,
    outcome: str,
    message: str,
    sound: StandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = resrt.load

    def load_and_keep(file: Path, runtime_cache: Path | None = None) -> resrt.Engine:
        if runtime_cache is not None:
            runtime_cache.write_bytes(kernels)
        return load(file)

    monkeypatch.setattr(resrt, "load", load_and_keep)
    check = checks.Check("kept kernels", checks.runtime_cache)
    result = checks.result_of(check, replace(sound, backend=RTX))
    assert result.outcome == outcome
    assert message in result.detail
    assert checks.result_of(check, sound).outcome == "not run"


def test_an_engine_built_ahead_finds_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is the only check, nothing else has made the folder."""
    rtx = StandIn(RTX, tmp_path / "engines", max_batch=2, input_size=64)

    def build(command: list[Any], **_: object) -> None:
        rtx.build(checks.SMALLEST, "fp16").save(command[-1])

    monkeypatch.setattr(subprocess, "run", build)
    check = checks.Check("ahead", checks.engine_built_without_gpu)
    result = checks.result_of(check, rtx)
    assert result.outcome == "ok", result


def test_other_engines_have_other_files(tmp_path: Path, sound: StandIn) -> None:
    builds = [tmp_path / name for name in ("a build", "the same", "another")]
    for build in builds:
        build.mkdir()
        (build / "libresrt.so").write_text("graphs")
        (build / "libresrt_split_attention_11.so").write_text(f"kernels of {build.name[-4:]}")
    (builds[1] / "libresrt_split_attention_11.so").write_text("kernels of uild")
    a_build, the_same, another = (fingerprint(build, "a GPU") for build in builds)
    assert a_build == the_same
    assert len({a_build, another, fingerprint(builds[0], "another GPU")}) == 3
    workshops = [sound, replace(sound, max_batch=7), replace(sound, input_size=7)]
    files = {workshop.path_of(checks.SMALLEST, "fp16") for workshop in workshops}
    files |= {sound.path_of(checks.SMALLEST, "fp16", workspace=size) for size in (1, 2)}
    assert len(files) == 5
    assert sound.path_of(checks.SMALLEST, "fp16") in files


def test_the_timing_cache_is_tensorrts_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {}

    def build(*_: object, backend: str, tensorrt: Any, **__: object) -> None:
        given[backend] = tensorrt

    monkeypatch.setattr(resrt, "build", build)
    monkeypatch.setattr(Workshop, "status", lambda _: SimpleNamespace(version="1.2.3"))
    for backend in ("tensorrt", RTX, "openvino"):
        Workshop(backend, tmp_path, timing_cache=True).build(checks.SMALLEST, "fp16")
    assert f"{tmp_path}/timings-1.2.3-" in repr(given["tensorrt"])
    assert given[RTX] is given["openvino"] is None


def test_images_differ_by_more_than_fp16_rounds(sound: StandIn) -> None:
    """Or mixing them up could not be seen."""
    images = sound.images(checks.SMALLEST, 4)
    expected = sound.reference(checks.SMALLEST, images)
    assert difference(expected, expected, "fp16") == 0.0
    for precision in ("fp32", "fp16", "bf16"):
        with pytest.raises(WrongError):
            difference(np.roll(expected, 1, axis=0), expected, precision)
    not_a_number = expected.copy()
    not_a_number[0, 0] = np.nan
    with pytest.raises(WrongError, match="off by nan"):
        difference(not_a_number, expected, "bf16")


@pytest.mark.parametrize(
    ("run", "outcome", "message"),
    [
        (functools.partial(checks.logits, checks.SMALLEST, "bf16"), "not run", "fp16, fp32"),
        (functools.partial(checks.another_gpu, None), "not run", "--foreign FILE"),
        (checks.engine_built_without_gpu, "not run", "only TensorRT for RTX"),
        (functools.partial(checks.logits, "ResNet17", "fp32"), "failed", "ResNet17"),
        (functools.partial(operator.getitem, {}), "failed", "KeyError: "),
    ],
)
def test_outcomes(
    run: Callable[[Workshop], str], outcome: str, message: str, sound: StandIn
) -> None:
    result = checks.result_of(checks.Check("a check", run), sound)
    assert (result.name, result.outcome) == ("a check", outcome)
    assert message in result.detail


def test_what_should_be_refused_but_is_not(sound: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    load = resrt.load
    monkeypatch.setattr(resrt, "load", lambda file, device=None: load(file))
    monkeypatch.setattr(checks, "Driver", lambda: SimpleNamespace(count=lambda: 1))
    foreign = sound.engine_file(checks.SMALLEST, "fp16")
    for run in (checks.devices, functools.partial(checks.another_gpu, foreign)):
        result = checks.result_of(checks.Check("a check", run), sound)
        assert (result.outcome, result.detail) == ("failed", "no BackendError was raised")


@pytest.mark.parametrize(
    ("script", "outcome", "detail"),
    [
        ("echo ok; echo 0 of 3 wrong, seed 7", "ok", "0 of 3 wrong, seed 7"),
        (
            "echo WRONG size; echo ok; echo 1 of 3 wrong, seed 7; exit 1",
            "failed",
            "exit status 1: WRONG size; 1 of 3 wrong, seed 7",
        ),
        ("kill -SEGV $$", "failed", "exit status -11: "),
    ],
)
def test_the_kernels_program(
    script: str, outcome: str, detail: str, sound: StandIn, tmp_path: Path
) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    check, *_ = checks.machine_checks(program)
    result = checks.result_of(check, sound)
    assert (result.outcome, result.detail) == (outcome, detail)


def test_other_processes() -> None:
    assert process.run_apart(operator.add, 2, 3, limit=60) == 5
    with pytest.raises(process.ProcessError, match="its process ended with status 3"):
        process.run_apart(os._exit, 3, limit=60)
    with pytest.raises(process.ProcessError, match="it did not end within 0 s"):
        process.run_apart(time.sleep, 60, limit=0.2)


def test_what_was_left_behind_ends(tmp_path: Path) -> None:
    """Such as the program that compute-sanitizer started; or it would go on using the GPU."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    end = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    left_behind = f"exec 3> '{pipe}'; echo started >&3; sleep 60 &"
    assert process.run_apart(os.system, left_behind, limit=60) == 0
    assert os.read(end, 100) == b"started\n"
    readable, _, _ = select.select([end], [], [], 20)
    assert readable, "it goes on"
    assert os.read(end, 100) == b""
    os.close(end)


class Clock:
    """A clock that only what is timed moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def contender(self, name: str, seconds: dict[str, float], fault: float = 1.0) -> Any:
        def prepare(task: latency.Task) -> latency.Ready:
            def run() -> None:
                self.now += seconds[task.network]

            logits = task.workshop.reference(task.network, task.images)
            return latency.Ready(run, lambda: fault * logits)

        return latency.Contender(name, "host", prepare)


def test_latencies(sound: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(latency, "perf_counter", clock)
    monkeypatch.setattr(latency, "RATIO", ("ResNet34", "ResNet18"))
    seconds = {"ResNet18": 0.002, "ResNet34": 0.003}

    def left_out(task: latency.Task) -> latency.Ready:
        raise latency.LeftOutError("not here")

    taking_part = [
        clock.contender("tensorrt", seconds),
        clock.contender("tensorrt, plugin", {"ResNet34": 0.001}),  # ResNet18 has no such
        clock.contender("wrong", seconds, fault=1.1),
        latency.Contender("absent", "device", left_out),
    ]
    workshop = replace(sound, max_batch=2)
    latencies, ratios = latency.measure(workshop, list(seconds), "fp16", taking_part, 3)
    rows = {(row.network, row.contender): row for row in latencies}
    assert len(rows) == 8
    assert rows["ResNet18", "tensorrt"].median_ms == pytest.approx(2.0)
    assert rows["ResNet34", "tensorrt"].high_ms == pytest.approx(3.0)
    assert rows["ResNet18", "tensorrt, plugin"].error == "KeyError: 'ResNet18'"
    assert "logits are off by 1.0e-01" in str(rows["ResNet18", "wrong"].error)
    assert rows["ResNet34", "absent"].error == "not here"
    assert {ratio.contender: pytest.approx(ratio.median) for ratio in ratios} == {
        "tensorrt": 1.5,
        "tensorrt, plugin": 0.5,
    }


def test_who_fails_leaves_the_rounds_to_the_others(
    sound: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(latency, "perf_counter", clock)
    lasting = clock.contender("lasting", {checks.SMALLEST: 0.002})
    calls = []

    def prepare(task: latency.Task) -> latency.Ready:
        ready = lasting.prepare(task)

        def run() -> None:
            calls.append(1)
            if len(calls) > 40:
                raise RuntimeError("an illegal memory access\nand more")
            ready.run()

        return latency.Ready(run, ready.logits)

    taking_part = [latency.Contender("failing", "host", prepare), lasting]
    networks = ["ResNet17", checks.SMALLEST]  # of which there is no such
    latencies, _ = latency.measure(sound, networks, "fp16", taking_part, 5)
    rows = {(row.network, row.contender): row for row in latencies}
    assert len(calls) == 41
    failure = "RuntimeError: an illegal memory access"
    assert rows[checks.SMALLEST, "failing"].error == failure
    assert rows[checks.SMALLEST, "lasting"].median_ms == pytest.approx(2.0)
    for name in ("failing", "lasting"):
        assert "ResNet17" in str(rows["ResNet17", name].error)


@pytest.mark.parametrize("crashes", [False, True])
def test_who_loses_the_gpu_is_left_out(
    crashes: bool,
    sound: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    plain = clock.contender("tensorrt", {checks.SMALLEST: 0.002})
    is_lost = []

    def prepare(has_plugin: bool, task: latency.Task) -> latency.Ready:
        ready = plain.prepare(task)

        def run() -> None:
            if has_plugin:
                is_lost.append(1)
            if is_lost:
                raise RuntimeError("an illegal memory access")
            ready.run()

        return latency.Ready(run, ready.logits)

    def run_apart(function: Callable[..., Any], *arguments: Any, limit: float) -> Any:
        is_lost.clear()
        result = function(*arguments)
        if crashes and is_lost:
            raise process.ProcessError("its process ended with status -11")
        return result

    monkeypatch.setattr(latency, "perf_counter", clock)
    monkeypatch.setattr(process, "run_apart", run_apart)
    taking_part = [
        latency.Contender(
            name, "host", functools.partial(prepare, has_plugin), has_plugin=has_plugin
        )
        for name, has_plugin in (("first", False), ("plugin", True), ("last", False))
    ]
    part = gpu_check.Part((checks.SMALLEST,), "fp16", 3)
    options = argparse.Namespace(rounds=3, limit=60)
    latencies, _ = gpu_check.measure(part, sound, taking_part, options)
    rows = {row.contender: row for row in latencies}
    assert len(rows) == len(latencies) == 3
    assert rows["first"].median_ms == rows["last"].median_ms == pytest.approx(2.0)
    why = "its process ended with status -11" if crashes else "an illegal memory access"
    assert why in str(rows["plugin"].error)
    assert "once more without the plugin" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_the_processor_is_not_measured_for_the_gpu(sound: StandIn) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime is one for CUDA here")
    images = sound.images(checks.SMALLEST, 1)
    *_, contender = latency.contenders([])
    with pytest.raises(latency.LeftOutError, match="cannot use its CUDAExecutionProvider"):
        contender.prepare(latency.Task(checks.SMALLEST, "fp32", images, sound))


def test_a_stream_of_its_own() -> None:
    done: list[object] = []

    class Stream:
        cuda_stream = 77

        def synchronize(self) -> None:
            done.append("synchronized")

    @contextlib.contextmanager
    def current(stream: Stream) -> Any:
        done.append("entered")
        yield
        done.append("left")

    cuda = SimpleNamespace(
        Stream=Stream, stream=current, synchronize=lambda: done.append("all synchronized")
    )

    def infer(stream: int) -> str:
        done.append(stream)
        return "logits"

    ready = latency._in_a_stream(SimpleNamespace(cuda=cuda), infer, np.array)
    ready.run()
    assert done == ["all synchronized", "entered", 77, "left", "synchronized"]
    assert ready.logits() == "logits"


def test_the_most_wanted_latencies_come_first() -> None:
    options = argparse.Namespace(
        networks=["RegNetX_4GF", "ResNet50", "ResNeSt50"],
        precisions=["fp32", "fp16", "bf16"],
        batch=[8, 1],
    )
    parts = [(part.networks, part.precision, part.batch) for part in gpu_check.parts(options)]
    compared, other = ("ResNet50", "ResNeSt50"), ("RegNetX_4GF",)
    assert parts[:3] == [(compared, "fp16", 1), (compared, "fp32", 1), (compared, "fp32", 8)]
    assert [networks for networks, _, _ in parts] == [compared] * 6 + [other] * 6
    assert len(set(parts)) == 12


def test_engines_to_build(sound: StandIn) -> None:
    backends, networks = ["tensorrt", RTX], [checks.SPLIT_ATTENTION, checks.SMALLEST]
    fresh = replace(sound, max_batch=5)
    assert latency.engines_to_build(fresh, backends, networks, "fp16") == 5
    fresh.path_of(checks.SMALLEST, "fp16").touch()
    assert latency.engines_to_build(fresh, backends, networks, "fp16") == 4
    assert latency.engines_to_build(fresh, [], networks, "fp16") == 0


GPU = Gpu("a GPU", 86, 24.0, "1.0", "13.0")


def test_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_check, "Driver", lambda: SimpleNamespace(gpu=lambda: GPU))
    asked = []

    def outcome(check: checks.Check, workshop: Workshop, limit: float) -> checks.Result:
        asked.append((workshop.backend, check.name))
        is_absent = workshop.backend == "tensorrt" and check.name == checks.FIRST.name
        return checks.Result(check.name, "not run" if is_absent else "failed", "why")

    monkeypatch.setattr(checks, "run_apart", outcome)
    output = tmp_path / "report.json"
    arguments = ["--output", str(output), "--no-latencies", "--only", "the plugin's*", "memory*"]
    assert gpu_check.main(arguments) == 1
    first = checks.FIRST.name
    assert ("tensorrt", "memory that ends") not in asked
    assert [name for backend, name in asked if backend == "tensorrt"] == [first]
    assert [name for backend, name in asked if backend == "tensorrt_rtx"] == [first]
    document = json.loads(output.read_text())
    assert document["gpu"]["name"] == "a GPU"
    assert document["machine"]["libraries"]["resrt"] == resrt.__version__
    assert len(document["checks"]["kernels"]) == 3
    printed = capsys.readouterr().out
    assert "the backend is there" in printed
    for backend in ("tensorrt", "tensorrt_rtx"):
        _, others = document["checks"][backend]
        assert others == {"name": "further checks (1)", "outcome": "not run", "detail": "why"}
    assert f"4 checks failed; {output} has everything" in printed


def test_latencies_of_others_where_no_backend_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_check, "Driver", lambda: SimpleNamespace(gpu=lambda: GPU))

    def refuse(check: checks.Check, workshop: Workshop, limit: float) -> checks.Result:
        return checks.Result(check.name, "failed", "it refuses this GPU")

    def run_apart(function: Callable[..., Any], *arguments: Any, limit: float) -> Any:
        workshop, networks, precision, contenders, _ = arguments
        names = [contender.name for contender in contenders]
        assert names == ["PyTorch eager", "torch.compile", "ONNX Runtime CUDA"]
        found = (networks[0], precision, workshop.max_batch, names[0], "device", 1.0, 1.0, 1.0)
        return [latency.Latency(*found)], []

    monkeypatch.setattr(checks, "run_apart", refuse)
    monkeypatch.setattr(process, "run_apart", run_apart)
    output = tmp_path / "report.json"
    arguments = ["--output", str(output), "--engines", str(tmp_path / "engines"), "--only", "none"]
    assert gpu_check.main([*arguments, "--batch", "4"]) == 1
    document = json.loads(output.read_text())
    assert len(document["latencies"]) == 6
    assert [len(document["checks"][backend]) for backend in ("tensorrt", RTX)] == [1, 1]
    printed = capsys.readouterr().out
    assert "tensorrt_rtx: no latencies: it refuses this GPU" in printed
    assert "up to 0 engines are to be built, in 6 parts" in printed


def test_without_a_gpu_one_sentence_and_nothing_written(tmp_path: Path) -> None:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        pass
    else:
        pytest.skip("NVIDIA's driver is here")
    done = subprocess.run(
        [sys.executable, TOOLS / "gpu_check.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    why = "no GPU can be used here: NVIDIA's driver, libcuda.so.1, is not installed\n"
    assert (done.stdout, done.stderr) == ("", why)
    assert not list(tmp_path.iterdir())
