"""The code in README.md and docs/ runs unchanged."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resrt.operations import demo
from support.paths import ROOT
from support.programs import build, run

CMAKE = """
cmake_minimum_required(VERSION 3.26)
project(block LANGUAGES CXX)
find_package(resrt REQUIRED)
add_executable(block block.cpp)
target_link_libraries(block resrt::resrt)
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page. One that starts with "```cpp skip: reason" is not run.

    One that starts with "```python requires: package" is run where that package is installed.
    """

    page: str
    line: int
    language: str
    skip: str
    requires: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(language: str) -> list[Block]:
    found = []
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text()
        fences = re.finditer(r"^```(\S*)(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE)
        for fence in fences:
            line = text.count("\n", 0, fence.start()) + 1
            key, _, value = fence[2].strip().partition(":")
            notes = {key: value.strip()}
            skip, requires = notes.get("skip", ""), notes.get("requires", "")
            found.append(Block(page.name, line, fence[1], skip, requires, fence[3]))
    return [block for block in found if block.language == language]


def run_or_skip(block: Block) -> None:
    if block.skip:
        pytest.skip(block.skip)
    if block.requires:
        pytest.importorskip(block.requires, reason=f"{block.requires} is not installed")


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python(block: Block, tmp_path: Path) -> None:
    """The page assumes photographs, weights and a batch."""
    run_or_skip(block)
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "cat.jpg")
    given = (
        "import numpy, resrt\n"
        "batch = numpy.zeros((2, 3, 224, 224), numpy.float32)\n"
        # Random weights replace the ones that would be downloaded.
        "build = resrt.build\n"
        "resrt.build = lambda model, weights=None, **rest: build(model, 'random', **rest)\n"
    )
    run(sys.executable, "-c", given + block.code, cwd=tmp_path)


@pytest.mark.parametrize("block", blocks("cpp"), ids=str)
def test_cpp(block: Block, tmp_path: Path) -> None:
    """The program compiles without warnings and succeeds."""
    run_or_skip(block)
    source = tmp_path / "block"
    source.mkdir()
    (source / "block.cpp").write_text(block.code)
    (source / "CMakeLists.txt").write_text(CMAKE)
    program = build(source, tmp_path) / "block"
    engine = tmp_path / "x.engine"
    weights = demo.weights_path()
    given = weights if "read_safetensors" in block.code else engine
    demo.build_engine().save(engine)
    result = subprocess.run(
        [program, given], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_skipped_blocks_give_a_reason() -> None:
    for block in [*blocks("python"), *blocks("cpp")]:
        assert not block.skip or len(block.skip.split()) >= 4, block
    assert len(blocks("python")) >= 2
    assert len(blocks("cpp")) >= 4
