"""An interrupt ends a long call, whose work goes on in the background and is discarded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import resrt
from support.paths import PHOTOS

# The work takes a multiple of this, so an interrupt that waited for it would come too late.
SOON = 1.5


@pytest.fixture(scope="module")
def engine() -> resrt.Engine:
    """An engine of which an inference takes long enough to be interrupted."""
    return resrt.build("ResNet50", "random", precision="fp32", max_batch=4, threads=1)


@contextmanager
def interrupted(after: float = 0.3) -> Iterator[None]:
    """Expect KeyboardInterrupt soon after a signal that comes in `after` seconds."""
    timer = threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT))
    start = time.monotonic()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        yield
    assert time.monotonic() - start < after + SOON


@pytest.mark.parametrize(
    "work",
    [
        lambda engine: engine.infer(np.zeros((400, 3, 224, 224), np.float32)),
        lambda engine: engine.classify([PHOTOS / "china.jpg"] * 400),
        lambda engine: list(resrt.classify(engine, [PHOTOS / "china.jpg"] * 400)),
        lambda engine: resrt.eval(engine, [resrt.LabelledImage(PHOTOS / "china.jpg", 0)] * 400),
        lambda engine: engine.time([4], repeats=400),
        lambda engine: resrt.build("ResNeSt269", "random", input_size=320),
    ],
    ids=["infer", "Engine.classify", "classify", "eval", "time", "build"],
)
def test_a_long_call_is_interrupted(
    engine: resrt.Engine, work: Callable[[resrt.Engine], object]
) -> None:
    before = engine.infer(np.ones((1, 3, 224, 224), np.float32))
    with interrupted():
        work(engine)
    # The engine can be used, also while the abandoned work goes on.
    np.testing.assert_array_equal(engine.infer(np.ones((1, 3, 224, 224), np.float32)), before)


def test_a_save_that_waits_is_interrupted(engine: resrt.Engine, tmp_path: Path) -> None:
    """Such as for a slow disk; here, for the reader of a pipe."""
    os.mkfifo(pipe := tmp_path / "pipe")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with interrupted():
            engine.save(pipe)
    finally:
        os.close(reader)


def test_an_interrupted_save_leaves_nothing_behind(tmp_path: Path) -> None:
    """Also if the process ends at once."""
    resrt.build("resnet18", "random", input_size=64, precision="fp32").save(tmp_path / "x.engine")
    script = """
import os, signal, sys, threading
import resrt
engine = resrt.load(sys.argv[1] + "/x.engine")
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Timer(float(sys.argv[2]), os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    while True:
        engine.save(sys.argv[1] + "/y.engine")
except KeyboardInterrupt:
    sys.exit(7)
"""
    for after in ("1", "1.03", "1.06", "1.09"):
        done = subprocess.run([sys.executable, "-c", script, tmp_path, after], capture_output=True)
        assert (done.returncode, done.stderr) == (7, b"")
        assert {file.name for file in tmp_path.iterdir()} <= {"x.engine", "y.engine"}
    assert resrt.inspect(tmp_path / "y.engine").info.model == "resnet18"


def test_an_abandoned_profile_stops_after_an_inference(
    engine: resrt.Engine, tmp_path: Path
) -> None:
    engine.save(tmp_path / "engine")
    profiled = resrt.load(tmp_path / "engine", threads=1, profile=True)
    with interrupted():
        profiled.profile(4, repeats=10_000)
    profiled.profile(repeats=1)  # waits for the engine


def test_an_abandoned_inference_stops_after_a_part(engine: resrt.Engine) -> None:
    """It would take many seconds, and does not write to the memory of a batch that is gone."""
    threads = threading.active_count()
    with interrupted():
        engine.infer(np.zeros((400, 3, 224, 224), np.float32))
    start = time.process_time()
    time.sleep(SOON)
    used = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - used < 0.25
    assert time.process_time() - start < 2 * SOON
    assert threading.active_count() == threads


def test_other_threads_are_not_interrupted(engine: resrt.Engine) -> None:
    """Signals are for the main thread."""
    batch = np.zeros((8, 3, 224, 224), np.float32)
    results: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: results.append(engine.infer(batch)))
    thread.start()
    with interrupted(after=0.1):
        time.sleep(20)
    thread.join()
    np.testing.assert_array_equal(results[0], engine.infer(batch))


def test_results_are_the_same_in_every_thread(engine: resrt.Engine) -> None:
    """In the main thread, a long batch is computed in parts, by another thread."""
    batch = np.random.default_rng(0).normal(size=(9, 3, 224, 224)).astype(np.float32)
    results: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: results.append(engine.infer(batch)))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(engine.infer(batch), results[0])


def test_an_error_in_a_long_call_is_raised(tmp_path: Path) -> None:
    with pytest.raises(resrt.FileError, match="missing.engine"):
        resrt.load(tmp_path / "missing.engine")


@pytest.mark.parametrize(
    "work", ["resrt.build('ResNeSt269', 'random', input_size=320)", "resrt.load(sys.argv[1])"]
)
def test_the_process_ends_soon(engine: resrt.Engine, tmp_path: Path, work: str) -> None:
    """Although the abandoned work goes on, and with the exit status that the program chose."""
    if "load" in work:
        resrt.build("ResNeSt200", "random", max_batch=1).save(tmp_path / "x.engine")
    script = f"""
import os, signal, sys, threading, time
import resrt
signal.setitimer(signal.ITIMER_REAL, 0.5)
signal.signal(signal.SIGALRM, signal.default_int_handler)
start = time.monotonic()
try:
    {work}
except KeyboardInterrupt:
    print(time.monotonic() - start)
    sys.exit(7)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "x.engine")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    taken = float(process.stdout.readline())
    start = time.monotonic()
    assert process.wait() == 7
    assert time.monotonic() - start < SOON
    assert taken < 0.5 + SOON
    assert process.stderr is not None
    assert process.stderr.read() == ""
