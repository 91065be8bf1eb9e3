"""`resrt build`."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from safetensors.numpy import save_file

import resrt
from resrt import _core, cli
from resrt.cli.terminal import warnings_shown


def test_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RESRT_CACHE", str(tmp_path / "cache"))
    out = str(tmp_path / "x.engine")
    arguments = ["build", "resnet18", "--weights", "random", "--input-size", "64", "-o", out]
    arguments += ["--max-batch", "1"]
    for options, from_cache in [
        ([], False),
        (["--overwrite"], True),
        (["--no-cache", "--overwrite"], False),
    ]:
        assert cli.main([*arguments, *options]) == 0
        text = capsys.readouterr().out
        assert text.startswith("resnet18: 3x64x64 -> 1000 classes, ")
        assert ("from the cache" in text) == from_cache
    assert cli.main([*arguments, "--quiet", "--overwrite"]) == 0
    assert capsys.readouterr().out == ""


def test_preprocessing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "x.engine")
    arguments = ["build", "resnet18", "--weights", "random", "--input-size", "64", "--no-cache"]
    arguments += ["--max-batch", "1", "-o", out]
    for options, expected in (
        (
            [],
            "short side to 67, bicubic; crop 64x64; mean 0.485 0.456 0.406, std 0.229 0.224 0.225; "
            "assumed as for resnet18.a1_in1k",
        ),
        (
            [
                "--mean",
                ".5",
                ".25",
                "1",
                "--std",
                "0.5",
                "--crop-pct",
                "0.8",
                "--interpolation",
                "bilinear",
                "--crop-mode",
                "squash",
            ],
            "as squash: in the input's proportions, short side to 80, bilinear; crop 64x64; "
            "mean 0.5 0.25 1, std 0.5 0.5 0.5; mean, std, crop_pct, crop_mode, interpolation as "
            "given",
        ),
        (
            ["--like", "resnet18.tv_in1k", "--resize", "70"],
            "short side to 70, bilinear; crop 64x64; "
            "mean 0.485 0.456 0.406, std 0.229 0.224 0.225; resize as given; the rest as for "
            "resnet18.tv_in1k",
        ),
    ):
        Path(out).unlink(missing_ok=True)
        assert cli.main([*arguments, *options]) == 0
        assert expected in capsys.readouterr().out
        assert cli.main(["inspect", out]) == 0
        assert expected in capsys.readouterr().out
    assert cli.main([*arguments, "--input-size", "96x64", "--overwrite"]) == 0
    assert "resnet18: 3x96x64 -> 1000 classes" in capsys.readouterr().out
    for options in (["--resize", "70", "--crop-pct", "1"], ["--crop-mode", "border"]):
        with pytest.raises(SystemExit, match="2"):
            cli.main([*arguments, *options])


def test_labels(tmp_path: Path) -> None:
    out, labels = tmp_path / "x.engine", tmp_path / "labels.txt"
    labels.write_text("\n".join(f"class {i}" for i in range(1000)))
    arguments = ["build", "resnet18", "--weights", "random", "--input-size", "64", "--no-cache"]
    assert cli.main([*arguments, "-o", str(out), "--labels", str(labels), "--quiet"]) == 0
    assert resrt.inspect(out).info.labels[7] == "class 7"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("own.toml", 'family = "ResNeSt"\ndepths = [1, 1]\nwidth = 24\nradix = 3\n'),
        ("own.json", '{"family": "ResNeSt", "depths": [1, 1], "width": 24, "radix": 3}'),
    ],
)
def test_network_of_ones_own(tmp_path: Path, name: str, content: str) -> None:
    out = tmp_path / "x.engine"
    (tmp_path / name).write_text(content)
    arguments = ["build", "--config", str(tmp_path / name), "--weights", "random", "-o", str(out)]
    arguments += ["--input-size", "32", "--classes", "7", "--in-channels", "1", "--no-cache"]
    assert cli.main(arguments) == 0
    config = resrt.ResNeSt(depths=[1, 1], width=24, radix=3)
    expected = resrt.build_graph(config, classes=7, in_channels=1, input_size=32)
    assert resrt.inspect(out).info.layers == str(expected)
    exported = tmp_path / "x.onnx"
    assert cli.main(["export", *arguments[1:6], str(exported), "--input-size", "32"]) == 0
    assert exported.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.yaml", "", "must be a .json or .toml file"),
        ("x.json", "{", "is not valid json: "),
        ("x.toml", "=", "is not valid toml: "),
        ("x.json", "[]", 'must have an entry "family", one of ResNet, '),
        ("x.json", '{"family": "VGG"}', "not 'VGG'"),
        ("x.json", '{"family": ["ResNet"]}', "not ['ResNet']"),
        (
            "x.json",
            '{"family": "ResNet", "radix": 2}',
            "unknown parameter 'radix'; those of ResNet",
        ),
        ("x.json", '{"family": "ResNet", "depths": "3"}', "a parameter of the wrong type"),
        ("x.json", '{"family": "ResNet", "width": -1}', "width"),
    ],
)
def test_invalid_config(
    tmp_path: Path, name: str, content: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(content)
    config, out = str(tmp_path / name), tmp_path / "x.engine"
    arguments = ["build", "--config", config, "--weights", "random", "-o", str(out)]
    assert cli.main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()
    # One network is required, and no more.
    assert cli.main([*arguments, "resnet18"]) == cli.main(["build", "-o", str(out)]) == 2
    assert "either the name of a network or a file of parameters" in capsys.readouterr().err
    assert cli.main(["build", "--config", str(tmp_path / "none.json"), "-o", str(out)]) == 1
    assert "none.json': No such file" in capsys.readouterr().err


def test_tensorrt_options_reach_the_backend(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "x.engine")
    arguments = ["build", "resnet18", "--weights", "random", "-o", out, "--no-cache"]
    assert cli.main([*arguments, "--workspace", "64"]) == 2
    assert "TensorRT" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["build", "export"])
def test_key_and_warnings(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The entry of a checkpoint, and what the weights leave open, once each."""
    if command == "export":
        pytest.importorskip("onnx")
    arrays = _core.random_weights(resrt.build_graph("resnet18", classes=7), 0)
    both = {f"student.{name}": array for name, array in arrays.items()}
    both |= {f"teacher.{name}": array for name, array in arrays.items()}
    both |= {f"teacher.{name}": arrays[name][:5] for name in ("fc.weight", "fc.bias")}
    save_file(both, tmp_path / "both.safetensors")
    out = str(tmp_path / "out")
    arguments = [command, "resnet18", "--weights", str(tmp_path / "both.safetensors"), "-o", out]
    arguments += ["--input-size", "64", "--overwrite"]
    arguments += ["--no-cache"] if command == "build" else ["--no-verify"]
    for options, classes in ([], 7), (["--key", "teacher"], 5):
        assert cli.main([*arguments, *options]) == 0
        text, error = capsys.readouterr()
        assert f"{classes} classes" in text or f"x {classes}, opset" in text
        assumed = (
            "resrt: warning: the weights from both.safetensors do not say how photographs are "
            "preprocessed"
        )
        assert error.count(assumed) == 1
        left_aside = "left aside 102 arrays that do not belong to the network"
        assert error.count(left_aside) == (not options)
    assert cli.main([*arguments, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert cli.main([*arguments, "--key", "nobody"]) == 1
    assert "has no entry and no parameters under nobody" in capsys.readouterr().err


def test_key_requires_a_checkpoint() -> None:
    for given in ("random", None):
        with pytest.raises(resrt.InputError, match="key='x' names an entry of a checkpoint"):
            resrt.build("resnet18", given, key="x")


def test_warnings_of_libraries_are_for_logging(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings_shown(quiet=False):
        for name in ("resrt.openvino", "resrt.weights", "resrt.weights"):
            logging.getLogger(name).warning("from %s\x1b", name)
        logging.getLogger("resrt").info("nothing")
    logging.getLogger("resrt").warning("after")
    assert capsys.readouterr().err == "resrt: warning: from resrt.weights\\x1b\n"
