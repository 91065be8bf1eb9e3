"""`resrt.compare`: real and fake libraries, each in a process of its own."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import resrt
from resrt.measuring.processes import Failed
from resrt.operations.compare import competitors, measurement, paddle_inference
from resrt.operations.compare.competitors import OURS, Competitor, Task
from resrt.operations.compare.process import Contender, Report


def competitor(name: str, module: str = "resrt.operations.compare.ours") -> Competitor:
    return Competitor(name, name.title(), module, (), "")


def test_ratios_are_taken_within_rounds() -> None:
    """What slows down a whole round changes no ratio."""
    ours = np.array([1.0, 10.0, 2.0, 1.0, 1.0])
    seconds = {OURS.name: ours, "x": ours / np.array([0.5, 0.5, 0.25, 1.0, 0.75])}
    reports = {
        OURS.name: Report("1", "fp32", "", np.float32([[1, -4], [2, 0]])),
        "x": Report("2", "bf16", "", np.float32([[1, -4], [2, 0.5]])),
    }
    found = measurement(competitor("x"), 2, reports, seconds)
    assert (found.ratio_low, found.ratio, found.ratio_high) == (0.5, 0.5, 0.75)
    assert found.median_ms == 2000
    assert found.difference == 0.5 / 4
    assert (found.version, found.precision, found.batch) == ("2", "bf16", 2)
    assert "0.500 (0.500 – 0.750)" in str(found)


@pytest.fixture
def task(small_graph: resrt.Graph, tmp_path: Path) -> Task:
    return Task(tmp_path, small_graph, "fp32", 1)


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> Competitor:
    """Return a competitor whose module, which its process imports, has this source."""
    (folder / "fake_library.py").write_text(source)
    monkeypatch.syspath_prepend(folder)
    return competitor("fake", "fake_library")


FAKE = """
import numpy as np
from resrt.operations.compare.competitors import Ready
def prepare(task, name):
    print("libraries print")
    calls = []
    def run():
        calls.append(1)
        {in_run}
    shape = (len(task.graph.layers), task.graph.classes)
    return Ready("3", "fp32", "none", run, lambda: np.full(shape, task.threads))
"""


def test_contender_runs_the_task_at_its_turns(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = install(tmp_path, monkeypatch, FAKE.format(in_run="import time; time.sleep(0.02)"))
    running = Contender(fake, task)
    try:
        assert running.report.version == "3"
        assert running.report.logits.shape == (len(task.graph.layers), 7)
        assert running.report.logits.max() == 1
        assert running.turn() >= 0.02
    finally:
        running.close()


@pytest.mark.parametrize(
    ("in_run", "message"),
    [
        ("assert len(calls) < 3, 'too often'", "AssertionError: too often"),
        ("len(calls) < 3 or __import__('os').abort()", "its process ended by signal 6"),
        ("len(calls) < 3 or __import__('os')._exit(4)", "its process ended with status 4"),
    ],
)
def test_failure_at_a_turn(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_run: str, message: str
) -> None:
    running = Contender(install(tmp_path, monkeypatch, FAKE.format(in_run=in_run)), task)
    try:
        with pytest.raises(Failed, match=message):
            running.turn()  # its second and third run
    finally:
        running.close()


def test_layers_reach_the_process(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's competitor makes modules of them, by their classes."""
    raises = "    raise OSError(str([type(layer.definition) for layer in task.graph.layers]))"
    fake = install(tmp_path, monkeypatch, f"def prepare(task, name):\n{raises}")
    with pytest.raises(Failed, match="resrt._core.Input.*resrt._core.Conv2d"):
        Contender(fake, task)


def test_failure_to_prepare(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = install(tmp_path, monkeypatch, "def prepare(task, name): raise OSError('no licence')")
    with pytest.raises(Failed, match="OSError: no licence"):
        Contender(fake, task)


def test_onnx_runtime_and_openvino(small_graph: resrt.Graph) -> None:
    done: list[str] = []
    result = resrt.compare(
        small_graph,
        "random",
        batch_sizes=(1, 3),
        precision="fp32",
        threads=1,
        rounds=3,
        competitors=["onnxruntime", "openvino"],
        progress=done.append,
    )
    assert (result.network, result.weights, result.precision) == ("small", "random", "fp32")
    assert (result.threads, result.rounds, result.left_out) == (1, 3, {})
    names = [(row.batch, row.name) for row in result.measurements]
    order = ["resrt", "onnxruntime", "openvino"]
    assert names == [(batch, name) for batch in (1, 3) for name in order]
    for row in result.measurements:
        assert row.error is None
        assert row.median_ms is not None
        assert row.median_ms > 0
        assert row.ratio_low <= row.ratio <= row.ratio_high  # type: ignore[operator]
        assert row.difference is not None
        assert row.difference < 1e-4
    assert result.measurements[0].ratio == 1
    assert result.measurements[1].difference > 0  # type: ignore[operator]
    assert result.machine.libraries["onnxruntime"] == result.measurements[1].version
    assert done[-1] == "batch 3, 3 of 3 rounds"


def test_error_of_a_library_is_in_its_measurement(
    small_graph: resrt.Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Competitor("broken", "Broken", "no_such_module", (), "")
    monkeypatch.setattr(competitors, "ALL", (broken,))
    result = resrt.compare(
        small_graph, "random", batch_sizes=[1], threads=1, rounds=2, precision="fp32"
    )
    ours, row = result.measurements
    assert ours.error is None
    assert row.error is not None
    assert "ModuleNotFoundError" in row.error
    assert row.ratio is None
    assert "ModuleNotFoundError" in str(result)


def test_missing_library_is_left_out(
    small_graph: resrt.Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = Competitor(
        "absent", "Absent", "no_such_module", ("no_such_package",), "pip install it"
    )
    monkeypatch.setattr(competitors, "ALL", (absent,))
    result = resrt.compare(small_graph, "random", batch_sizes=[1], threads=1, rounds=1)
    assert result.left_out == {"Absent": "no_such_package not installed: pip install it"}
    assert "not run: Absent: no_such_package not installed: pip install it" in str(result)
    with pytest.raises(resrt.BackendError, match="cannot compare with Absent: .*pip install it"):
        resrt.compare(small_graph, "random", competitors=["absent"])


def test_busy_machine_is_reported(
    small_graph: resrt.Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    for load, is_busy in ((0.0, False), (1000.0, True)):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        result = resrt.compare(
            small_graph, "random", batch_sizes=[1], threads=1, rounds=1, competitors=[]
        )
        assert ("the machine was busy: 1000.0 runnable processes" in str(result)) is is_busy


def test_paddle_has_only_its_own_networks() -> None:
    assert paddle_inference.why_not("resnet50") == "PaddleClas has no network resnet50"
    assert "no network" not in (paddle_inference.why_not("ResNet50") or "")


def test_names_of_competitors() -> None:
    assert resrt.COMPETITORS == ("openvino", "onnxruntime", "torch", "torch-compile", "paddle")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"competitors": ["tensorflow"]},
            "unknown competitor 'tensorflow'; expected one of openvino",
        ),
        ({"batch_sizes": []}, "batch_sizes is empty"),
        ({"batch_sizes": [0]}, "a batch size must be"),
        ({"rounds": 0}, "rounds must be"),
        ({"threads": 0}, "threads must be"),
        ({"classes": 3}, "a graph already has its input size"),
    ],
)
def test_invalid_options(
    small_graph: resrt.Graph, options: dict[str, object], message: str
) -> None:
    with pytest.raises(resrt.InputError, match=message):
        resrt.compare(small_graph, "random", **options)  # type: ignore[arg-type]
