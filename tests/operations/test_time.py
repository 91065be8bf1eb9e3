"""How long something takes: `timing.measure`, `resrt.time` and the command."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import resrt
from resrt import cli
from resrt.measuring import timing
from support.paths import ROOT
from support.terminal import run_resrt


@pytest.fixture(scope="module")
def engine_file(small_engine: resrt.Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("time") / "small.engine"
    small_engine.save(file)
    return file


@pytest.fixture(scope="module")
def published_engine() -> resrt.Engine:
    return resrt.build("ResNet18", "random", max_batch=1)


def test_runs_are_counted_without_the_warm_up() -> None:
    calls = itertools.count()
    found = timing.measure(lambda: next(calls), 5, repeats=7, warm_up=4)
    assert next(calls) == 11
    assert (found.batch, found.repeats, found.concurrency) == (5, 7, 1)
    assert found.images_per_second == pytest.approx(5 * 7 / found.seconds)


def test_a_duration_is_filled() -> None:
    pause = threading.Event()
    found = timing.measure(lambda: pause.wait(0.002), 1, repeats=2, duration=0.1, warm_up=0)
    assert found.seconds >= 0.1
    assert 2 < found.repeats <= 0.1 / 0.002 + 1


@pytest.mark.parametrize(
    ("runs", "median", "p90", "p99"),
    [  # as in cpp/tests/engine_test.cpp
        (1, 1, 1, 1),
        (2, 1, 2, 2),
        (9, 5, 9, 9),
        (10, 5, 9, 10),
        (30, 15, 27, 30),
        (100, 50, 90, 99),
        (101, 51, 91, 100),
        (1000, 500, 900, 990),
    ],
)
def test_percentiles_are_of_runs_that_took_place(
    runs: int, median: float, p90: float, p99: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The clock at the start and the end of runs of …, 3, 2, 1 ms.
    clock = itertools.chain.from_iterable((0, 1_000_000 * ms) for ms in range(runs, 0, -1))
    monkeypatch.setattr(timing, "perf_counter_ns", lambda: next(clock))
    found = timing.measure(lambda: None, 1, repeats=runs, warm_up=0)
    assert (found.min_ms, found.median_ms, found.p90_ms, found.p99_ms) == (1, median, p90, p99)


def test_callers_come_at_once() -> None:
    together = threading.Barrier(3, timeout=30)  # which lets none pass before all three are there
    found = timing.measure(together.wait, 2, repeats=7, warm_up=1, concurrency=3)
    assert (found.repeats, found.concurrency) == (9, 3)


def test_a_failure_ends_every_caller() -> None:
    calls = itertools.count()

    def fail_once() -> None:
        if next(calls) == 20:
            raise resrt.InputError("the twenty-first call")

    with pytest.raises(resrt.InputError, match="twenty-first"):
        timing.measure(fail_once, 1, repeats=10, duration=3600, concurrency=2)


def test_an_engine_file(engine_file: Path) -> None:
    steps: list[str] = []
    found = resrt.time(
        engine_file, batch_sizes=(1, 6), repeats=4, duration=0, threads=1, progress=steps.append
    )
    assert steps == ["load", "preprocessing", "batch 1", "batch 6"]
    assert (found.model, found.precision, found.input_shape) == ("small", "fp32", (3, 32, 32))
    assert found.load_ms is not None
    assert found.first_ms is not None
    assert found.load_ms > found.first_ms > 0
    assert [(one.batch, one.repeats) for one in found.timings] == [(1, 4), (6, 4)]
    assert found.preprocessing is not None
    assert (found.preprocessing.batch, found.preprocessing.repeats) == (1, 4)
    assert found.settings.threads == 1
    assert found.published == {}
    assert found.machine.libraries["openvino"] == found.backend_version


def test_an_engine_that_was_loaded_before(small_engine: resrt.Engine) -> None:
    found = resrt.time(small_engine, batch_sizes=[2], repeats=1, duration=0, concurrency=2)
    assert (found.load_ms, found.first_ms) == (None, None)
    assert [(one.repeats, one.concurrency) for one in found.timings] == [(2, 2)]
    for settings in ({"threads": 1}, {"device": "cuda:1"}):
        with pytest.raises(resrt.InputError, match="its device from when it was loaded"):
            resrt.time(small_engine, **settings)


def test_an_engine_that_takes_no_photographs() -> None:
    graph = resrt.build_graph(
        resrt.ResNet(depths=[1], width=8), classes=2, input_size=32, in_channels=4
    )
    found = resrt.time(resrt.build(graph, "random"), batch_sizes=[1], repeats=1, duration=0)
    assert found.preprocessing is None
    assert json.dumps(found.document())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_sizes": [0]}, "a batch size must be"),
        ({"repeats": 0}, "repeats must be a whole number of at least 1, not 0"),
        ({"duration": -1}, "duration must be a number of seconds of at least 0, not -1"),
        ({"duration": float("inf")}, "duration must be"),
        ({"duration": "1"}, "duration must be"),
        ({"warm_up": -1}, "warm_up must be a whole number of at least 0, not -1"),
        ({"concurrency": 0}, "concurrency must be"),
    ],
)
def test_impossible_settings(small_engine, settings, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(resrt.InputError, match=message):
        resrt.time(small_engine, **settings)
    with pytest.raises(resrt.InputError, match=message):
        small_engine.time(**settings)


def _time(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["time", *arguments, "--duration", "0", "--repeats", "3"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_command(engine_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "times.json"
    text = _time(capsys, str(engine_file), "--batch", "1", "3", "--output", str(output))
    assert text.startswith("small: 3x32x32, fp32 on openvino")
    assert re.search(r"^load and warm up +\d+\.\d\d$", text, re.MULTILINE)
    rows = re.findall(r"^ +(\d+)(?: +\d+\.\d\d){4} +\d+\.\d +3$", text, re.MULTILINE)
    assert rows == ["1", "3"]
    assert "The p99 of fewer than 100 runs is the slowest" in text
    assert "published" not in text
    document = json.loads(output.read_text())
    assert document["model"] == "small"
    assert [one["repeats"] for one in document["timings"]] == [3, 3]
    assert all(one["images_per_second"] > 0 for one in document["timings"])
    assert document["settings"]["concurrency"] == 1
    assert document["machine"]["libraries"]["resrt"] == resrt.__version__
    assert list(tmp_path.iterdir()) == [output]


def test_command_prints_json(engine_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = _time(capsys, str(engine_file), "--batch", "2", "--format", "json")
    assert [one["batch"] for one in json.loads(text)["timings"]] == [2]


def test_command_that_is_quiet(engine_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = _time(capsys, str(engine_file), "--batch", "1", "--quiet")
    assert text.startswith("what one waits for")
    assert "p99 of fewer" not in text


def test_published_latencies_stand_beside_ours(
    published_engine: resrt.Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "resnet18.engine"
    published_engine.save(file)
    lines = _time(capsys, str(file), "--batch", "1").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("median (ms)"))
    assert lines[start].split()[2:] == ["batch", "1", "batch", "4", "batch", "8"]
    assert lines[start + 1].split()[:2] == ["here:", published_engine.info.precision]
    assert lines[start + 1].split()[-2:] == ["–", "–"]
    assert lines[start + 2].split() == ["published:", "V100,", "fp32", "1.22", "2.19", "3.63"]


def test_published_latencies_are_of_the_same_input_size(published_engine: resrt.Engine) -> None:
    found = resrt.time(published_engine, batch_sizes=[1], repeats=1, duration=0)
    published = resrt.model_info("ResNet18").published
    assert published is not None
    assert found.published == published.latency_ms
    smaller = resrt.build("ResNet18", "random", max_batch=1, input_size=64)
    assert resrt.time(smaller, batch_sizes=[1], repeats=1, duration=0).published == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "0"], "repeats must be"),
        (["--duration", "nan"], "duration must be"),
        (["--batch", "0"], "a batch size must be"),
        (["--threads", "0"], "threads must be"),
        (["--output", "/no/such/folder/times.json"], "cannot write '/no/such/folder/times.json'"),
    ],
)
def test_command_with_bad_input(
    engine_file: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["time", str(engine_file), *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err


def test_output_is_not_touched_by_a_failure(tmp_path: Path, engine_file: Path) -> None:
    output = tmp_path / "times.json"
    output.write_text("of last time")
    for arguments in (["no-such.engine"], [str(engine_file), "--batch", "0"]):
        assert cli.main(["time", *arguments, "--output", str(output)]) == 1
    assert cli.main(["time", str(engine_file), "--output", str(tmp_path)]) == 1  # a folder
    assert output.read_text() == "of last time"
    assert list(tmp_path.iterdir()) == [output]


def test_progress_is_for_a_terminal(engine_file: Path) -> None:
    arguments = ["time", str(engine_file), "--batch", "2", "--duration", "0"]
    shown = run_resrt(*arguments, stream="stderr")
    assert "measuring: batch 2" in shown
    assert shown.endswith("\r\x1b[K")  # nothing of it stays
    assert run_resrt(*arguments, "--quiet", stream="stderr") == ""
    assert "measuring" not in run_resrt(*arguments, stream="stdout")


def test_settings_and_document_agree(small_engine: resrt.Engine) -> None:
    found = resrt.time(small_engine, batch_sizes=[1], repeats=2, duration=0, warm_up=0)
    assert found.document()["settings"] == dataclasses.asdict(found.settings)
    assert found.document()["settings"]["warm_up"] == 0


def test_tools(tmp_path: Path) -> None:
    engine = tmp_path / "x.engine"
    _tool("build_engine.py", "regnetx_002", "random", str(engine), "--max-batch", "2")
    assert resrt.load(engine).info.max_batch == 2
    lines = _tool("benchmark.py", "regnetx_002", "--batch", "1", "2", "--duration", "0")
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert lines[0].count("|") == lines[2].count("|") == 5
    assert cells[0] == "regnetx_002"
    assert all(float(cell) > 0 for cell in cells[2:])


def _tool(name: str, *arguments: str) -> list[str]:
    command = [sys.executable, str(ROOT / "tools" / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
