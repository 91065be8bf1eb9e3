"""`resrt build`: engine files, and those that need not be built again; `resrt inspect`."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest

import resrt
from resrt import _core, cli
from resrt.operations import build as engine_cache

CONFIG = resrt.ResNet(depths=[1, 1], width=8)
OPTIONS = {"input_size": 32, "precision": "fp32", "max_batch": 2}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESRT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "engines"


def build(out: Path, weights: object = "random", **changes: object) -> resrt.BuiltFile:
    return resrt.build_file(CONFIG, out, weights, **{**OPTIONS, **changes})  # type: ignore[arg-type]


def test_the_same_engine_is_built_once(tmp_path: Path, cache: Path) -> None:
    first, second = tmp_path / "1.engine", tmp_path / "2.engine"
    built = build(first)
    again = build(second)
    assert (built.from_cache, again.from_cache) == (False, True)
    assert first.read_bytes() == second.read_bytes()
    assert again.size == second.stat().st_size
    assert (again.info.model, again.info.max_batch) == ("ResNet", 2)
    assert resrt.load(second).info.input_shape == (3, 32, 32)
    assert len(list(cache.iterdir())) == 1
    assert not build(first, cache=False).from_cache


def test_another_engine_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "x.engine"
    arrays = {
        name: np.ascontiguousarray(array)
        for name, array in _core.random_weights(
            resrt.build_graph(CONFIG, input_size=32, name="ResNet"), 1
        ).items()
    }
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(map(str, range(1000))))
    others = [
        {},
        {"max_batch": 3},
        {"input_size": 48},
        {"weights": arrays},
        {"weights": {**arrays, "fc.bias": arrays["fc.bias"] + 1}},
        {"labels": labels},
    ]
    for other in others:
        assert not build(out, **other).from_cache  # type: ignore[arg-type]
        assert build(out, **other).from_cache  # type: ignore[arg-type]
    labels.write_text(labels.read_text().replace("7", "seven"))
    assert not build(out, labels=labels).from_cache
    monkeypatch.setattr(_core, "__version__", "99")
    assert not build(out).from_cache


def test_weights_are_told_by_their_content(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    graph = resrt.build_graph(CONFIG, input_size=32, name="ResNet")
    file, out = tmp_path / "w.safetensors", tmp_path / "x.engine"
    save_file(_core.random_weights(graph, 1), file)
    before = build(out, file)
    assert build(out, str(file)).from_cache
    assert len(before.info.weights_sha256) == 64
    save_file(_core.random_weights(graph, 2), file)
    after = build(out, file)
    assert not after.from_cache
    assert after.info.weights_sha256 != before.info.weights_sha256


def test_all_that_layers_say_tells_an_engine(tmp_path: Path) -> None:
    """Even what their text leaves out, where the weights say nothing of it."""
    out = tmp_path / "x.engine"
    for bias in (False, True):
        config = resrt.ResNeSt(depths=[1], width=16, stem_channels=16, attention_bias=bias)
        graph = resrt.build_graph(config, classes=7, input_size=32, name="same")
        assert not resrt.build_file(graph, out, "random").from_cache
        assert resrt.build_file(graph, out, "random").from_cache


def test_progress_makes_no_other_engine(tmp_path: Path) -> None:
    told: list[tuple[object, ...]] = []
    for _ in range(2):
        built = build(tmp_path / "x.engine", progress=lambda *step: told.append(step))
    assert built.from_cache


def test_a_damaged_copy_is_built_anew(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "x.engine"
    build(out)
    (kept,) = cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:-9])
    with caplog.at_level(logging.WARNING, "resrt"):
        assert not build(out).from_cache
    assert "removed from the cache" in caplog.text
    assert build(out).from_cache


def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RESRT_CACHE", str(tmp_path / "file"))
    assert not build(tmp_path / "x.engine").from_cache
    assert "not kept in the cache" in caplog.text
    assert resrt.load(tmp_path / "x.engine").info.model == "ResNet"


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    build(tmp_path / "x.engine")
    for _ in range(2):
        with pytest.raises(resrt.FileError, match="cannot write"):
            build(tmp_path / "none" / "x.engine")


def test_what_was_not_used_for_longest_goes(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x.engine"
    for size in (32, 64, 96):
        built = build(out, input_size=size)
    for age, file in enumerate(sorted(cache.iterdir(), key=lambda file: file.stat().st_mtime_ns)):
        os.utime(file, (age, age))
    assert build(out, input_size=32).from_cache  # the oldest, and now the newest
    monkeypatch.setenv("RESRT_CACHE_GB", str(3.5 * built.size / 1e9))
    build(out, input_size=128)
    assert build(out, input_size=32).from_cache
    assert build(out, input_size=96).from_cache
    assert not build(out, input_size=64).from_cache
    monkeypatch.setenv("RESRT_CACHE_GB", "much")
    with pytest.raises(resrt.InputError, match="RESRT_CACHE_GB must be a number"):
        engine_cache._trim(cache)


def test_command_says_where_the_engine_came_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "x.engine")
    arguments = ["build", "resnet18", "--weights", "random", "--input-size", "64", "-o", out]
    arguments += ["--max-batch", "1"]
    for options, expected in [([], False), ([], True), (["--no-cache"], False)]:
        assert cli.main([*arguments, *options]) == 0
        assert ("from the cache" in capsys.readouterr().out) == expected
    assert cli.main([*arguments, "--quiet"]) == 0
    assert capsys.readouterr().out == ""


class TestInspect:
    def test_text(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "x.engine"
        build(out)
        assert cli.main(["inspect", str(out)]) == 0
        text = capsys.readouterr().out
        for expected in (
            f"ResNet, {len(resrt.build_graph(CONFIG))} layers",
            "float32 (N, 3, 32, 32), N up to 2 at once",
            "precision      fp32",
            "runs here      yes",
            "weights        random\n",
            "as torchvision: short side to 37",
            "1000: tench, Tinca tinca;",
        ):
            assert expected in text
        assert "Conv2d(" not in text
        assert cli.main(["inspect", str(out), "--layers"]) == 0
        assert "layer1.0.conv1" in capsys.readouterr().out

    def test_json(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "x.engine"
        build(out)
        assert cli.main(["inspect", str(out), "--format", "json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["input_shape"] == [3, 32, 32]
        assert document["runs_here"] is True
        assert len(document["labels"]) == document["classes"] == 1000
        assert document["preprocessing"]["mean"] == pytest.approx([0.485, 0.456, 0.406])

    def test_an_engine_of_another_version_is_told_of(self, tmp_path: Path) -> None:
        import struct
        import zlib

        out = tmp_path / "x.engine"
        version = build(out).info.backend_version.encode()
        content = out.read_bytes()[:-4].replace(version, version.replace(b"2026", b"1999"), 1)
        out.write_bytes(content + struct.pack("<I", zlib.crc32(content)))
        found = resrt.inspect(out)
        assert found.why_not is not None
        assert "built with version 1999" in found.why_not
        assert found.info.model == "ResNet"

    def test_what_is_no_engine(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "x").write_text("no engine")
        assert cli.main(["inspect", str(tmp_path / "x")]) == 1
        assert "is not a resrt engine file" in capsys.readouterr().err
        with pytest.raises(resrt.FileError, match="none"):
            resrt.inspect(tmp_path / "none")
