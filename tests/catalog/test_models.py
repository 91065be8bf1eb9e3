"""The catalog: names, parameters, costs, and custom configurations."""

from __future__ import annotations

import gzip
import json
import re

import numpy as np
import pytest

import resrt
from resrt import _core, weights
from support.paths import ROOT

# The names and shapes of every parameter of the original networks.
LISTING = json.loads(gzip.decompress((ROOT / "tests/parameter_shapes.json.gz").read_bytes()))
PUBLISHED = [model for model in resrt.list_models() if model.published]
# The published GFLOPs of these networks are wrong. The table in the README says why.
WRONG_GFLOPS = {"ResNet34_vd", "ResNet34_vd_ssld"}


@pytest.mark.parametrize("name", sorted(LISTING))
def test_parameters_equal_those_of_the_source(name: str) -> None:
    listed = LISTING[name]
    graph = resrt.build_graph(name)
    assert resrt.model_info(name).source == listed["source"]
    assert graph.cost.parameters == listed["trainable"]
    if listed["source"] == "timm":
        ours = {parameter.name: list(parameter.shape) for parameter in graph.parameters}
        assert ours == listed["shapes"]
    else:
        # After renaming, they fit the graph exactly.
        zero = np.float32(0)
        weights.fit({k: np.broadcast_to(zero, v) for k, v in listed["shapes"].items()}, graph)


def test_every_published_network_is_in_the_catalog() -> None:
    assert len(PUBLISHED) == 21


@pytest.mark.parametrize("model", PUBLISHED, ids=lambda model: model.name)
def test_costs_equal_the_published_ones(model: resrt.ModelInfo) -> None:
    cost = resrt.build_graph(model.name).cost
    assert model.published is not None
    assert cost.parameters / 1e6 == pytest.approx(model.published.mparams, rel=0.01)
    is_close = 2e-9 * cost.multiply_adds == pytest.approx(model.published.gflops, rel=0.01)
    assert is_close == (model.name not in WRONG_GFLOPS)


def test_readme_table_is_correct() -> None:
    readme = (ROOT / "README.md").read_text()
    for model in PUBLISHED:
        row = re.search(rf"^\| `{model.name}` \|(.*)\|$", readme, re.MULTILINE)
        assert row, f"{model.name} is missing in the README"
        cells = [cell.strip() for cell in row[1].split("|")]
        cost = resrt.build_graph(model.name).cost
        assert cells[1] == f"{cost.parameters / 1e6:.2f}"
        assert cells[3] == f"{2e-9 * cost.multiply_adds:.2f}"


def test_catalog_names_are_unique_and_cover_the_families() -> None:
    names = [model.name for model in resrt.list_models()]
    assert len(names) == len(set(names))
    sizes = ["002", "004", "006", "008", "016", "032", "040", "064", "080", "120", "160", "320"]
    assert {f"regnet{kind}_{size}" for kind in "xy" for size in sizes} <= set(names)
    depths = [18, 34, 50, 101, 152]
    assert {f"resnet{depth}{v}" for depth in depths for v in ("", "d")} <= set(names)
    assert {f"resnet{depth}{v}" for depth in depths[2:] for v in "cs"} <= set(names)
    assert {f"ResNet{depth}{v}" for depth in depths for v in ("", "_vd")} <= set(names)


def test_names_that_no_source_has_are_not_in_the_catalog() -> None:
    """timm has no resnet18c, and PaddleClas neither a ResNet101_vc nor a RegNetY."""
    names = {model.name for model in resrt.list_models()}
    assert not names & {f"resnet{depth}c" for depth in (18, 26, 34, 200)}
    assert not names & {f"ResNet{depth}_vc" for depth in (18, 34, 101, 152)}
    assert not any(name.startswith("RegNetY_") for name in names)


def test_networks_for_cifar() -> None:
    """Table 6 of the paper: 0.27, 0.46, 0.66, 0.85, 1.7 and 19.4 million parameters."""
    models = resrt.list_models("cifar_resnet*", source="paper")
    assert [(model.name, model.parameters) for model in models] == [
        ("cifar_resnet20", 269_722),
        ("cifar_resnet32", 464_154),
        ("cifar_resnet44", 658_586),
        ("cifar_resnet56", 853_018),
        ("cifar_resnet110", 1_727_962),
        ("cifar_resnet1202", 19_421_274),
    ]
    graph = resrt.build_graph("cifar_resnet20")
    assert (graph.input_shape, graph.classes) == ((3, 32, 32), 10)
    assert resrt.build_graph("cifar_resnet20", classes=100, input_size=8).classes == 100
    assert len(graph.parameters) == 19 * 5 + 2  # the shortcuts have none


def test_networks_for_small_images() -> None:
    """The stem keeps the resolution."""
    for config, stage in (
        (resrt.ResNet(stem="small"), "layer1.0.relu"),
        (resrt.ResNeSt(stem="small"), "layer1.0.relu"),
        (resrt.RegNet(stem_stride=1), "stem.bn.relu"),
    ):
        graph = resrt.build_graph(config, classes=10, input_size=32)
        (shape,) = (layer.shape for layer in graph.layers if layer.name == stage)
        assert shape[1:] == (32, 32)


def test_torchvision_rounds_widths_differently() -> None:
    """The counts are torchvision's. timm's regnety_080 is narrower than its regnet_y_8gf."""
    assert resrt.build_graph("regnet_x_8gf").cost.parameters == 39_572_648
    assert resrt.build_graph("regnet_y_8gf").cost.parameters == 39_381_472
    assert resrt.build_graph("regnety_080").cost.parameters == 39_180_068


def test_list_models_by_pattern_and_source() -> None:
    names = [model.name for model in resrt.list_models("ResNeSt*", source="PaddleClas")]
    assert names == [
        "ResNeSt50_fast_1s1x64d",
        "ResNeSt50",
        "ResNeSt101",
        "ResNeSt200",
        "ResNeSt269",
    ]
    assert resrt.model_info("Fix_ResNet50_vd_ssld_v2").input_size == 320


def test_unknown_name_suggests_the_nearest_names() -> None:
    with pytest.raises(resrt.ModelError, match=r"'resnext50d'.*resnet50d, resnest50d"):
        resrt.build_graph("resnext50d")
    with pytest.raises(resrt.ModelError, match="…"):
        resrt.build_graph("x" * 100_000)


def test_graph_prints_as_a_table() -> None:
    graph = resrt.build_graph("ResNeSt50")
    table = str(graph).splitlines()
    assert table[0].split() == ["layer", "definition", "output", "parameters", "mult-adds", "(M)"]
    assert len(table) == len(graph) + 2
    assert re.search(
        r"layer1.0.conv2 +SplitAttention\(64, radix=2, hidden=32\) +64x56x56", str(graph)
    )
    assert "27.48 M parameters" in table[-1]


def test_layers_of_a_graph() -> None:
    graph = resrt.build_graph("resnet18", classes=10, input_size=(64, 96), in_channels=1)
    assert graph.input_shape == (1, 64, 96)
    assert graph.classes == 10
    conv = next(layer for layer in graph.layers if layer.name == "layer2.0.conv1")
    assert (conv.kind, conv.shape, conv.inputs) == ("Conv2d", (128, 8, 12), ["layer1.1.relu"])
    assert (conv.definition.kernel, conv.definition.stride) == (3, 2)
    assert conv.cost.parameters == 64 * 128 * 9
    assert conv.cost.multiply_adds == 64 * 128 * 9 * 8 * 12
    assert [p.name for p in conv.parameters] == ["layer2.0.conv1.weight"]
    assert sum(layer.cost.parameters for layer in graph.layers) == graph.cost.parameters


def test_graph_from_layers() -> None:
    graph = resrt.build_graph(resrt.RegNet(depth=3, squeeze_excite=True), input_size=32)
    again = resrt.Graph(
        graph.name, [(layer.name, layer.definition, layer.inputs) for layer in graph.layers]
    )
    assert str(again) == str(graph)
    with pytest.raises(resrt.ModelError, match="'relu' of odd reads 'x', which is not the name"):
        resrt.Graph("odd", [("input", _core.Input(3, 8, 8), []), ("relu", _core.Relu(), ["x"])])
    with pytest.raises(resrt.ModelError, match="has no layers"):
        resrt.Graph("empty", [])


def test_definitions_are_constructible() -> None:
    """Every field can be set and read."""
    assert len(_core.DEFINITIONS) == len(set(_core.DEFINITIONS))
    for definition in _core.DEFINITIONS:
        fields = [name for name, kind in vars(definition).items() if isinstance(kind, property)]
        values = {name: 0.5 if name == "epsilon" else 1 for name in fields}
        made = definition(**values)
        assert {name: getattr(made, name) for name in fields} == values
        assert repr(made).startswith(f"{definition.__name__}(")


@pytest.mark.parametrize("radix", [1, 2, 3, 4])
@pytest.mark.parametrize("cardinality", [1, 2])
def test_custom_configurations(radix: int, cardinality: int) -> None:
    config = resrt.ResNeSt(depths=[2, 1, 1], width=48, radix=radix, cardinality=cardinality)
    graph = resrt.build_graph(config, classes=5, input_size=48, in_channels=4, name="mine")
    blocks = [layer.definition for layer in graph.layers if layer.kind == "SplitAttention"]
    assert [(b.radix, b.cardinality) for b in blocks] == [(radix, cardinality)] * 4
    assert repr(graph) == f"Graph(mine, input 4x48x48, 5 classes, {len(graph)} layers)"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (lambda: resrt.ResNet(depths=[]), "depths is empty"),
        (lambda: resrt.ResNet(depths=[3, 0]), "at least 1"),
        (lambda: resrt.ResNet(depths=[1] * 40), "at most 8"),
        (lambda: resrt.ResNet(width=0), "width"),
        (lambda: resrt.ResNet(width=10**9), "width"),
        (lambda: resrt.ResNet(block="basic", cardinality=32), "basic block has no cardinality"),
        (lambda: resrt.ResNet(stem="wide"), "choose one of plain, deep"),
        (lambda: resrt.ResNet(stem="deep", stem_channels=33), "even"),
        (lambda: resrt.ResNet(stem="tiered", stem_channels=36), "multiple of 8 for a tiered"),
        (lambda: resrt.ResNet(stem="small", stem_pool="convolution"), "cannot be combined"),
        (lambda: resrt.ResNet(antialias="blur", stem_pool="convolution"), "cannot be combined"),
        (lambda: resrt.ResNet(antialias="blur", stride_first=True), "cannot be combined"),
        (
            lambda: resrt.build_graph(
                resrt.ResNet(depths=[1, 1, 1, 1], antialias="average_pool"), input_size=232
            ),
            "but layer3 has one of 29x29; choose an input size that is a multiple of 32",
        ),
        (lambda: resrt.ResNet(antialias="bilinear"), "choose one of none, average_pool, blur"),
        (lambda: resrt.ResNet(attention="cbam"), "one of none, squeeze_excite, efficient"),
        (lambda: resrt.ResNet(activation="gelu"), "choose one of relu, silu"),
        (lambda: resrt.ResNet(attention_reduction=0), "attention_reduction"),
        (lambda: resrt.ResNet(downsample="pad", stem_channels=512), "512 channels to 256"),
        (lambda: resrt.ResNet(block="basic", stride_first=True), "a basic block has no"),
        (lambda: resrt.ResNeSt(radix=0), "radix"),
        (lambda: resrt.ResNeSt(width=1, base_width=1), "no channels"),
        (lambda: resrt.ResNeSt(radix=3), "64 channels cannot be split by radix 3"),
        (
            lambda: resrt.ResNeSt(width=8, cardinality=3, radix=1),
            "hidden channels .* multiple of cardinality",
        ),
        (lambda: resrt.ResNeSt(hidden_divisor=0), "hidden_divisor"),
        (lambda: resrt.ResNet(width=4096, base_width=4096, cardinality=4096), "at most 1048576"),
        (lambda: resrt.RegNet(width_initial=20), "multiple of 8"),
        (lambda: resrt.RegNet(width_multiplier=1.0), "greater than 1"),
        (lambda: resrt.RegNet(width_slope=float("nan")), "width_slope"),
        (lambda: resrt.RegNet(width_slope=1e30), "million channels"),
        (lambda: resrt.RegNet(depth=0), "depth"),
        (lambda: resrt.RegNet(group_width=0), "group_width"),
        (lambda: resrt.RegNet(stem_stride=4), "stem_stride must be 1 or 2, not 4"),
        (lambda: resrt.RegNet(bottleneck_ratio=float("nan")), "bottleneck_ratio must be from"),
        (lambda: resrt.RegNet(width_initial=8, bottleneck_ratio=0.1), "without channels"),
        (lambda: resrt.RegNet(final_channels=-1), "final_channels"),
        (lambda: resrt.RegNet(shortcut="pad"), "one of convolution, average_pool, none"),
    ],
)
def test_invalid_configurations(config, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(resrt.ModelError, match=message):
        resrt.build_graph(config())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": 0}, "height must be an integer of at least 1"),
        ({"input_size": 2**31 - 1}, "height must be at least 1 and at most 65536"),
        ({"input_size": 2**40}, "height must be an integer of at least 1"),
        ({"input_size": (64.9, 64)}, "height must be an integer of at least 1"),
        ({"input_size": (224,)}, "height, width"),
        ({"input_size": "large"}, "height, width"),
        ({"classes": 0}, "classes must be"),
        ({"classes": 2.5}, "classes must be"),
        ({"classes": True}, "classes must be"),
        ({"classes": 2**30}, "out_features must be at least 1 and at most"),
        ({"in_channels": -3}, "in_channels must be"),
        ({"name": "another"}, "leave out name"),
    ],
)
def test_invalid_options(options, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises((resrt.ModelError, resrt.InputError), match=message):
        resrt.build_graph("resnet50", **options)


def test_sizes_can_be_numpy_integers() -> None:
    graph = resrt.build_graph("resnet18", input_size=np.int64(64), classes=np.int32(5))
    assert (graph.input_shape, graph.classes) == ((3, 64, 64), 5)


def test_configurations_compare_by_value() -> None:
    assert resrt.model_info("resnet50") == resrt.model_info("resnet50")
    assert resrt.ResNet(width=32) != resrt.ResNet()
    config = resrt.ResNeSt(radix=3, width=48)
    assert eval(repr(config), vars(resrt)) == config
