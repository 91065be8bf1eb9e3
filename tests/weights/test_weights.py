"""Readers, renaming, the check against a graph, and their errors."""

from __future__ import annotations

import pickle
import struct
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import resrt
from resrt import weights

Arrays = dict[str, np.ndarray]


@pytest.fixture
def arrays(small_graph: resrt.Graph) -> Arrays:
    rng = np.random.default_rng(3)
    return {
        parameter.name: rng.uniform(0.1, 1, parameter.shape).astype(np.float32)
        for parameter in small_graph.parameters
    }


def assert_same(got: Arrays, wanted: Arrays) -> None:
    assert got.keys() == wanted.keys()
    for name, array in got.items():
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        np.testing.assert_array_equal(array, wanted[name])


class TestSafetensors:
    def test_reads_what_is_written(
        self, small_graph: resrt.Graph, arrays: Arrays, tmp_path: Path
    ) -> None:
        counters = {"bn1.num_batches_tracked": np.array(7)}
        save_file({**arrays, **counters}, tmp_path / "weights")  # without a suffix
        assert_same(weights.load(tmp_path / "weights", small_graph), arrays)

    def test_narrow_floats(self, small_graph: resrt.Graph, arrays: Arrays, tmp_path: Path) -> None:
        half = {name: array.astype(np.float16) for name, array in arrays.items()}
        save_file(half, tmp_path / "half")
        expected = {name: array.astype(np.float32) for name, array in half.items()}
        assert_same(weights.load(tmp_path / "half", small_graph), expected)

    def test_bfloat16(self, tmp_path: Path) -> None:
        header = b'{"x":{"dtype":"BF16","shape":[3],"data_offsets":[0,6]}}'
        bits = struct.pack("<3H", 0x3F80, 0xC040, 0x7F80)
        (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header + bits)
        np.testing.assert_array_equal(weights.read(tmp_path / "x").arrays["x"], [1, -3, np.inf])

    def test_malformed(self, arrays: Arrays, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        save_file(arrays, path)
        content = path.read_bytes()
        for broken in (content[:-1], content[:500], content[:9], b"\xff" * 4 + content[4:]):
            path.write_bytes(broken)
            with pytest.raises(
                resrt.WeightsError, match=r"is not a valid safetensors file .*again"
            ):
                weights.read(path)


class _Calls:
    """Calls a function when it is unpickled."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.function, self.arguments


class TestPdparams:
    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    def test_reads_what_paddle_saves(self, tmp_path: Path, protocol: int) -> None:
        saved = OrderedDict(
            first=np.arange(6, dtype=np.float32).reshape(2, 3),
            fortran=np.asfortranarray(np.arange(12, dtype=np.float64).reshape(3, 4)),
            empty=np.zeros((0, 4), np.float32),
            scalar=np.array(3.5, np.float16),
        )
        state = {**saved, "StructuredToParameterName@@": {"first": "linear_0.w_0"}}
        path = tmp_path / "model.pdparams"
        path.write_bytes(pickle.dumps(state, protocol=protocol))
        read = weights.read(path).arrays
        assert read.keys() == saved.keys()
        for name, array in saved.items():
            np.testing.assert_array_equal(read[name], array)
            assert read[name].dtype == array.dtype

    def test_values_with_parameter_names(self, tmp_path: Path) -> None:
        path = tmp_path / "model.pdparams"
        path.write_bytes(pickle.dumps({"x": ("linear_0.w_0", np.ones(2, np.float32))}))
        np.testing.assert_array_equal(weights.read(path).arrays["x"], [1, 1])

    @pytest.mark.parametrize(
        "value",
        [
            _Calls(print, "called!"),
            _Calls(eval, "print('called!')"),
            _Calls(__import__, "os"),
            _Calls(getattr, "x", "upper"),
            _Calls(bytearray, 10**12),
            np.array([print], dtype=object),
            np.zeros(2, dtype=[("a", "f4")]),
            np.zeros(2, dtype=">f4"),
            np.zeros(2, dtype="datetime64[s]"),
        ],
    )
    def test_pickles_of_other_objects_are_rejected(
        self, value: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "evil.pdparams"
        for content in ({"x": value}, [value], value):
            path.write_bytes(pickle.dumps(content, protocol=2))
            with pytest.raises(resrt.WeightsError, match=r"pickle that asks for .*not executed"):
                weights.read(path)
        assert capsys.readouterr().out == ""

    def test_malformed(self, arrays: Arrays, tmp_path: Path) -> None:
        path = tmp_path / "model.pdparams"
        content = pickle.dumps(arrays, protocol=4)
        for broken in (content[:-1], content[:1000], content[:3], content[:2] + b"garbage."):
            path.write_bytes(broken)
            with pytest.raises(resrt.WeightsError, match=r"is not a valid .pdparams file .*again"):
                weights.read(path)

    def test_bytes_that_do_not_fill_the_shape(self, tmp_path: Path) -> None:
        content = pickle.dumps({"x": np.zeros(4, np.float32)}, protocol=2)
        path = tmp_path / "model.pdparams"
        path.write_bytes(content.replace(b"K\x04\x85", b"K\x08\x85"))
        with pytest.raises(resrt.WeightsError, match=r"array of shape \(8,\) has 16 bytes"):
            weights.read(path)

    @pytest.mark.parametrize("content", [[1, 2], {"x": 3}, {3: np.zeros(1)}, {"epoch": {"x": 1}}])
    def test_other_contents_than_a_state_dict(self, content: object, tmp_path: Path) -> None:
        path = tmp_path / "model.pdparams"
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(resrt.WeightsError, match="state_dict"):
            weights.read(path)


class TestCheck:
    def test_one_error_lists_everything(self, small_graph: resrt.Graph, arrays: Arrays) -> None:
        for name in ("fc.bias", "layer1.0.conv2.fc1.weight"):
            del arrays[name]
        arrays["layer2.0.bn3.weight"] = np.zeros(3, np.float32)
        arrays["extra.weight"] = np.zeros((2, 2), np.float32)
        with pytest.raises(resrt.WeightsError) as caught:
            resrt.build(small_graph, arrays)
        message = str(caught.value)
        assert "do not fit small" in message
        assert (
            "2 missing:\n    layer1.0.conv2.fc1.weight (32, 16, 1, 1)\n    fc.bias (7,)" in message
        )
        assert (
            "1 with the wrong shape:\n    layer2.0.bn3.weight: expected (128,), found (3,)"
            in message
        )
        assert "1 unexpected:\n    extra.weight (2, 2)" in message

    def test_a_long_list_is_not_shortened(self) -> None:
        graph = resrt.build_graph("ResNet152_vd")
        with pytest.raises(resrt.WeightsError) as caught:
            resrt.build(graph, {})
        assert all(f"    {parameter.name} (" in str(caught.value) for parameter in graph.parameters)

    def test_the_error_names_the_file(
        self, small_graph: resrt.Graph, arrays: Arrays, tmp_path: Path
    ) -> None:
        del arrays["fc.bias"]
        save_file(arrays, tmp_path / "mine.safetensors")
        with pytest.raises(resrt.WeightsError, match=r"mine.safetensors': these weights"):
            resrt.build(small_graph, tmp_path / "mine.safetensors")

    def test_weights_of_another_source(self) -> None:
        """PaddleClas's ResNet18 has a convolution in its first shortcut that timm's lacks."""
        paddle, timm = resrt.build_graph("ResNet18"), resrt.build_graph("resnet18")
        arrays = {p.name: np.zeros(p.shape, np.float32) for p in paddle.parameters}
        with pytest.raises(resrt.WeightsError, match=r"5 unexpected:\n    layer1.0.downsample"):
            weights.fit(arrays, timm)

    def test_invalid_values(self, small_graph: resrt.Graph, arrays: Arrays) -> None:
        arrays["fc.bias"][2] = np.inf
        arrays["bn1.running_var"][0] = -0.5
        with pytest.raises(
            resrt.WeightsError, match=r"2 with non-finite values .*:\n    bn1.running_var\n"
        ):
            weights.fit(arrays, small_graph)

    def test_other_objects_than_arrays(self, small_graph: resrt.Graph, arrays: Arrays) -> None:
        as_lists = {name: array.tolist() for name, array in arrays.items()}
        assert_same(weights.fit(as_lists, small_graph), arrays)  # type: ignore[arg-type]
        with pytest.raises(resrt.WeightsError, match="names must be str, not int"):
            weights.fit({3: arrays["fc.bias"]}, small_graph)  # type: ignore[dict-item]
        with pytest.raises(resrt.WeightsError, match=r"fc.bias cannot be converted to a NumPy arr"):
            weights.fit({"fc.bias": [[1], [2, 3]]}, small_graph)  # type: ignore[dict-item]

    def test_other_numbers_than_floats(self, small_graph: resrt.Graph, arrays: Arrays) -> None:
        arrays["fc.bias"] = np.zeros(7, np.int32)
        with pytest.raises(resrt.WeightsError, match="fc.bias has the dtype int32"):
            weights.fit(arrays, small_graph)

    def test_an_engine_does_not_depend_on_the_arrays(
        self, small_graph: resrt.Graph, arrays: Arrays, images: np.ndarray
    ) -> None:
        expected = resrt.build(small_graph, arrays, precision="fp32").infer(images)
        strided = {name: np.repeat(array, 2, axis=0)[::2] for name, array in arrays.items()}
        engine = resrt.build(small_graph, strided, precision="fp32")
        del strided
        arrays["fc.bias"][:] = 1000
        np.testing.assert_array_equal(engine.infer(images), expected)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip file", b"0\n1\n", b"\x80\x09"])
def test_unknown_formats(content: bytes, tmp_path: Path, small_graph: resrt.Graph) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(
        resrt.WeightsError, match=r"unsupported weights format: .*safetensors, PaddleClas"
    ):
        resrt.build(small_graph, tmp_path / "file")


def test_invalid_paths(tmp_path: Path, small_graph: resrt.Graph) -> None:
    with pytest.raises(resrt.FileError, match=r"nothing.pdparams': No such file"):
        resrt.build(small_graph, tmp_path / "nothing.pdparams")
    with pytest.raises(resrt.FileError, match="null character"):
        resrt.build(small_graph, "a\0b")
    with pytest.raises(resrt.FileError, match="regular file"):
        resrt.build(small_graph, "/dev/zero")
    with pytest.raises(resrt.FileError, match="regular file"):
        resrt.build(small_graph, tmp_path)
