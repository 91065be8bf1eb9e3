"""`resrt time`."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

import resrt
from resrt import cli
from support.terminal import run_resrt


@pytest.fixture(scope="module")
def engine_file(small_engine: resrt.Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("time") / "small.engine"
    small_engine.save(file)
    return file


def _time(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["time", *arguments, "--duration", "0", "--repeats", "3"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_text(engine_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    assert document["settings"]["compile_for"] == []
    assert document["machine"]["libraries"]["resrt"] == resrt.__version__
    assert list(tmp_path.iterdir()) == [output]


def test_json(engine_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = _time(capsys, str(engine_file), "--batch", "2", "--format", "json")
    assert [one["batch"] for one in json.loads(text)["timings"]] == [2]


def test_profile(engine_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (str(engine_file), "--batch", "2", "--profile")
    text = _time(capsys, *arguments)
    assert re.search(
        r"^\d+\.\d\d ms in all layers at batch 2, the mean of 3 runs", text, re.MULTILINE
    )
    figures = r"\d+ +\d+\.\d{3} +\d+\.\d\d"
    assert re.search(rf"^layer1\.0\.conv2 +SplitAttention +{figures}$", text, re.MULTILINE)
    shares = re.findall(rf"^(?:\w+|\(\w+\)) +{figures}$", text, re.MULTILINE)
    assert sum(float(line.split()[-1]) for line in shares) == pytest.approx(100, abs=0.1)
    document = json.loads(_time(capsys, *arguments, "--format", "json"))["profile"]
    assert {"Conv2d", "SplitAttention"} <= {kind["kind"] for kind in document["kinds"]}
    assert sum(kind["share"] for kind in document["kinds"]) == pytest.approx(1)
    assert "in all layers" not in _time(capsys, str(engine_file), "--batch", "2")


def test_profile_of_an_engine_file_without_names(
    engine_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without_layers(engine: resrt.Engine, batch: int, *, repeats: int) -> resrt.Profile:
        steps = [resrt.Step("conv", "Convolution", (), "(Convolution)", 1.0)]
        return resrt.Profile(batch, repeats, steps)

    arguments = (str(engine_file), "--batch", "1", "--profile")
    remark = "does not name its layers: build it again"
    assert remark not in _time(capsys, *arguments)
    monkeypatch.setattr(resrt.Engine, "profile", without_layers)
    assert remark in _time(capsys, *arguments)


def test_profile_of_too_large_a_batch(
    engine_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["time", str(engine_file), "--batch", "8", "--profile"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "splits 8 images and begins with 4; choose another" in captured.err


def test_quiet(engine_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = _time(capsys, str(engine_file), "--batch", "1", "--quiet")
    assert re.match(r"step +ms\nload and warm up ", text)
    assert "p99 of fewer" not in text


def test_published_latencies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "resnet18.engine"
    engine = resrt.build("ResNet18", "random", max_batch=1)
    engine.save(file)
    lines = _time(capsys, str(file), "--batch", "1").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("median (ms)"))
    assert lines[start].split()[2:] == ["batch", "1", "batch", "4", "batch", "8"]
    assert lines[start + 1].split()[:2] == ["here:", engine.info.precision]
    assert lines[start + 1].split()[-2:] == ["–", "–"]
    assert lines[start + 2].split() == ["published:", "V100,", "fp32", "1.22", "2.19", "3.63"]
    # One caller measured the published latencies.
    assert "published" not in _time(capsys, str(file), "--batch", "1", "--concurrency", "2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "0"], "--repeats: must be an integer of at least 1, not '0'"),
        (["--duration", "nan"], "--duration: must be a number of seconds of at least 0, not 'nan'"),
        (["--batch", "0"], "--batch: must be an integer of at least 1, not '0'"),
        (["--threads", "0"], "--threads: must be an integer of at least 1, not '0'"),
        (["--warm-up", "-1"], "--warm-up: must be an integer of at least 0, not '-1'"),
        (["--concurrency", "1.5"], "--concurrency: must be an integer of at least 1, not '1.5'"),
        (["--device", "gpu"], "--device: must be a GPU such as cuda or cuda:1, not 'gpu'"),
    ],
)
def test_invalid_options(
    engine_file: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["time", str(engine_file), *arguments])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err


def test_output_that_cannot_be_written(
    engine_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["time", str(engine_file), "--output", "/no/such/folder/times.json"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "cannot write '/no/such/folder/times.json'" in captured.err


@pytest.mark.parametrize(("load", "is_busy"), [(0.0, False), (1000.0, True)])
def test_busy_machine_is_reported(
    engine_file: Path,
    load: float,
    is_busy: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    remark = "The machine was busy: 1000.0 runnable processes on "
    for options in ([], ["--quiet"]):
        text = _time(capsys, str(engine_file), "--batch", "1", *options)
        assert (remark in text) is is_busy
    document = json.loads(_time(capsys, str(engine_file), "--batch", "1", "--format", "json"))
    assert document["load"] == load


def test_failure_keeps_the_old_output(tmp_path: Path, engine_file: Path) -> None:
    output = tmp_path / "times.json"
    output.write_text("of the last measurement")
    for arguments in (["no-such.engine"], ["no-such.engine", "--overwrite"], [str(engine_file)]):
        assert cli.main(["time", *arguments, "--output", str(output)]) == 1
    with pytest.raises(SystemExit, match="2"):
        cli.main(["time", str(engine_file), "--batch", "0", "--output", str(output)])
    assert cli.main(["time", str(engine_file), "--output", str(tmp_path)]) == 1  # a folder
    assert output.read_text() == "of the last measurement"
    assert list(tmp_path.iterdir()) == [output]


def test_progress_is_shown_only_on_a_terminal(engine_file: Path) -> None:
    arguments = ["time", str(engine_file), "--batch", "2", "--duration", "0"]
    shown = run_resrt(*arguments, stream="stderr")
    assert "measuring: batch 2" in shown
    assert shown.endswith("\r\x1b[K")  # it is erased at the end
    assert run_resrt(*arguments, "--quiet", stream="stderr") == ""
    assert "measuring" not in run_resrt(*arguments, stream="stdout")


def test_batch_sizes(engine_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(
        _time(capsys, str(engine_file), "--batch-sizes", "1", "4", "--format", "json")
    )
    assert document["settings"]["compile_for"] == [1, 4]
