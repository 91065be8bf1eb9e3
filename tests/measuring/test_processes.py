"""Functions in processes of their own."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import resrt
from resrt.measuring.processes import Failed, Process, sentence

FUNCTIONS = """
import os, signal, subprocess, sys, time

calls = []

def add(a, b):
    return a + b

def count():
    calls.append(1)
    return len(calls)

def describe(graph):
    return type(graph).__name__, graph.name, [layer.name for layer in graph.layers]

def environment(name):
    return os.environ.get(name)

def fail(kind):
    import resrt
    raise {"ours": resrt.BackendError, "end": EOFError, "key": KeyError}[kind]("first\\nsecond")

def crash():
    os.abort()

def exit(status):
    sys.stderr.write("Traceback\\nits last words\\n\\n")
    os._exit(status)

def print_much():
    print("to stdout", flush=True)
    os.write(1, b"to its descriptor\\n" * 1000)
    subprocess.run(["echo", "from a child"], check=True)
    return "result"

def sleep(seconds):
    time.sleep(seconds)

def not_picklable():
    return lambda: None

def start_children():
    command = [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(600)"]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    for child in children:
        child.stdout.readline()
    return os.getpid(), *(child.pid for child in children)
"""


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """A module that this process and its children can import."""
    folder = tmp_path_factory.mktemp("functions")
    (folder / "functions_for_processes.py").write_text(FUNCTIONS)
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(folder)
        yield importlib.import_module("functions_for_processes")


@pytest.fixture
def process(functions: ModuleType) -> Iterator[Process]:
    with Process() as running:
        yield running


def test_results(process: Process, functions: ModuleType) -> None:
    assert process.call(functions.add, 2, 3) == 5
    assert process.call(functions.add, [1], [2]) == [1, 2]
    assert [process.call(functions.count) for _ in range(3)] == [1, 2, 3]
    assert functions.calls == []  # those of this process


def test_objects_of_the_core_arrive_as_plain_objects(
    process: Process, functions: ModuleType, small_graph: resrt.Graph
) -> None:
    kind, name, layers = process.call(functions.describe, small_graph)
    assert (kind, name) == ("SimpleNamespace", "small")
    assert layers == [layer.name for layer in small_graph.layers]


def test_environment(functions: ModuleType) -> None:
    with Process({"RESRT_TEST": "yes"}) as process:
        assert process.call(functions.environment, "RESRT_TEST") == "yes"
        assert process.call(functions.environment, "PATH") == os.environ["PATH"]
    assert "RESRT_TEST" not in os.environ


@pytest.mark.parametrize(
    ("kind", "message"),
    [("ours", "^first$"), ("end", "^EOFError: first$"), ("key", r"^KeyError: 'first\\nsecond'$")],
)
def test_exceptions_arrive_as_one_sentence(
    process: Process, functions: ModuleType, kind: str, message: str
) -> None:
    with pytest.raises(Failed, match=message):
        process.call(functions.fail, kind)
    assert process.call(functions.add, 1, 1) == 2  # it keeps running


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("one\ntwo"), "ValueError: one"),
        (ValueError("\n  two\n"), "ValueError: two"),
        (ValueError(), "ValueError: "),
        (resrt.InputError("one\ntwo"), "one"),
        (Failed("its process ended"), "its process ended"),
        (ValueError("x" * 1000), f"ValueError: {'x' * 300}"),
    ],
)
def test_sentence(error: Exception, expected: str) -> None:
    assert sentence(error) == expected


def test_crash(process: Process, functions: ModuleType) -> None:
    for _ in range(2):  # it can only be closed now
        with pytest.raises(Failed, match=f"^its process ended by signal {signal.SIGABRT.value}"):
            process.call(functions.crash)


@pytest.mark.parametrize("status", [0, 4])
def test_exit(process: Process, functions: ModuleType, status: int) -> None:
    with pytest.raises(Failed, match=f"^its process ended with status {status}: its last words$"):
        process.call(functions.exit, status)


def test_timeout(process: Process, functions: ModuleType) -> None:
    start = time.monotonic()
    with pytest.raises(Failed, match="^no result within 1 s$"):
        process.call(functions.sleep, 60, timeout=0.6)
    assert time.monotonic() - start < 30
    process.close()
    assert time.monotonic() - start < 30


def test_output_of_a_function_does_not_disturb(
    process: Process, functions: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    assert process.call(functions.print_much) == "result"
    assert process.call(functions.add, 1, 1) == 2
    assert capfd.readouterr() == ("", "")


def test_result_that_cannot_be_sent(process: Process, functions: ModuleType) -> None:
    with pytest.raises(Failed, match="^its process ended with status 1: .*pickle"):
        process.call(functions.not_picklable)


def test_everything_that_it_started_ends_with_it(functions: ModuleType) -> None:
    with Process() as process:
        started = process.call(functions.start_children)
        assert all(is_running(number) for number in started)
    deadline = time.monotonic() + 30
    while any(is_running(number) for number in started):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # a zombie has ended and waits for its parent


def test_it_ends_when_its_parent_does() -> None:
    script = (
        "import os\n"
        "from resrt.measuring.processes import Process\n"
        "print(Process().call(os.getpid), flush=True)\n"
        "os._exit(0)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    deadline = time.monotonic() + 30
    while is_running(int(done.stdout)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
