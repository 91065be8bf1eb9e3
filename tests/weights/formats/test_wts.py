"""TensorRTx's .wts: files that its scripts write, and invalid ones."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

import resrt
from resrt import weights
from support.samples import Arrays, assert_holds, bounded_memory, numbers


def wts(arrays: Arrays, gap: str = "") -> str:
    """Return the text that TensorRTx's gen_wts.py writes; some scripts write a `gap` of a space."""
    lines = [f"{len(arrays)}\n"]
    for name, array in arrays.items():
        numbers = array.reshape(-1).astype(np.float32)
        line = f"{name} {len(numbers)}" + gap
        for number in numbers:
            line += " " + struct.pack(">f", float(number)).hex()
        lines.append(line + "\n")
    return "".join(lines)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.wts"


@pytest.mark.parametrize("gap", ["", " "])
@pytest.mark.parametrize("end", ["\n", "\r\n", " \n"])
def test_reads_what_tensorrtx_writes(gap: str, end: str, path: Path) -> None:
    arrays = {**numbers(), "large": np.random.default_rng(0).standard_normal(200_000)}
    arrays["large"] = arrays["large"].astype(np.float32)
    path.write_text(wts(arrays, gap).replace("\n", end), newline="")
    checkpoint = assert_holds(path, {name: array.reshape(-1) for name, array in arrays.items()})
    assert checkpoint.format == "TensorRTx's .wts"
    assert checkpoint.flat


def test_without_a_last_line_end(path: Path) -> None:
    path.write_text(wts(numbers()).rstrip())
    assert weights.read(path).arrays.keys() == numbers().keys()


def test_arrays_get_the_shapes_of_the_parameters(small_graph: resrt.Graph, path: Path) -> None:
    rng = np.random.default_rng(6)
    arrays = {
        p.name: rng.uniform(0.1, 1, p.shape).astype(np.float32) for p in small_graph.parameters
    }
    path.write_text(wts({**arrays, "bn1.num_batches_tracked": np.zeros(1)}))
    fitted = weights.load(path, small_graph)
    assert fitted.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(fitted[name], array)
    arrays["fc.bias"] = arrays["fc.bias"][1:]
    path.write_text(wts(arrays))
    with pytest.raises(resrt.WeightsError, match=r"fc.bias: expected \(7,\), found \(6,\)"):
        weights.load(path, small_graph)


def test_only_flat_arrays_are_reshaped(small_graph: resrt.Graph) -> None:
    arrays = {p.name: np.zeros(int(np.prod(p.shape)), np.float32) for p in small_graph.parameters}
    with pytest.raises(resrt.WeightsError, match="with the wrong shape"):
        weights.fit(arrays, small_graph)
    weights.fit(arrays, small_graph, flat=True)


GOOD = "2\na 2 3f800000 40000000\nb 1 00000000\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD[:-3], r"truncated: array 2 of 2, 'b', ends at byte 36 of 34"),
        (GOOD[:26], r"truncated: array 2 of 2 is missing"),
        (GOOD[:20], r"truncated: array 1 of 2, 'a', ends at byte"),
        ("3" + GOOD[1:], r"truncated: array 3 of 3 is missing"),
        ("999999" + GOOD[1:], "has 999999 arrays; resrt reads up to 20000"),
        ("1" + GOOD[1:], "more content after the stated 1 arrays"),
        (GOOD.replace("b 1", "a 1"), "two arrays named 'a'"),
        (GOOD.replace("b 1", "b 2"), "truncated"),
        (GOOD.replace("a 2", "a 1"), "'a', has more than 1 numbers of 8 digits"),
        (GOOD.replace("b 1", "b x"), "array 2 of 2 is missing|does not begin with a name"),
        (GOOD.replace("40000000", "4000000g"), "'a' has a number that is not 8 hexadecimal"),
        (GOOD.replace("40000000", "400 0000"), "'a' has a number that is not 8 hexadecimal"),
        (GOOD.replace(" 40000000", "_40000000"), "'a' has a number that is not 8 hexadecimal"),
        (GOOD.replace("40000000", "4000000é"), "'a' has a number|more than"),
        (GOOD.replace("b 1", "b 999999999999"), "truncated"),
    ],
)
def test_malformed(content: str, message: str, path: Path) -> None:
    path.write_text(content)
    with (
        bounded_memory(1 << 20),
        pytest.raises(resrt.WeightsError, match=rf"is not a valid .wts file \(.*{message}.*again"),
    ):
        weights.read(path)


def test_names_of_paddle_are_rejected(path: Path) -> None:
    path.write_text("1\nbn._mean 1 3f800000\n")
    with pytest.raises(resrt.WeightsError, match=r"PaddlePaddle's names.*use the .pdparams file"):
        weights.read(path)


def test_memory(path: Path) -> None:
    """The text is read in pieces, which takes little memory besides the array's."""
    path.write_text("1\nx 2000000" + " 3f800000" * 2_000_000)
    with bounded_memory(path.stat().st_size + (10 << 20)):
        assert weights.read(path).arrays["x"].sum() == 2_000_000
