"""Readers, renaming, the check against a graph, and their errors."""

from __future__ import annotations

import json
import pickle
import struct
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import resrt
from resrt import cli, weights

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

    @pytest.mark.parametrize(
        ("header", "message"),
        [
            ({"x": ("F32", [2], [0, 8]), "y": ("F32", [2], [4, 12])}, "begins at byte 4, expected"),
            ({"x": ("F32", [3], [0, 12]), "y": ("F32", [3], [0, 12])}, "begins at byte 0"),
            ({"x": ("F32", [2], [4, 12])}, "begins at byte 4, expected 0"),
            ({"x": ("F32", [1], [0, 4])}, "arrays have 4 bytes, but 12 follow"),
            ({"x": ("F32", [2], [0, 1 << 63])}, "arrays have 9223372036854775808 bytes, but 12"),
            ({"x": ("F32", [1 << 62], [0, 12])}, "shape contains 4611686018427387904"),
            ({"x": ("F32", [-3], [-12, 0])}, "begins at byte -12"),
            ({"x": ("F32", [3], [12, 0])}, "begins at byte 12"),
            ({"x": ("F32", [2], [0, 12])}, r"shape \(2,\) has 12 bytes"),
            ({"x": ("F64", [1], [0, 12])}, "'x' of F64 has 12 bytes"),
            ({"x": ("F32", [3.0], [0, 12])}, "'x' has no valid dtype, shape"),
            ({"x": ("U8", [True, 12], [0, 12])}, "'x' has no valid dtype, shape"),
            ({"x": ("F32", [3], [0, 12, 12])}, "'x' has no valid dtype, shape"),
            ({"x": (3, [3], [0, 12])}, "'x' has no valid dtype, shape"),
            ({"\x1b": {}}, r"'\\x1b' has no valid dtype, shape"),
            ({"x": []}, "'x' has no valid dtype, shape"),
            ({"__metadata__": {"a": 1}}, "its metadata are not texts"),
            ({"__metadata__": []}, "its metadata are not texts"),
            (b'{"\\ud800": {}}', "not valid JSON"),
            (b'{"\xff": {}}', "not valid JSON"),
            (b'{"x":' + b"[" * 100_000, "not valid JSON"),
            (b'{"x":' + b"9" * 5_000 + b"}", "not valid JSON|'x' has no valid dtype"),
            (b'{"x": {}, "x": {}}', "two entries with the same name"),
            (b'{"x": [' + b"{}," * 100_000 + b"{}]}", "more than 40000 objects"),
        ],
    )
    def test_invalid_headers(
        self, header: bytes | dict[str, object], message: str, tmp_path: Path
    ) -> None:
        if isinstance(header, dict):
            keys = ("dtype", "shape", "data_offsets")
            entries = {
                name: dict(zip(keys, entry, strict=True)) if isinstance(entry, tuple) else entry
                for name, entry in header.items()
            }
            header = json.dumps(entries).encode()
        path = tmp_path / "x"
        path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(12))
        with pytest.raises(
            resrt.WeightsError, match=rf"is not a valid safetensors file \(.*{message}.*again"
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

    def test_a_long_list_is_shortened(self) -> None:
        graph = resrt.build_graph("ResNet152_vd")
        with pytest.raises(resrt.WeightsError) as caught:
            resrt.build(graph, {})
        listed = "".join(
            f"\n    {parameter.name} {parameter.shape}" for parameter in graph.parameters[:5]
        )
        count = len(graph.parameters)
        assert f"  {count} missing:{listed}\n    and {count - 5} more\n" in str(caught.value)

    @pytest.mark.parametrize("pattern", ["something.{}", "blocks.{}.conv0._conv._mean"])
    def test_any_number_of_unknown_names(self, arrays: Arrays, pattern: str) -> None:
        unknown = {pattern.format(i): np.zeros(3, np.float32) for i in range(28_000)}
        start = time.process_time()
        with pytest.raises(resrt.WeightsError, match=r"28\d{3} unexpected:\n") as caught:
            resrt.build("resnet18", {**arrays, **unknown})
        assert len(str(caught.value)) < 2_000
        assert time.process_time() - start < 2

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

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({1: 2}, "the arrays: parameter names must be str, not int"),
            ({"a": object()}, "the arrays: a must be an array of numbers, not object"),
            ({"a": {"b": np.zeros(3)}}, "the arrays: a must be an array of numbers, not dict"),
            ({"a": None}, "the arrays: a must be an array of numbers, not NoneType"),
            ({"a": "text"}, "the arrays: a has the dtype <U4; parameters are floats"),
            ({"a": 2}, "the arrays: a has the dtype int64; parameters are floats"),
            ({"\x1b[2J\n": None}, r"the arrays: '\\x1b\[2J\\n' must be an array of numbers"),
            ({"\ud800": np.zeros(3, np.float32)}, r"1 unexpected:\n    '\\ud800' \(3,\)"),
            ([np.zeros(3)], 'a dict of arrays by name, or "random", not list'),
            ({np.float32}, 'a dict of arrays by name, or "random", not set'),
            (np.zeros(3), 'a dict of arrays by name, or "random", not ndarray'),
            (3, 'a dict of arrays by name, or "random", not int'),
            (b"model.pth", 'a dict of arrays by name, or "random", not bytes'),
        ],
    )
    @pytest.mark.parametrize("model", ["resnet18", "small"])
    def test_other_values_than_weights(
        self, given: object, message: str, model: str, small_graph: resrt.Graph
    ) -> None:
        network = small_graph if model == "small" else model
        with pytest.raises(resrt.WeightsError, match=message):
            resrt.build(network, given)  # type: ignore[arg-type]

    def test_arrays_of_other_libraries(self, small_graph: resrt.Graph, arrays: Arrays) -> None:
        class Tensor:
            def __init__(self, array: np.ndarray) -> None:
                self.array = array

            def __array__(self, *_: object, **__: object) -> np.ndarray:
                return self.array

        tensors = {name: Tensor(array) for name, array in arrays.items()}
        built = resrt.build(small_graph, tensors)  # type: ignore[arg-type]
        assert built.info.weights_sha256 == resrt.build(small_graph, arrays).info.weights_sha256

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


NAME = "\x1b[2J\n\x9b\u202e"


def _write_safetensors(path: Path, array: np.ndarray) -> None:
    save_file({NAME: array}, path, {NAME: NAME})


def _write_pdparams(path: Path, array: np.ndarray) -> None:
    path.write_bytes(pickle.dumps({NAME: array}, protocol=4))


def _write_npz(path: Path, array: np.ndarray) -> None:
    np.savez(path, **{NAME: array})


@pytest.mark.parametrize(
    ("write", "dtype"),
    [
        (_write_safetensors, np.float32),
        (_write_safetensors, np.int32),
        (_write_safetensors, np.uint16),  # unsupported
        (_write_pdparams, np.int32),
        (_write_npz, np.float32),
        (_write_npz, np.complex64),  # unsupported
    ],
)
def test_control_characters_are_not_printed(
    write: Callable[[Path, np.ndarray], None],
    dtype: type[np.generic],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, out = str(tmp_path / "x.npz"), str(tmp_path / "out")
    write(Path(path), np.ones(3, dtype))
    build = ["build", "resnet18", "--weights", path, "-o", out]
    for arguments in (["weights", path], ["convert", path, out], build):
        status = cli.main(arguments)
        captured = capsys.readouterr()
        printed = captured.out + captured.err
        assert printed.replace("\n", "").isprintable()
        assert status == 1 or arguments[0] == "weights"
    assert "\\x1b[2J\\n\\x9b\\u202e" in printed
