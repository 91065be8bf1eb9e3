"""Comparing: the turns, what comes of them, and real libraries in processes of their own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import resrt
from resrt import cli
from resrt.operations import compare as comparison
from resrt.operations.compare import measurement, take_turns
from resrt.operations.compare.competitors import OURS, Competitor, Ready, Task, process
from resrt.operations.compare.process import Failed, Process, Report


def competitor(name: str, module: str = "resrt.operations.compare.ours") -> Competitor:
    return Competitor(name, name.title(), module, (), "")


class Runner:
    """Takes the seconds that it is told, and notes its turns; None: it fails."""

    def __init__(self, name: str, seconds: list[float | None], turns: list[str]) -> None:
        self.competitor = competitor(name)
        self._seconds = iter(seconds)
        self._turns = turns

    def turn(self) -> float:
        self._turns.append(self.competitor.name)
        seconds = next(self._seconds)
        if seconds is None:
            raise Failed("it broke")
        return seconds


def test_each_has_a_turn_in_every_round_and_each_is_first_in_turn() -> None:
    turns: list[str] = []
    rounds = []
    runners = [Runner(name, list(range(5)), turns) for name in "abc"]
    seconds, failures = take_turns(runners, 3, rounds.append)
    assert "".join(turns) == "abcbcacababcbca"
    assert not failures
    for name in "abc":
        np.testing.assert_array_equal(seconds[name], [2, 3, 4])  # two rounds are for warming up
    assert rounds == [1, 2, 3]


def test_one_that_fails_is_left_behind() -> None:
    turns: list[str] = []
    seconds, failures = take_turns(
        [
            Runner("a", [1.0] * 6, turns),
            Runner("b", [1.0, 1.0, 1.0, None], turns),
            Runner("c", [1.0] * 6, turns),
        ],
        4,
        lambda done: None,
    )
    assert failures == {"b": "it broke"}
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 4, "c": 4}
    assert turns.count("b") == 4
    assert turns.count("a") == turns.count("c") == 6


def test_ratios_are_taken_within_rounds() -> None:
    """What slows a whole round down changes no ratio."""
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
    """A competitor whose module, which the other process imports, is `source`."""
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


def test_a_process_gets_the_task_and_runs_when_asked(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = install(tmp_path, monkeypatch, FAKE.format(in_run="import time; time.sleep(0.02)"))
    running = Process(fake, task)
    try:
        assert running.report.version == "3"
        assert running.report.logits.shape == (len(task.graph.layers), 7)
        assert running.report.logits.max() == 1
        assert running.turn() >= 0.02
    finally:
        running.close()


@pytest.mark.parametrize(
    ("in_run", "reason"),
    [
        ("assert len(calls) < 3, 'too often'", "AssertionError: too often"),
        ("len(calls) < 3 or __import__('os').abort()", "its process ended by signal 6"),
        ("len(calls) < 3 or __import__('os')._exit(4)", "its process ended with status 4"),
    ],
)
def test_whatever_happens_to_it_is_told(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_run: str, reason: str
) -> None:
    running = Process(install(tmp_path, monkeypatch, FAKE.format(in_run=in_run)), task)
    try:
        with pytest.raises(Failed, match=reason):
            running.turn()  # its second run and its third
    finally:
        running.close()


def test_a_library_that_cannot_be_prepared(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = install(tmp_path, monkeypatch, "def prepare(task, name): raise OSError('no licence')")
    with pytest.raises(Failed, match="OSError: no licence"):
        Process(fake, task)


def test_a_turn_is_one_run_to_warm_up_and_one_that_counts() -> None:
    runs: list[float] = []

    def run() -> None:
        runs.append(process.time.perf_counter())

    assert process.timed(Ready("", "", "", run, lambda: 0)) < 1
    assert len(runs) == 2


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


def test_an_error_in_one_is_in_its_row(
    small_graph: resrt.Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Competitor("broken", "Broken", "no_such_module", (), "")
    monkeypatch.setattr(comparison, "COMPETITORS", (broken,))
    result = resrt.compare(
        small_graph, "random", batch_sizes=[1], threads=1, rounds=2, precision="fp32"
    )
    ours, row = result.measurements
    assert ours.error is None
    assert row.error is not None
    assert "ModuleNotFoundError" in row.error
    assert row.ratio is None
    assert "ModuleNotFoundError" in str(result)


def test_what_is_not_installed_is_left_out(
    small_graph: resrt.Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = Competitor(
        "absent", "Absent", "no_such_module", ("no_such_package",), "pip install it"
    )
    monkeypatch.setattr(comparison, "COMPETITORS", (absent,))
    result = resrt.compare(small_graph, "random", batch_sizes=[1], threads=1, rounds=1)
    assert result.left_out == {"Absent": "no_such_package not installed: pip install it"}
    assert "left out: Absent: no_such_package not installed: pip install it" in str(result)
    with pytest.raises(resrt.BackendError, match="cannot compare with Absent: .*pip install it"):
        resrt.compare(small_graph, "random", competitors=["absent"])


def test_a_busy_machine_is_told_of(
    small_graph: resrt.Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    for load, is_busy in ((0.0, False), (1000.0, True)):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        result = resrt.compare(
            small_graph, "random", batch_sizes=[1], threads=1, rounds=1, competitors=[]
        )
        assert ("not quiet" in str(result)) is is_busy


def test_paddle_has_only_its_own_networks() -> None:
    assert comparison.paddle_inference.why_not("resnet50") == (
        "resnet50 is no network of PaddleClas"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"competitors": ["tensorflow"]}, "no competitor 'tensorflow'; choose of openvino"),
        ({"batch_sizes": []}, "batch_sizes is empty"),
        ({"batch_sizes": [0]}, "a batch size must be"),
        ({"rounds": 0}, "rounds must be"),
        ({"threads": 0}, "threads must be"),
        ({"classes": 3}, "a graph has its input size"),
    ],
)
def test_bad_options(small_graph: resrt.Graph, options: dict[str, object], message: str) -> None:
    with pytest.raises(resrt.InputError, match=message):
        resrt.compare(small_graph, "random", **options)  # type: ignore[arg-type]


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["compare", "resnet18", "--weights", "random", "--input-size", "32", "--batch", "1"]
    arguments += ["--rounds", "2", "--threads", "1", "--with", "onnxruntime"]
    assert cli.main(arguments) == 0
    captured = capsys.readouterr()
    assert "resnet18, images 3 x 32 x 32" in captured.out
    assert "ONNX Runtime" in captured.out
    assert captured.err == ""
    assert cli.main([*arguments, "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in document["measurements"]] == ["resrt", "onnxruntime"]
    assert document["machine"]["cores"] >= 1
    assert cli.main([*arguments, "--with", "mxnet"]) == 1
    assert "no competitor 'mxnet'" in capsys.readouterr().err


def test_command_when_one_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Competitor("broken", "Broken", "no_such_module", (), "")
    monkeypatch.setattr(comparison, "COMPETITORS", (broken,))
    arguments = ["compare", "resnet18", "--weights", "random", "--input-size", "32", "--batch", "1"]
    assert cli.main([*arguments, "--rounds", "1", "--threads", "1"]) == 3
    assert "Broken" in capsys.readouterr().out
