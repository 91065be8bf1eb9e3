"""The `resrt` command: help, errors and exit statuses of all commands."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import save_file

import resrt
from resrt import _core, cli
from resrt.operations import demo
from support.paths import PHOTOS


def _command_names() -> list[str]:
    [commands] = [
        action
        for action in cli._parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    ]
    return list(commands.choices)


COMMANDS = _command_names()
# None of these is required to print help or to list the networks.
HEAVY = "numpy", "PIL", "openvino", "safetensors", "onnx", "matplotlib", "rich", "huggingface_hub"


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "resrt", *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_that_parses(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main([name, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    _, found, example = text.partition(f"example: resrt {name}")
    assert found
    arguments = [word.strip("'\"") for word in example.split()]
    assert cli._parser().parse_args([name, *arguments]).run


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert {"models", "time", "doctor"} < set(COMMANDS) <= set(listed)


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["models"], ["models", "--format", "json"], ["models", "-h"]],
    ids=" ".join,
)
def test_help_and_lists_import_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import contextlib, sys\n"
        "from resrt import cli\n"
        f"with contextlib.suppress(SystemExit): assert cli.main({arguments}) == 0\n"
        f"print(*(name for name in {HEAVY} if name in sys.modules), file=sys.stderr, end='')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout
    assert result.stderr == ""


def test_heavy_imports_would_be_detected() -> None:
    script = (
        f"import resrt, sys; resrt.build, resrt.convert; print(*({HEAVY} & sys.modules.keys()))"
    )
    script = script.replace(str(HEAVY), f"set({HEAVY})")
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert {"numpy", "PIL", "safetensors"} <= set(result.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ("models --source nobody", 2),
        ("models no-such-network", 1),
        ("time no-such.engine", 1),
        ("weights no-such.pth", 1),
        (f"weights {'a' * 300}", 1),
        (f"build resnet18 -o x.engine --weights {'a' * 300}", 1),
        ("build resnet51 -o x.engine --weights random", 2),
        ("build resnet18 -o x.engine --weights random --mean 0.5 0.5", 2),
        ("build resnet18 -o x.engine --weights random --mean 127", 2),
        ("build resnet18 -o x.engine --weights random --std 0", 2),
        ("build resnet18 -o x.engine --weights random --crop-pct 1.5", 2),
        ("build resnet18 -o x.engine --weights random --like nosuch", 2),
        ("build resnet18 -o x.engine --weights random --max-batch 5000", 2),
        ("build resnet18 -o x.engine --weights random --outputs nosuch", 2),
        ("build resnet18 -o x.engine --weights random --workspace 1", 2),
        ("build resnet18 -o x.engine --weights random --precision fp8", 2),
        ("embed x.engine photos -o features.txt", 2),
        ("convert a.pth out.bin", 2),
        ("report --limit 3", 2),
        ("report --eval photos", 2),
        ("report --quick --rounds 2", 2),
        ("report x.engine --precisions fp32", 2),
    ],
)
def test_errors_are_one_sentence(arguments: str, status: int, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "resrt", *arguments.split()],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert result.returncode == status
    assert result.stdout == ""
    assert result.stderr.startswith("resrt: ")
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [["--debug", "models", "--source", "nobody"], ["models", "--source", "nobody", "--debug"]],
)
def test_debug_works_before_and_after_the_command(arguments: list[str]) -> None:
    with pytest.raises(resrt.InputError, match="nobody"):
        cli.main(arguments)


def test_quiet_works_before_and_after_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for arguments in (["doctor"], ["--quiet", "doctor"], ["doctor", "--quiet"]):
        cli.main(arguments)
        texts.append(capsys.readouterr().out)
    assert texts[1] == texts[2]
    assert len(texts[1]) < len(texts[0])


def test_quiet_shows_no_warnings(tmp_path: Path) -> None:
    """Without a handler, Python's logging prints them itself."""
    source = tmp_path / "mine.safetensors"
    save_file(_core.random_weights(resrt.build_graph("resnet18", classes=3), 0), source)
    arguments = ["convert", source, tmp_path / "x.safetensors", "--overwrite"]
    for options, warnings in (([], 1), (["--quiet"], 0)):
        result = subprocess.run(
            [sys.executable, "-m", "resrt", *arguments, *options],
            capture_output=True,
            text=True,
            check=True,
        )
        assert result.stderr.count("with other results") == warnings
        assert bool(result.stderr) == bool(warnings)


@pytest.mark.parametrize(
    "arguments",
    [[], ["no-such-command"], ["models", "--no-such-option"], ["time"], ["time", "x", "--batch"]],
    ids=" ".join,
)
def test_misuse_exits_with_2_and_prints_the_usage(arguments: list[str]) -> None:
    result = _run(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    command = " ".join(name for name in arguments[:1] if name in ("models", "time"))
    assert result.stderr.startswith(f"usage: resrt {command}".rstrip())
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("arguments", [["models"], ["doctor"]], ids=" ".join)
def test_output_is_plain_without_a_terminal(arguments: list[str]) -> None:
    result = _run(*arguments)
    assert result.stderr == ""
    assert not {"\x1b", "\r"} & set(result.stdout)


# The status is 0 if everything had already been written.
@pytest.mark.parametrize(("command", "statuses"), [("models", (0, 141)), ("demo", (141,))])
def test_closed_pipe_is_not_an_error(command: str, statuses: tuple[int, ...]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "resrt", command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() in statuses


def _redirected(arguments: str, redirection: str) -> subprocess.CompletedProcess[str]:
    command = f'exec "{sys.executable}" -m resrt {arguments} {redirection}'
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", ["models", "--version", "--help", "models --help", "demo"])
def test_output_that_cannot_be_written(
    arguments: str, unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    result = _redirected(arguments, ">/dev/full")
    message = "resrt: cannot write to standard output: No space left on device\n"
    assert (result.returncode, result.stderr) == (1, message)
    result = _redirected(arguments, ">&-")
    message = "resrt: standard output is closed; redirect it to a file\n"
    assert (result.returncode, result.stderr) == (1, message)


def test_standard_output_that_is_a_file_does_not_exist_already(
    small_engine: resrt.Engine, tmp_path: Path
) -> None:
    engine, file = tmp_path / "small.engine", tmp_path / "times.json"
    small_engine.save(engine)
    for path in ("/dev/stdout", "/proc/self/fd/1"):
        arguments = f"--quiet time {engine} --batch 1 --duration 0.01 -o {path}"
        result = _redirected(arguments, f"> {file}")
        assert (result.returncode, result.stderr) == (0, "")
        assert '"timings"' in file.read_text()


def test_standard_error_and_input_may_be_closed(small_engine: resrt.Engine, tmp_path: Path) -> None:
    engine = tmp_path / "small.engine"
    small_engine.save(engine)
    result = _redirected(f"classify {engine} none.jpg --format csv", "2>&-")
    assert (result.returncode, result.stdout.count("\n")) == (3, 2)
    assert _redirected("models --source nobody", "2>&-").returncode == 2
    result = _redirected(f"classify {engine} -", "<&-")
    message = "resrt: standard input is closed; - requires a list of files there\n"
    assert (result.returncode, result.stderr) == (1, message)


@pytest.mark.parametrize("command", ["classify", "eval", "time"])
def test_device_reaches_the_engine(
    command: str, small_engine: resrt.Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = tmp_path / "small.engine"
    small_engine.save(engine)
    photos = {"classify": [str(PHOTOS)], "eval": [str(PHOTOS)], "time": []}[command]
    assert cli.main([command, str(engine), *photos, "--device", "cuda:1"]) == 2
    assert "'openvino' does not run on a GPU; leave out device" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["models", "--descending"], "--descending requires a column to sort by"),
        (["eval", "x.engine", "{folder}", "--root", "y"], "--root is only for a list file"),
        (["time", "x.engine", "--overwrite"], "--overwrite requires the file to overwrite"),
        (["classify", "x.engine", "y.jpg", "-o", "z"], "-o requires --format json or csv"),
        (["eval", "x.engine", "y", "--resume"], "--resume requires the file to resume"),
        (["export", "-o", "x"], "requires either the name of a network or a file of parameters"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_do_not_belong_together(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([argument.format(folder=tmp_path) for argument in arguments]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith(f"resrt: {message}")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["build", "resnet18", "-o", "x", "--max-batch", "0"],
        ["build", "resnet18", "-o", "x", "--input-size", "-1"],
        ["build", "resnet18", "-o", "x", "--input-size", "64x0"],
        ["build", "resnet18", "-o", "x", "--input-size", "3x64x64"],
        ["compare", "resnet18", "--rounds", "0"],
        ["classify", "x", "y", "--topk", "0"],
        ["classify", "x", "y", "--workers", "2000000000"],
        ["classify", "x", "y", "-o", "z", "--format", "csv", "--resume", "--overwrite"],
        ["eval", "x", "y", "--limit", "none"],
        ["export", "resnet18", "-o", "x", "--batch", "0"],
        ["report", "--rounds", "0"],
        ["report", "--measurements", "x", "--save-measurements", "y"],
    ],
    ids=" ".join,
)
def test_invalid_values_are_misuse(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["build", "resnet18", "--weights", "random", "-o", "{file}"],
        ["convert", "no-such.pth", "{file}"],
        ["export", "resnet18", "--weights", "random", "-o", "{file}"],
        ["classify", "{engine}", "{photos}", "--format", "csv", "-o", "{file}"],
        ["eval", "{engine}", "{photos}", "-o", "{file}"],
        ["report", "--networks", "ResNet18", "-o", "{file}"],
        ["time", "{engine}", "--output", "{file}"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_existing_output_is_kept(
    arguments: list[str],
    tmp_path: Path,
    small_engine: resrt.Engine,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, engine, photos = tmp_path / "out", tmp_path / "small.engine", tmp_path / "photos"
    file.write_text("precious")
    small_engine.save(engine)
    for label in range(7):
        (photos / str(label)).mkdir(parents=True)
        (photos / str(label) / "x.jpg").symlink_to(PHOTOS / "china.jpg")
    places = {"file": file, "engine": engine, "photos": photos}
    assert cli.main([argument.format(**places) for argument in arguments]) == 1
    out, error = capsys.readouterr()
    assert out == ""
    assert f"'{file}' exists; " in error
    assert "--overwrite" in error
    assert file.read_text() == "precious"


def test_weights_describes_the_other_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = str(demo.weights_path()), str(tmp_path / "bad.pth")
    Path(bad).write_text("nonsense")
    assert cli.main(["weights", bad, good]) == 3
    out, error = capsys.readouterr()
    assert out.startswith(f"{good}:\n")
    assert error.startswith("resrt: ")
    assert "bad.pth" in error
    assert cli.main(["weights", good, bad, "--format", "json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert "bad.pth" in document[bad]["error"]
    assert document[good]["arrays"] > 0
    assert cli.main(["weights", bad, bad + "2"]) == cli.main(["weights", bad]) == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("argcomplete")
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "_ARGCOMPLETE" in script
    assert "resrt" in script


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("resrt insp", {"inspect"}),
        ("resrt build ResNet50_vd_s", {"ResNet50_vd_ssld", "ResNet50_vd_ssld_v2"}),
        ("resrt build --precision f", {"fp32", "fp16", "fp8"}),
        ("resrt build x --like resnet18.tv", {"resnet18.tv_in1k"}),
        ("resrt convert a b --network resnest14", {"resnest14d", "resnest14d.gluon_in1k"}),
        ("resrt report --networks ResNet50_vd_s", {"ResNet50_vd_ssld", "ResNet50_vd_ssld_v2"}),
        ("resrt models ResNet50_vd_s", {"ResNet50_vd_ssld", "ResNet50_vd_ssld_v2"}),
        ("resrt eval x.engine y --re", {"--resume"}),
    ],
)
def test_completion(line: str, expected: set[str], tmp_path: Path) -> None:
    pytest.importorskip("argcomplete")
    answer = tmp_path / "answer"
    environment = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_SHELL": "bash",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    subprocess.run([sys.executable, "-m", "resrt"], env=environment, check=False)
    assert {word.strip() for word in answer.read_text().split("\n")} == expected


def test_build_takes_a_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = str(tmp_path / "x.engine")
    options = ["ResNet18", "--weights", "random", "-o", output, "--no-cache", "--device", "cuda:1"]
    assert cli.main(["build", *options]) == 2
    assert (
        "--device is only for the TensorRT backends; choose one with --backend"
        in capsys.readouterr().err
    )
