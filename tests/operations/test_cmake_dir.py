"""The installed CMake package, and the C++ examples that are built with it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import resrt
from resrt import images
from resrt.operations import demo
from support.paths import ROOT
from support.programs import build, configure, run, tool

EXAMPLES = ROOT / "cpp" / "examples"
PACKAGE = resrt.cmake_dir().parents[2]


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """The demo's held-out digits as inputs of its network, and their labels."""
    scans, labels = demo.held_out()
    shape = demo.graph().input_shape
    return images.preprocess_batch(list(scans), demo.PREPROCESSING, shape), labels


def test_program_of_the_guide_classifies_the_demo_digits(tmp_path: Path, digits) -> None:  # type: ignore[no-untyped-def]
    batch, labels = digits
    source = tmp_path / "empty"
    source.mkdir()
    guide = (ROOT / "docs" / "cpp.md").read_text()
    for name, language in (("CMakeLists.txt", "cmake"), ("first.cpp", "cpp")):
        block = re.search(rf"^```{language}\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
        assert block is not None
        (source / name).write_text(block[1])
    program = build(source, tmp_path) / "first"
    answers = run(program, demo.weights_path(), input=batch.tobytes(), text=False)
    found = np.array(answers.split(), np.uint8)
    logits = demo.build_engine().infer(batch)
    np.testing.assert_array_equal(found, logits.argmax(1))
    assert (found == labels).mean() > 0.95


def test_classify(tmp_path: Path) -> None:
    program = build(EXAMPLES / "classify", tmp_path, needs="JPEG") / "classify"
    noise = np.random.default_rng(0).uniform(0, 256, (6, 8, 3)).astype(np.uint8)
    photograph = tmp_path / "photograph.jpg"
    Image.fromarray(noise).resize((64, 48), Image.Resampling.BICUBIC).save(photograph)
    config = resrt.ResNeSt(depths=[1, 1], width=16, stem_channels=16)
    labels = [f"class {i}" for i in range(7)]
    engine = resrt.build(config, "random", input_size=32, classes=7, labels=labels)
    engine.save(tmp_path / "x.engine")
    rows = re.findall(
        r"^ +([\d.]+)% (class \d) \(logit (\S+)\)$",
        run(program, tmp_path / "x.engine", photograph),
        re.MULTILINE,
    )
    logits = engine.infer(
        images.preprocess_batch([photograph], engine.info.preprocessing, engine.info.input_shape)
    )[0]
    expected = engine.classify(photograph)[0]
    assert [row[1] for row in rows] == [prediction.label for prediction in expected]
    assert [row[0] for row in rows] == [f"{100 * found.probability:.1f}" for found in expected]
    found = np.array([row[2] for row in rows], np.float32)
    np.testing.assert_array_equal(found, logits[[prediction.index for prediction in expected]])

    for wrong in (tmp_path / "x.engine", tmp_path / "missing.jpg"):
        command = [program, tmp_path / "x.engine", wrong]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 1
        assert str(wrong) in result.stderr


def test_own_network(tmp_path: Path) -> None:
    program = build(EXAMPLES / "own_network", tmp_path) / "own_network"
    output = run(program, tmp_path / "stripes.engine")
    rows = re.findall(r"^(\w+): (\S+) (\S+)$", output, re.MULTILINE)
    assert [row[0] for row in rows] == ["vertical", "horizontal"]

    bright = (np.arange(32) // 4 % 2).astype(np.float32)
    upright = np.broadcast_to(bright, (32, 32))
    engine = resrt.load(tmp_path / "stripes.engine")
    assert engine.info.weights == "set by hand"
    logits = engine.infer(np.stack([upright, upright.T])[:, None])
    np.testing.assert_array_equal(np.array([row[1:] for row in rows], np.float32), logits)

    result = subprocess.run([program, tmp_path], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "Is a directory" in result.stderr


def test_shared_engine(tmp_path: Path, digits) -> None:  # type: ignore[no-untyped-def]
    batch, _ = digits
    program = build(EXAMPLES / "shared_engine", tmp_path) / "shared_engine"
    file, inputs, outputs = (tmp_path / name for name in ("x.engine", "images.f32", "logits.f32"))
    demo.build_engine().save(file)
    batch.tofile(inputs)
    histogram = run(program, file, inputs, outputs, "16")
    assert f"{len(batch)} images on 16 threads" in histogram
    counts = re.findall(r"ms +(\d+) #+$", histogram, re.MULTILINE)
    assert sum(map(int, counts)) == len(batch)

    engine = resrt.load(file, threads=1)
    expected = np.concatenate([engine.infer(image[None]) for image in batch])
    np.testing.assert_array_equal(np.fromfile(outputs, np.float32).reshape(-1, 10), expected)


def test_subproject_does_not_change_its_parent(tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        f"""
        cmake_minimum_required(VERSION 3.26)
        project(parent LANGUAGES CXX)
        get_cmake_property(before VARIABLES)
        include(FetchContent)
        FetchContent_Declare(resrt SOURCE_DIR "{ROOT}")
        FetchContent_MakeAvailable(resrt)
        foreach(variable CMAKE_BUILD_TYPE CMAKE_CXX_STANDARD CMAKE_CXX_VISIBILITY_PRESET)
          if({"${variable}"})
            message(FATAL_ERROR "{"${variable}"} was set")
          endif()
        endforeach()
        if(TARGET _core OR NOT TARGET resrt::resrt)
          message(FATAL_ERROR "the wrong targets were added")
        endif()
        file(WRITE main.cpp "#include <resrt/engine.h>\\nint main() {"{}"}")
        add_executable(program main.cpp)
        target_link_libraries(program resrt::resrt)
        """
    )
    configure(tmp_path, tmp_path / "build", f"-DPython_EXECUTABLE={tool('python')}")
    # Building the program also builds the backend, which it opens when it runs.
    plan = run(tool("ninja"), "-C", tmp_path / "build", "-n", "program")
    assert "libresrt_openvino.so" in plan
    install = ("--install", tmp_path / "build", "--prefix", tmp_path / "prefix")
    assert "libresrt" not in run(tool("cmake"), *install)


def test_public_headers_are_self_contained(tmp_path: Path) -> None:
    headers = sorted((PACKAGE / "include" / "resrt").iterdir())
    assert len(headers) >= 7
    for header in headers:
        for included in re.findall(r'#include ["<](.*)[">]', header.read_text()):
            assert included.startswith("resrt/") or re.fullmatch("[a-z_]+", included), header
        command = [tool("c++"), "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror"]
        run(*command, "-I", PACKAGE / "include", "-include", header, "-x", "c++", "/dev/null")


def test_only_the_api_is_exported() -> None:
    """Apart from templates of the standard library, which every object may contain."""
    listing = run(tool("nm"), "-DC", "--defined-only", PACKAGE / "lib" / "libresrt.so")
    for line in listing.splitlines():
        _, kind, name = line.split(" ", 2)
        is_ours = re.match(r"(typeinfo (name )?for |vtable for )?resrt::", name)
        assert is_ours or kind in "WVu", name
