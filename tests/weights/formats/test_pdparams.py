"""PaddlePaddle's .pdparams: files that paddle.save wrote. test_weights.py has more tests."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

import resrt
from resrt import weights
from support.samples import SAMPLES, assert_holds, bfloat16, bounded_memory, numbers


@pytest.mark.parametrize("name", ["paddle_plain.pdparams", "paddle_protocol2.pdparams"])
def test_plain(name: str) -> None:
    assert_holds(SAMPLES / name, numbers())


def test_bfloat16() -> None:
    assert_holds(SAMPLES / "paddle_bfloat16.pdparams", bfloat16(numbers()))


def test_the_state_of_a_layer() -> None:
    arrays = weights.read(SAMPLES / "paddle_layer.pdparams").arrays
    assert {name: array.shape for name, array in arrays.items()} == {"weight": (4, 5), "bias": (5,)}
    np.testing.assert_array_equal(arrays["weight"], numbers()["fc.weight"].T)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_arrays_are_views_of_the_file(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "model.pdparams"
    path.write_bytes(pickle.dumps({"x": np.zeros(4_000_000, np.float32)}, protocol))
    with bounded_memory(path.stat().st_size + (1 << 20)):
        array = weights.read(path).arrays["x"]
    assert not array.flags.owndata


def test_protocol_2_is_decoded_piece_by_piece(tmp_path: Path) -> None:
    """Protocol 2 writes bytes as a text that is half as large again."""
    path = tmp_path / "model.pdparams"
    expected = np.random.default_rng(0).standard_normal(1_000_000).astype(np.float32)
    path.write_bytes(pickle.dumps({"x": expected}, 2))
    with bounded_memory(2 * path.stat().st_size + (4 << 20)):
        array = weights.read(path).arrays["x"]
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("name", ["paddle_plain.pdparams", "paddle_protocol2.pdparams"])
def test_truncated_files(name: str, tmp_path: Path) -> None:
    whole = (SAMPLES / name).read_bytes()
    for size in range(3, len(whole), 5):
        (tmp_path / "x").write_bytes(whole[:size])
        with pytest.raises(
            resrt.WeightsError, match=r"is not a valid .pdparams file .*truncated.*again"
        ):
            weights.read(tmp_path / "x")


def test_one_array_under_many_names_is_rejected(tmp_path: Path) -> None:
    """Each name's array would be widened and converted on its own."""
    array = np.zeros(1 << 20, np.uint16)
    content = pickle.dumps(dict.fromkeys(map(str, range(1000)), array), 4)
    (tmp_path / "x").write_bytes(content)
    with bounded_memory(8 << 20), pytest.raises(resrt.WeightsError, match="arrays add up to"):
        weights.read(tmp_path / "x")
