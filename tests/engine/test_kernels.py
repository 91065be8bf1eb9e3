"""The kernels of convolutions: measured at build, kept in the engine file, used when loaded."""

from __future__ import annotations

import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

import resrt
from resrt import _core

DIRECT = (
    "cpu:jit_avx512_amx_1x1,cpu:jit_avx512_amx,cpu:jit_avx512_1x1,cpu:jit_avx512,"
    "cpu:jit_avx2_1x1,cpu:jit_avx2"
)


def rewrite(file: Path, changes: dict[str, str]) -> None:
    """Change entries of an engine file's metadata."""
    content = file.read_bytes()
    (size,) = struct.unpack_from("<Q", content, 12)
    (count,) = struct.unpack_from("<I", content, 20)
    texts, at = [], 24
    for _ in range(2 * count):
        (length,) = struct.unpack_from("<I", content, at)
        texts.append(content[at + 4 : at + 4 + length].decode())
        at += 4 + length
    entries = {**dict(zip(texts[::2], texts[1::2], strict=True)), **changes}
    metadata = struct.pack("<I", len(entries))
    for text in (part for entry in sorted(entries.items()) for part in entry):
        metadata += struct.pack("<I", len(text.encode())) + text.encode()
    plan = content[20 + size : -4]
    content = content[:12] + struct.pack("<Q", len(metadata)) + metadata + plan
    file.write_bytes(content + struct.pack("<I", zlib.crc32(content)))


def kernels_of_convolutions(file: Path) -> dict[str, str]:
    """Return the kernel of each convolution that is a layer, as OpenVINO names it."""
    engine = resrt.load(file, profile=True)
    batch = np.zeros((1, *engine.info.input_shape), np.float32)
    steps = engine._core.profile(batch, 2)
    return {
        layer: step.kernel
        for step in steps
        if step.type == "Convolution"
        for layer in step.layers
        if "conv" in layer.rpartition(".")[2]
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "resnet18.engine"
    resrt.build("resnet18", "random", input_size=64, precision="fp32", max_batch=2).save(path)
    return path


def test_a_build_without_tuning_has_the_default_kernels(file: Path) -> None:
    info = resrt.inspect(file).info
    assert info.kernels == []
    assert info.kernels_processor == ""


def test_chosen_kernels_run_on_the_processor_that_they_were_measured_on(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    default = kernels_of_convolutions(file)
    batch = np.random.default_rng(0).standard_normal((2, 3, 64, 64), np.float32)
    expected = resrt.load(file).infer(batch)
    chosen = ["layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv2"]
    text = f"3x3, to 16x16\tjit\t{DIRECT}\t{' '.join(chosen)}\t1 0.25 0.5\t2 0.5 0.75\n"
    text += "7x7, stride 2, to 32x32\tbrgconv\t\tconv1\t1 1 1\n"

    rewrite(file, {"kernels": text, "kernels_processor": _core.processor()})
    found = kernels_of_convolutions(file)
    assert all(found[layer].startswith("jit_") for layer in chosen)
    assert {layer: kernel for layer, kernel in found.items() if layer not in chosen} == {
        layer: kernel for layer, kernel in default.items() if layer not in chosen
    }
    if any(kernel.startswith("brgconv") for kernel in default.values()):
        assert found != default
    logits = resrt.load(file).infer(batch)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())

    direct, own = resrt.inspect(file).info.kernels
    assert (direct.kind, direct.layers, direct.is_default) == ("3x3, to 16x16", chosen, False)
    assert [(time.batch, time.ms, time.default_ms) for time in direct.times] == [
        (1, 0.25, 0.5),
        (2, 0.5, 0.75),
    ]
    assert own.is_default

    rewrite(file, {"kernels_processor": "another one"})
    with caplog.at_level(logging.INFO, "resrt"):
        assert kernels_of_convolutions(file) == default
    assert "was tuned on another processor" in caplog.text


def test_a_build_measures_and_stays_within_its_choices(tmp_path: Path) -> None:
    phases = []
    engine = resrt.build(
        "resnet18",
        "random",
        input_size=64,
        precision="fp32",
        max_batch=2,
        tune=10,
        progress=lambda phase, done, steps: phases.append((phase, done)),
    )
    # Both kernels are measured in at least four rounds; the choice is the machine's.
    assert ("choosing kernels", 3) in phases
    convolutions = {
        layer.name
        for layer in resrt.build_graph("resnet18").layers
        if isinstance(layer.definition, _core.Conv2d)
    }
    for choice in engine.info.kernels:
        assert set(choice.layers) <= convolutions
        assert [time.batch for time in choice.times] in ([1, 2], [1])
        assert all(time.ms > 0 and time.default_ms > 0 for time in choice.times)
    usual = resrt.build("resnet18", "random", input_size=64, precision="fp32", max_batch=2)
    batch = np.random.default_rng(0).standard_normal((2, 3, 64, 64), np.float32)
    expected = usual.infer(batch)
    difference = np.abs(engine.infer(batch) - expected).max()
    assert difference <= 1e-5 * np.abs(expected).max()


def test_without_time_the_default_kernels_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    phases = []
    with caplog.at_level(logging.INFO, "resrt"):
        engine = resrt.build(
            "resnet18",
            "random",
            input_size=64,
            tune=0.001,
            progress=lambda phase, done, steps: phases.append((phase, done)),
        )
    assert phases == [("choosing kernels", 0)]  # only they are loaded, and nothing is measured
    assert engine.info.kernels == []
    assert "could not be measured in 0.001 seconds" in caplog.text


def test_an_interrupted_measurement_ends_the_build(tmp_path: Path) -> None:
    def stop(phase: str, done: int, steps: int) -> None:
        if phase == "choosing kernels":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resrt.build("resnet18", "random", input_size=32, tune=60, progress=stop)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "10"])
def test_invalid_times(seconds: object) -> None:
    with pytest.raises(resrt.InputError, match="tune must be a number of seconds"):
        resrt.build("resnet18", "random", input_size=32, tune=seconds)


def test_the_environment_sets_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESRT_TUNE", "often")
    with pytest.raises(resrt.InputError, match="RESRT_TUNE must be a number of seconds"):
        resrt.build("resnet18", "random", input_size=32)
