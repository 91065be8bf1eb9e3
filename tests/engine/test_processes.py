"""Engines in forked processes, and in threads that run while the interpreter exits."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import resrt

PREPARE = """
import os, signal, sys, threading, time
import numpy, resrt

path, threads = sys.argv[1], int(sys.argv[2]) or None
engine = resrt.load(path, threads=threads)
batch = numpy.zeros((2, *engine.info.input_shape), numpy.float32)
engine.infer(batch)
"""


@pytest.fixture(scope="module")
def saved(small_engine: resrt.Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engines") / "small.engine"
    small_engine.save(path)
    return path


def run(script: str, saved: Path, threads: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            "-c",
            script,
            str(saved),
            str(threads),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("threads", [0, 1])
@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("engine.infer(batch)", "this engine was loaded in another process"),
        ("resrt.load(path, threads=threads)", "backend 'openvino' was used in another process"),
        ("resrt.build('ResNet18', 'random')", "backend 'openvino' was used in another process"),
        ("engine.save(path + '2'); print(resrt.inspect(path + '2').info.model)", "small"),
        ("del engine; print('deleted')", "deleted"),
        ("sys.exit(0)", ""),
    ],
)
def test_forked_process_never_hangs(
    saved: Path, threads: int, statement: str, expected: str
) -> None:
    script = f"""{PREPARE}
child = os.fork()
if child == 0:
    signal.alarm(20)  # ends a child that hangs
    try:
        {statement}
    except resrt.BackendError as error:
        print(error)
    sys.exit(0)
status = os.waitpid(child, 0)[1]
print(status, engine.infer(batch).shape)
"""
    done = run(script, saved, threads)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[-1] == "0 (2, 7)"
    assert expected in done.stdout
    if "another process" in expected:
        assert "start processes with multiprocessing's 'spawn' method" in done.stdout


@pytest.mark.parametrize("threads", [0, 1])
@pytest.mark.parametrize(
    "statement", ["engine.infer(batch)", "resrt.load(path, threads=threads).infer(batch)"]
)
def test_interpreter_exits_while_daemon_threads_run(
    saved: Path, threads: int, statement: str
) -> None:
    script = f"""{PREPARE}
def work():
    while True:
        {statement}

for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
"""
    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(lambda _: run(script, saved, threads), range(10)):
            assert (done.returncode, done.stderr) == (0, "")
