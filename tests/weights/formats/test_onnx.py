"""The ONNX reader: parameters by name, parameters by following the graph, and invalid files."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import resrt
from resrt import weights
from resrt.weights.formats import content, onnx_file
from support.golden import draw_parameter
from support.onnx_models import Arrays, export, folded, scramble
from support.paths import TESTS
from support.samples import bounded_memory

CONFIGS: dict[str, resrt.ResNet | resrt.ResNeSt | resrt.RegNet] = {
    "basic": resrt.ResNet(depths=[2, 1], block="basic", width=8, stem_channels=8),
    "bottleneck": resrt.ResNet(depths=[2, 2], width=8, stem_channels=8),
    "deep_stem": resrt.ResNet(
        depths=[1, 2], width=8, stem="deep", stem_channels=16, downsample="average_pool"
    ),
    "project_first": resrt.ResNet(
        depths=[1, 1], block="basic", width=8, stem_channels=8, project_first=True
    ),
    "groups": resrt.ResNet(depths=[1, 2], width=16, stem_channels=8, cardinality=4, base_width=8),
    "radix1": resrt.ResNeSt(depths=[1, 1], width=16, stem_channels=16, radix=1),
    "radix2": resrt.ResNeSt(depths=[2, 1], width=16, stem_channels=16, radix=2),
    "radix4": resrt.ResNeSt(depths=[1, 2], width=16, stem_channels=16, radix=4, pool_first=True),
    "cardinality2": resrt.ResNeSt(
        depths=[1, 1], width=16, stem_channels=16, radix=2, cardinality=2, base_width=40
    ),
    "paddle": resrt.ResNeSt(
        depths=[1, 1], width=16, stem_channels=16, attention_bias=False, count_include_pad=False
    ),
    "regnet_x": resrt.RegNet(
        depth=6, width_initial=24, width_slope=36.44, width_multiplier=2.49, group_width=8
    ),
    "regnet_y": resrt.RegNet(
        depth=6,
        width_initial=24,
        width_slope=36.44,
        width_multiplier=2.49,
        group_width=8,
        squeeze_excite=True,
    ),
}


IMAGES = np.random.default_rng(1).standard_normal((2, 3, 32, 32)).astype(np.float32)


def draw(graph: resrt.Graph) -> Arrays:
    return {p.name: draw_parameter(p.name, p.shape) for p in graph.parameters}


def small(config: str) -> tuple[resrt.Graph, Arrays]:
    graph = resrt.build_graph(CONFIGS[config], classes=7, input_size=32, name=config)
    return graph, draw(graph)


def save(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


@cache
def expected_logits(config: str) -> np.ndarray:
    return logits(*small(config), IMAGES)


def logits(graph: resrt.Graph, source: Path | Arrays, images: np.ndarray) -> np.ndarray:
    return resrt.build(graph, source, precision="fp32").infer(images)


def assert_same(got: Arrays, wanted: Arrays) -> None:
    assert got.keys() == wanted.keys()
    for name, array in got.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, wanted[name], err_msg=name)


@pytest.mark.parametrize("config", CONFIGS)
class TestNetworks:
    def test_names_kept(self, config: str, tmp_path: Path) -> None:
        graph, arrays = small(config)
        path = save(export(graph, arrays), tmp_path / "model")
        checkpoint = weights.read(path)
        assert checkpoint.format == "ONNX"
        assert_same(dict(checkpoint.arrays), arrays)
        assert_same(weights.load(path, graph), arrays)
        np.testing.assert_array_equal(logits(graph, path, IMAGES), expected_logits(config))

    @pytest.mark.parametrize("seed", [1, 2, 3])
    def test_names_lost(self, config: str, seed: int, tmp_path: Path) -> None:
        graph, arrays = small(config)
        model = export(graph, arrays, transposes=seed > 1, constants=seed > 2)
        path = save(scramble(model, seed), tmp_path / "model")
        assert_same(weights.load(path, graph), arrays)

    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_normalisation_folded(self, config: str, seed: int, tmp_path: Path) -> None:
        """What an exporter folded equals, to the last bit, what the core folds."""
        graph, arrays = small(config)
        model = export(graph, arrays, folds=True, transposes=seed > 1)
        path = save(scramble(model, seed) if seed else model, tmp_path / "model")
        if seed == 0:
            np.testing.assert_array_equal(logits(graph, path, IMAGES), expected_logits(config))
        read = weights.load(path, graph)
        for layer in graph.layers:
            if layer.kind == "BatchNorm2d":
                (conv,) = layer.inputs
                norm = (layer.name, layer.definition.epsilon)
            elif layer.kind == "SplitAttention":
                conv, norm = f"{layer.name}.fc1", (f"{layer.name}.bn1", layer.definition.epsilon)
            else:
                continue
            expected = folded(arrays, conv, *norm)
            np.testing.assert_array_equal(read[f"{conv}.weight"], expected[0])
            # Folding it again changes no bit.
            for again, once in zip(folded(read, conv, *norm), expected, strict=True):
                np.testing.assert_array_equal(again, once)


def test_the_identity_normalisation_is_exact(tmp_path: Path) -> None:
    """It is exact even for the float32 values whose last bits change most easily."""
    graph, arrays = small("basic")
    weight = arrays["conv1.weight"]
    extremes = np.concatenate(
        [
            np.nextafter(np.float32(2) ** np.arange(-126, 128), np.float32(side), dtype=np.float32)
            for side in (-np.inf, np.inf)
        ]
        + [np.float32([1e-45, 1e-39, np.finfo(np.float32).max, 0.0])]
    )
    weight.ravel()[: extremes.size] = extremes
    model = export(graph, arrays)
    # Remove the normalisation, as if it had been folded.
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            node.op_type = "Identity"
            del node.input[1:]
    read = weights.load(save(model, tmp_path / "model"), graph)
    np.testing.assert_array_equal(folded(read, "conv1", "bn1", 1e-5)[0], weight)


class TestExporters:
    @pytest.mark.parametrize(
        ("dtype", "bits"),
        [
            (onnx.TensorProto.FLOAT16, 11),
            (onnx.TensorProto.BFLOAT16, 8),
            (onnx.TensorProto.DOUBLE, 53),
        ],
    )
    @pytest.mark.parametrize("is_scrambled", [False, True])
    def test_other_floats(self, dtype: int, bits: int, is_scrambled: bool, tmp_path: Path) -> None:
        """onnx.helper writes them to int32_data and double_data."""
        graph, arrays = small("radix2")
        model = export(graph, arrays, dtype=dtype)
        path = save(scramble(model) if is_scrambled else model, tmp_path / "model")
        for name, array in weights.load(path, graph).items():
            assert array.dtype == np.float32
            np.testing.assert_allclose(array, arrays[name], rtol=2.0**-bits, atol=1e-7)

    def test_float_data(self, tmp_path: Path) -> None:
        graph, arrays = small("basic")
        model = export(graph, arrays)
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT:
                values = numpy_helper.to_array(tensor).ravel()
                tensor.ClearField("raw_data")
                tensor.float_data.extend(values)
        assert_same(weights.load(save(model, tmp_path / "model"), graph), arrays)

    @pytest.mark.parametrize("config", ["bottleneck", "radix2", "regnet_y"])
    def test_onnx_runtimes_fused_convolutions(self, config: str, tmp_path: Path) -> None:
        """It fuses Conv with an activation, and in ResNet's blocks Conv, Add and Relu."""
        graph, arrays = small(config)
        model = export(graph, arrays, folds=True)
        expected = weights.load(save(model, tmp_path / "before"), graph)
        _fuse(model)
        assert {"FusedConv"} <= {node.op_type for node in model.graph.node}
        assert_same(weights.load(save(scramble(model), tmp_path / "after"), graph), expected)

    def test_ceil_mode_before_onnx_had_it(self, tmp_path: Path) -> None:
        graph, arrays = small("deep_stem")
        model = export(graph, arrays, folds=True)
        (pool,) = _nodes(model, "AveragePool")
        _attribute(pool, "ceil_mode").i = 0
        _attribute(pool, "pads").ints[:] = [0, 0, 1, 1]
        weights.load(save(model, tmp_path / "model"), graph)

    def test_convolution_with_a_bias_before_its_normalisation(self, tmp_path: Path) -> None:
        graph, arrays = small("basic")
        model = export(graph, arrays)
        conv = next(node for node in model.graph.node if node.op_type == "Conv")
        bias = np.arange(8, dtype=np.float32)
        model.graph.initializer.append(numpy_helper.from_array(bias, "conv1.bias"))
        conv.input.append("conv1.bias")
        read = weights.load(save(model, tmp_path / "model"), graph)
        expected = arrays["bn1.running_mean"].astype(np.float64) - bias
        np.testing.assert_array_equal(read["bn1.running_mean"], expected.astype(np.float32))

    def test_another_epsilon(self, tmp_path: Path) -> None:
        graph, arrays = small("basic")
        model = scramble(export(graph, arrays))
        for node in model.graph.node:
            if node.op_type == "BatchNormalization":
                node.attribute[0].f = 1e-3
        read = weights.load(save(model, tmp_path / "model"), graph)
        np.testing.assert_allclose(
            read["bn1.running_var"] + 1e-5, arrays["bn1.running_var"] + 1e-3, rtol=1e-6
        )

    def test_softmax_at_the_end_and_other_outputs(self, tmp_path: Path) -> None:
        graph, arrays = small("radix2")
        model = scramble(export(graph, arrays))
        (output,) = (value.name for value in model.graph.output)
        model.graph.node.append(helper.make_node("Softmax", [output], ["probabilities"]))
        features = next(node.output[0] for node in model.graph.node if node.op_type == "Flatten")
        del model.graph.output[:]
        for name in (features, "probabilities"):
            model.graph.output.append(helper.make_empty_tensor_value_info(name))
        assert_same(weights.load(save(model, tmp_path / "model"), graph), arrays)

    def test_paddles_linear_layers(self, tmp_path: Path) -> None:
        """Their weights are transposed and casts may precede them."""
        graph, arrays = small("basic")
        model = scramble(export(graph, arrays, transposes=True))
        product = next(node for node in model.graph.node if node.op_type == "MatMul")
        at = list(model.graph.node).index(product)
        perm = helper.make_node("Transpose", [product.input[1]], ["turned"], perm=[1, 0])
        back = helper.make_node("Transpose", ["turned"], ["back"], perm=[1, 0])
        cast = helper.make_node("Cast", [product.input[0]], ["cast"], to=1)
        product.input[:] = ["cast", "back"]
        for node in (cast, back, perm):
            model.graph.node.insert(at, node)
        assert_same(weights.load(save(model, tmp_path / "model"), graph), arrays)

    def test_arrays_are_views_of_the_file(self, tmp_path: Path) -> None:
        graph, arrays = small("basic")
        path = save(export(graph, arrays), tmp_path / "model")
        for array in weights.read(path).arrays.values():
            assert not array.flags.owndata
            assert not array.flags.writeable


def _fuse(model: onnx.ModelProto) -> None:
    """Fuse each Conv with the Relu or Sigmoid that follows it, or with the Add and the Relu."""
    nodes = list(model.graph.node)
    makers = {output: node for node in nodes for output in node.output}

    def conv_behind(name: str) -> onnx.NodeProto | None:
        return makers[name] if makers[name].op_type == "Conv" else None

    for node in nodes:
        if node.op_type not in ("Relu", "Sigmoid"):
            continue
        residual: list[str] = []
        conv = conv_behind(node.input[0])
        if makers[node.input[0]].op_type == "Add":
            branch, shortcut = makers[node.input[0]].input
            residual, conv = [shortcut], conv_behind(branch)
        assert conv is not None
        # The nodes that were fused stay in the model, but nothing reads their outputs.
        activation = helper.make_attribute("activation", node.op_type)
        node.op_type, node.domain = "FusedConv", "com.microsoft"
        node.input[:] = [*conv.input, *residual]
        node.attribute.extend([*conv.attribute, activation])


Exported = tuple[resrt.Graph, Arrays, onnx.ModelProto, Path]


class TestExternalData:
    @pytest.fixture
    def exported(self, tmp_path: Path) -> Exported:
        graph, arrays = small("basic")
        model = export(graph, arrays)
        (tmp_path / "sub").mkdir()
        path = tmp_path / "model.onnx"
        onnx.save_model(
            model, path, save_as_external_data=True, location="sub/model.data", size_threshold=0
        )
        return graph, arrays, onnx.load(path, load_external_data=False), path

    def test_reads_it(
        self, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        graph, arrays, _, path = exported
        assert_same(weights.load(path, graph), arrays)
        monkeypatch.chdir(tmp_path)
        assert_same(weights.load(path.name, graph), arrays)

    @pytest.mark.parametrize(
        "location", ["/etc/passwd", "../model.data", "sub/../../model.data", "", ".", "sub/\0"]
    )
    def test_files_outside_the_folder_are_not_read(self, exported: Exported, location: str) -> None:
        graph, _, model, path = exported
        self._set(model, "location", location)
        with pytest.raises(resrt.WeightsError, match=r"not in its own folder"):
            weights.load(save(model, path), graph)

    @pytest.mark.parametrize("is_folder", [False, True])
    def test_symbolic_links_are_not_read(
        self, exported: Exported, tmp_path: Path, is_folder: bool
    ) -> None:
        graph, _, model, path = exported
        if is_folder:
            (tmp_path / "link").symlink_to(tmp_path / "sub")
        else:
            (tmp_path / "link").mkdir()
            (tmp_path / "link" / "model.data").symlink_to(tmp_path / "sub" / "model.data")
        self._set(model, "location", "link/model.data")
        with pytest.raises(resrt.FileError, match=r"'link/model.data'.*symbolic link"):
            weights.load(save(model, path), graph)

    def test_only_regular_files_are_read(self, exported: Exported, tmp_path: Path) -> None:
        graph, _, model, path = exported
        self._set(model, "location", "sub")
        with pytest.raises(resrt.FileError, match=r"'sub': not a regular file"):
            weights.load(save(model, path), graph)
        os.mkfifo(tmp_path / "pipe")
        self._set(model, "location", "pipe")
        with pytest.raises(resrt.FileError, match=r"'pipe': not a regular file"):
            weights.load(save(model, path), graph)
        self._set(model, "location", "nothing")
        with pytest.raises(resrt.FileError, match=r"'nothing'.*No such file.*in the same folder"):
            weights.load(save(model, path), graph)

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("offset", "999999999999", "which has"),
            ("length", "999999999999", "which has"),
            ("length", "3", "has 3 bytes, expected"),
            ("offset", "-1", "the invalid offset '-1'"),
            ("length", "one", "the invalid length 'one'"),
            ("offset", "9" * 30, "the invalid offset '9"),
        ],
    )
    def test_invalid_sizes(self, exported: Exported, key: str, value: str, message: str) -> None:
        graph, _, model, path = exported
        self._set(model, key, value)
        with pytest.raises(resrt.WeightsError, match=message):
            weights.load(save(model, path), graph)

    def test_a_huge_file_of_which_little_is_used(self, exported: Exported, tmp_path: Path) -> None:
        graph, arrays, _, path = exported
        os.truncate(tmp_path / "sub" / "model.data", 8 << 30)
        with bounded_memory(16 << 20):
            assert_same(weights.load(path, graph), arrays)

    def test_tensors_that_share_bytes(self, tmp_path: Path) -> None:
        """Otherwise each would be widened on its own."""
        (tmp_path / "data").write_bytes(bytes(2_000_000))
        (tmp_path / "same").hardlink_to(tmp_path / "data")
        model = export(*small("basic"))
        for i in range(100):
            tensor = onnx.TensorProto(name=f"x{i}", data_type=16, dims=[1_000_000])
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=("data", "./data", "same")[i % 3])
            model.graph.initializer.append(tensor)
        with bounded_memory(16 << 20), pytest.raises(resrt.WeightsError, match="its own bytes"):
            weights.read(save(model, tmp_path / "model"))

    def test_a_file_that_changes_between_two_tensors(
        self, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = tmp_path / "sub" / "model.data"

        class Changed(content.File):
            def read(self, offset: int, size: int) -> memoryview:
                read = super().read(offset, size)
                data.write_bytes(data.read_bytes())
                return read

        monkeypatch.setattr(onnx_file, "File", Changed)
        with pytest.raises(resrt.FileError, match=r"'sub/model.data': the file changed"):
            weights.read(exported[3])

    def test_the_checksum_covers_it(self, exported: Exported, tmp_path: Path) -> None:
        before = weights.read(exported[3]).sha256
        assert weights.read(exported[3]).sha256 == before
        with (tmp_path / "sub" / "model.data").open("r+b") as data:
            data.write(b"1234")
        assert weights.read(exported[3]).sha256 != before

    @staticmethod
    def _set(model: onnx.ModelProto, key: str, value: str) -> None:
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == key:
                    entry.value = value


def _double_a_stride(model: onnx.ModelProto) -> None:
    _attribute(_nodes(model, "Conv")[3], "strides").ints[:] = [2, 2]


def _move_a_shortcut(model: onnx.ModelProto) -> None:
    """Take the last block's identity from the block before."""
    adds = _nodes(model, "Add")
    relus = {node.input[0]: node.output[0] for node in _nodes(model, "Relu")}
    first, second = (relus[add.output[0]] for add in adds[:2])
    (place,) = (i for i, name in enumerate(adds[2].input) if name == second)
    adds[2].input[place] = first


def _pad_more(model: onnx.ModelProto) -> None:
    _attribute(_nodes(model, "MaxPool")[0], "pads").ints[:] = [0, 0, 1, 1]


def _dilate(model: onnx.ModelProto) -> None:
    _nodes(model, "Conv")[0].attribute.append(helper.make_attribute("dilations", [2, 2]))


def _gelu(model: onnx.ModelProto) -> None:
    _nodes(model, "Relu")[2].op_type = "Gelu"


def _preprocess(model: onnx.ModelProto) -> None:
    conv = _nodes(model, "Conv")[0]
    model.graph.node.insert(0, helper.make_node("Neg", [conv.input[0]], ["negative"], "flip"))
    conv.input[0] = "negative"


def _cut(model: onnx.ModelProto) -> None:
    del model.graph.output[:]


def _rename(model: onnx.ModelProto) -> None:
    """Rename only the head's bias, so that the names do not suffice."""
    for named in model.graph.initializer:
        named.name = named.name.replace("fc.bias", "bias")
    for node in model.graph.node:
        node.input[:] = [name.replace("fc.bias", "bias") for name in node.input]


def _nodes(model: onnx.ModelProto, op: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == op]


def _attribute(node: onnx.NodeProto, name: str) -> onnx.AttributeProto:
    return next(attribute for attribute in node.attribute if attribute.name == name)


class TestOtherModels:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (_double_a_stride, r"layer1.1.conv1, Conv2d\(8, kernel=3.*strides \[2, 2\]"),
            (
                _move_a_shortcut,
                r"layer1.1.relu, Relu\(\), .* the Relu .*, and elsewhere the Relu",
            ),
            (_pad_more, r"maxpool, MaxPool2d.*, found the MaxPool .*pads \[0, 0, 1, 1\]"),
            (_dilate, r"expected conv1, Conv2d.*of weight \(8, 3, 7, 7\), found"),
            (_gelu, r"expected layer1.0.relu, Relu\(\), found the Gelu '"),
            (_preprocess, r"expected input, Input.*, found the Neg 'flip'"),
            (_cut, r"it has no output"),
        ],
    )
    def test_other_networks(
        self, change: Callable[[onnx.ModelProto], None], message: str, tmp_path: Path
    ) -> None:
        config = resrt.ResNet(depths=[3], block="basic", width=8, stem_channels=8)
        graph = resrt.build_graph(config, classes=7, input_size=32, name="net")
        model = export(graph, draw(graph), folds=True)
        weights.load(save(model, tmp_path / "model"), graph)
        change(model)
        with pytest.raises(
            resrt.WeightsError,
            match=rf"model' matches net neither .* graph: (expected )?{message}.*Choose",
        ):
            weights.load(save(model, tmp_path / "model"), graph)

    @pytest.mark.parametrize("config", CONFIGS)
    def test_each_network_matches_only_itself(self, config: str, tmp_path: Path) -> None:
        graph, arrays = small(config)
        path = save(export(graph, arrays, folds=True), tmp_path / "model")
        for other in CONFIGS.keys() - {config}:
            with pytest.raises(
                resrt.WeightsError, match=rf"matches {other} neither .*: expected .*, found"
            ):
                weights.load(path, small(other)[0])

    def test_a_deeper_network_with_the_same_names(self, tmp_path: Path) -> None:
        deep = resrt.build_graph(
            resrt.ResNet(depths=[2, 2], block="basic", width=8, stem_channels=8),
            classes=7,
            input_size=32,
        )
        path = save(export(deep, draw(deep)), tmp_path / "model")
        with pytest.raises(resrt.WeightsError, match=r"matches basic neither"):
            weights.load(path, small("basic")[0])

    def test_another_number_of_classes(self, tmp_path: Path) -> None:
        graph, arrays = small("radix2")
        path = save(export(graph, arrays, folds=True), tmp_path / "model")
        other = resrt.build_graph(CONFIGS["radix2"], classes=8, input_size=32, name="other")
        message = r"expected fc, Linear\(8\) of weight \(8, 128\), found the Gemm"
        with pytest.raises(resrt.WeightsError, match=message):
            weights.load(path, other)

    @pytest.mark.parametrize(
        ("op", "domain", "message"),
        [
            ("DequantizeLinear", "", "quantised"),
            ("QLinearConv", "", "quantised"),
            ("ConvInteger", "", "quantised"),
            ("QLinearAdd", "com.microsoft", "quantised"),
            ("Conv", "com.microsoft.nchwc", "ORT_ENABLE_EXTENDED"),
            ("Block", "mine", "inline_local_functions"),
        ],
    )
    def test_models_with_modified_weights(
        self, op: str, domain: str, message: str, tmp_path: Path
    ) -> None:
        graph, arrays = small("basic")
        model = export(graph, arrays)
        model.functions.append(helper.make_function("mine", "Block", [], [], [], []))
        _nodes(model, "Conv")[1].MergeFrom(onnx.NodeProto(op_type=op, domain=domain, name="here"))
        with pytest.raises(resrt.WeightsError, match=message) as caught:
            weights.read(save(model, tmp_path / "model"))
        assert f"its node 'here' is of type {op}" in str(caught.value)

    @pytest.mark.parametrize("op", ["Conv", "MatMul", "BatchNormalization", "Relu", "Add"])
    def test_nodes_with_too_few_inputs(self, op: str, tmp_path: Path) -> None:
        graph, arrays = small("basic")
        for count in (0, 1):
            model = export(graph, arrays, transposes=True)
            for node in _nodes(model, op)[-1:]:
                del node.input[count:]
            if op == "Relu" and count == 1:
                continue
            _rename(model)
            with pytest.raises(resrt.WeightsError, match=r"expected .*, found the"):
                weights.load(save(model, tmp_path / "model"), graph)

    def test_weights_that_are_not_constants(self, tmp_path: Path) -> None:
        graph, arrays = small("basic")
        model = export(graph, arrays, folds=True)
        tensor = next(t for t in model.graph.initializer if t.name == "conv1.weight")
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, 1, tensor.dims))
        model.graph.initializer.remove(tensor)
        with pytest.raises(
            resrt.WeightsError, match=r"'conv1.weight', a parameter of conv1.* is not a float const"
        ):
            weights.load(save(model, tmp_path / "model"), graph)


class TestMalformed:
    def test_truncated(self, tmp_path: Path) -> None:
        graph, arrays = small("basic")
        content = export(graph, arrays, constants=True).SerializeToString()
        path = tmp_path / "model"
        for length in (3, 4, 10, 100, 1000, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:length])
            with pytest.raises(resrt.WeightsError, match=r"is not a valid ONNX file \(.*again"):
                weights.read(path)

    @pytest.mark.parametrize(
        ("tensor", "message"),
        [
            (onnx.TensorProto(dims=[3, 4], data_type=1, raw_data=b"1234"), "4 bytes, expected 48"),
            (onnx.TensorProto(dims=[1 << 40], data_type=1, raw_data=b"1234"), "invalid shape"),
            (
                onnx.TensorProto(dims=[1 << 30] * 5, data_type=1, raw_data=b"1234"),
                "4 bytes, expected",
            ),
            (onnx.TensorProto(dims=[-1], data_type=1, raw_data=b"1234"), "invalid shape"),
            (onnx.TensorProto(dims=[1] * 50, data_type=1, raw_data=b"1234"), "has 9 dim"),
            (onnx.TensorProto(dims=[2], data_type=10, int32_data=[1]), "has 2 bytes, expected 4"),
            (onnx.TensorProto(dims=[2], data_type=1), "has 0 bytes, expected 8"),
            (onnx.TensorProto(name="x" * 100_000, data_type=1), "a text has 100000 bytes"),
        ],
    )
    def test_invalid_tensors(self, tensor: onnx.TensorProto, message: str, tmp_path: Path) -> None:
        graph, arrays = small("basic")
        model = export(graph, arrays)
        model.graph.initializer.append(tensor)
        with pytest.raises(resrt.WeightsError, match=rf"not a valid ONNX file .*{message}"):
            weights.read(save(model, tmp_path / "model"))

    def test_cycles(self, tmp_path: Path) -> None:
        graph, arrays = small("basic")
        model = export(graph, arrays)
        model.graph.node.append(helper.make_node("Identity", ["b"], ["a"], "first"))
        model.graph.node.append(helper.make_node("Identity", ["a"], ["b"], "second"))
        with pytest.raises(resrt.WeightsError, match=r"'first' reads 'b', which nothing"):
            weights.read(save(model, tmp_path / "model"))

    def test_an_invalid_node_type(self, tmp_path: Path) -> None:
        graph, arrays = small("basic")
        model = export(graph, arrays)
        _nodes(model, "Conv")[0].op_type = "Conv\x1b[2J"
        with pytest.raises(
            resrt.WeightsError, match=r"a node has the invalid type 'Conv\\x1b\[2J'"
        ):
            weights.read(save(model, tmp_path / "model"))

    def test_the_same_tensor_twice(self, tmp_path: Path) -> None:
        graph, arrays = small("basic")
        model = export(graph, arrays)
        model.graph.node.append(helper.make_node("Identity", ["bn1"], ["conv1"], "again"))
        with pytest.raises(resrt.WeightsError, match=r"'again' writes 'conv1' a second time"):
            weights.read(save(model, tmp_path / "model"))

    def test_a_property_that_is_too_long(self, tmp_path: Path) -> None:
        model = export(*small("basic"))
        helper.set_model_props(model, {"labels": "x" * (1 << 21)})
        with pytest.raises(resrt.WeightsError, match="a text has 2097152 bytes"):
            weights.read(save(model, tmp_path / "model"))

    @pytest.mark.parametrize("entry", [b"\x0a\x03\x22\x01a", b"\x2a\x00", b"\x70\x00"])
    def test_more_entries_than_any_network_has(self, entry: bytes, tmp_path: Path) -> None:
        """A file of two-byte entries would take a hundred times its size in memory."""
        nodes = entry * 310_000
        size = _varint(len(nodes))
        (tmp_path / "model").write_bytes(b"\x08\x08\x3a" + size + nodes)
        with pytest.raises(resrt.WeightsError, match=r"it has more than \d+"):
            weights.read(tmp_path / "model")

    @pytest.mark.parametrize("seed", range(20))
    def test_damaged_files_raise_only_errors_of_resrt(self, seed: int, tmp_path: Path) -> None:
        """A short, fixed part of tests/fuzz/fuzz_onnx.py."""
        rng = np.random.default_rng(seed)
        graphs = [small(config)[0] for config in ("basic", "radix2")]
        for sample in sorted((TESTS / "fuzz" / "corpus" / "onnx").iterdir()):
            content = bytearray(sample.read_bytes())
            for _ in range(rng.integers(1, 20)):
                content[rng.integers(2, len(content))] = rng.integers(256)
            (tmp_path / "damaged").write_bytes(content)
            for graph in graphs:
                with suppress(resrt.Error):
                    weights.load(tmp_path / "damaged", graph)

    def test_other_formats_are_not_recognised(self) -> None:
        assert not onnx_file.recognises(memoryview(b"\x08"))
        assert not onnx_file.recognises(memoryview(b"\x08\x07\x7f"))
        assert not onnx_file.recognises(memoryview(b"\x80\x02}q\x00."))
        assert not onnx_file.recognises(memoryview(b"267\nconv1.weight 9408 3c"))
        assert not onnx_file.recognises(memoryview(b"PK\x03\x04"))


def _varint(number: int) -> bytes:
    octets = bytearray()
    while number > 0x7F:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*octets, number])
