"""Naming conventions, and what is derived from a checkpoint."""

from __future__ import annotations

import gzip
import hashlib
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import resrt
from resrt import cli, weights
from resrt.operations.convert import convert
from resrt.weights import names
from support.onnx_models import export, scramble
from support.paths import TESTS

LISTING = json.loads(gzip.decompress((TESTS / "parameter_shapes.json.gz").read_bytes()))


def draw(shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.uniform(0.1, 1, shape).astype(np.float32) for name, shape in shapes.items()}


def ones(name: str) -> dict[str, np.ndarray]:
    """Return arrays with the shapes of a network's parameters that take no memory."""
    return {k: np.broadcast_to(np.float32(1), v) for k, v in LISTING[name]["shapes"].items()}


@pytest.mark.parametrize("name", sorted(LISTING))
def test_convention_and_network_are_recognised(name: str) -> None:
    arrays = ones(name)
    assert names.convention_of(arrays).name == LISTING[name]["source"]
    graphs = {match.network: match.share for match in weights.identify.nearest_networks(arrays)}
    share = max(graphs.values())
    assert share == 1
    # The nearest network is this one, or another with the same parameters.
    parameters = [p.shape for p in resrt.build_graph(name).parameters]
    nearest = next(iter(graphs))
    assert [p.shape for p in resrt.build_graph(nearest).parameters] == parameters


def to_pycls(name: str) -> str:
    """Return the name of a parameter in facebookresearch/pycls."""
    for ours, theirs in (
        (r"\.conv1\.conv\.", ".f.a."),
        (r"\.conv1\.bn\.", ".f.a_bn."),
        (r"\.conv2\.conv\.", ".f.b."),
        (r"\.conv2\.bn\.", ".f.b_bn."),
        (r"\.conv3\.conv\.", ".f.c."),
        (r"\.conv3\.bn\.", ".f.c_bn."),
        (r"\.se\.fc1\.", ".f.se.f_ex.0."),
        (r"\.se\.fc2\.", ".f.se.f_ex.2."),
        (r"\.downsample\.conv\.", ".proj."),
        (r"\.downsample\.bn\.", ".bn."),
    ):
        name = re.sub(ours, theirs, name)
    return name


def test_pycls_names_and_its_bgr_stem() -> None:
    graph = resrt.build_graph("regnety_002")
    ours = draw({parameter.name: list(parameter.shape) for parameter in graph.parameters})
    theirs = {to_pycls(name): array for name, array in ours.items()}
    theirs["stem.conv.weight"] = ours["stem.conv.weight"][:, ::-1]
    assert names.convention_of(theirs).name == "pycls"
    fitted = weights.fit(theirs, graph)
    for name, array in ours.items():
        np.testing.assert_array_equal(fitted[name], array)


def test_old_and_new_names_of_paddle_give_the_same_arrays() -> None:
    """PaddleClas before 2.1 named ResNet50's parameters as ResNet50_vc's still are."""
    graph = resrt.build_graph("ResNet50")
    new = draw(LISTING["ResNet50"]["shapes"])
    old = {}
    blocks = [f"bb_{stage}_{i}" for stage, depth in enumerate([3, 4, 6, 3]) for i in range(depth)]
    for name, array in new.items():
        name = re.sub(r"^blocks\.(\d+)", lambda m: blocks[int(m[1])], name)
        name = re.sub(r"^stem\.0", "conv", name)
        name = name.replace(".conv.weight", "._conv.weight").replace(".bn.", "._batch_norm.")
        old[re.sub(r"^fc\.", "out.", name)] = array
    assert "bb_0_0.short._batch_norm._mean" in old
    fitted_old, fitted_new = weights.fit(old, graph), weights.fit(new, graph)
    for name, array in fitted_new.items():
        np.testing.assert_array_equal(fitted_old[name], array)


def to_wsl(name: str) -> str:
    """Return the name of a parameter in PaddleClas's ResNeXt101WSL."""
    for ours, theirs in (
        (r"^conv1\.", "_conv_stem._conv."),
        (r"^bn1\.", "_conv_stem._bn."),
        (r"^fc\.", "_out."),
        (r"^layer(\d)\.(\d+)\.downsample\.0\.", r"_conv\1_\2._short._conv._conv."),
        (r"^layer(\d)\.(\d+)\.downsample\.1\.", r"_conv\1_\2._short._conv._bn."),
        (
            r"^layer(\d)\.(\d+)\.conv(\d)\.",
            lambda m: f"_conv{m[1]}_{m[2]}._conv{int(m[3]) - 1}._conv.",
        ),
        (r"^layer(\d)\.(\d+)\.bn(\d)\.", lambda m: f"_conv{m[1]}_{m[2]}._conv{int(m[3]) - 1}._bn."),
        (r"running_mean$", "_mean"),
        (r"running_var$", "_variance"),
    ):
        name = re.sub(ours, theirs, name)
    return name


def to_paddle_vision(name: str) -> str:
    return name.replace(".running_mean", "._mean").replace(".running_var", "._variance")


def to_children(name: str) -> str:
    """Return the name of a parameter in torch.nn.Sequential(*model.children())."""
    name = re.sub(r"^layer(\d)", lambda m: str(int(m[1]) + 3), name)
    return re.sub("^conv1", "0", re.sub("^bn1", "1", re.sub("^fc", "9", name)))


@pytest.mark.parametrize(
    ("rename", "convention"),
    [
        (to_wsl, "PaddleClas"),
        (to_paddle_vision, "PaddleClas"),
        (to_children, "torch.nn.Sequential"),
        (lambda name: re.sub("^fc", "fc.1", name), "timm"),
        (lambda name: re.sub("^fc", "linear", name), "timm"),
        (lambda name: re.sub("^fc", "classifier", name), "timm"),
        (lambda name: re.sub("^fc", "head.fc", name), "timm"),
    ],
)
@pytest.mark.parametrize("network", ["resnet50", "resnet34"])
def test_other_names_of_a_resnet(
    rename: Callable[[str], str], convention: str, network: str, tmp_path: Path
) -> None:
    graph = resrt.build_graph(network, classes=7)
    ours = draw({parameter.name: list(parameter.shape) for parameter in graph.parameters})
    theirs = {rename(name): array for name, array in ours.items()}
    if convention == "PaddleClas":
        theirs = {name: array.T if array.ndim == 2 else array for name, array in theirs.items()}
    save_file({k: np.ascontiguousarray(v) for k, v in theirs.items()}, tmp_path / "x")
    checkpoint = weights.read(tmp_path / "x")
    assert names.convention_of(checkpoint.arrays).name == convention
    fitted = weights.load(tmp_path / "x", graph)
    for name, array in ours.items():
        np.testing.assert_array_equal(fitted[name], array)
    found = weights.describe(checkpoint)
    assert (found.matches[0].share, found.classes) == (1, 7)


def to_hugging_face(name: str, has_attention: bool) -> str:
    """Return the name of a parameter of ResNetFor- or RegNetForImageClassification."""

    def block(match: re.Match[str]) -> str:
        stage, index = int(match[2]) - 1, int(match[3]) - (match[1] == "s")
        return f"encoder.stages.{stage}.layers.{index}."

    def conv(match: re.Match[str]) -> str:
        index = int(match[1]) - 1
        kind = "normalization" if match[0].startswith("bn") or ".bn" in match[0] else "convolution"
        return f"layer.{index + 1 if has_attention and index == 2 else index}.{kind}."

    for ours, theirs in (
        (r"^(?:stem\.conv|conv1)\.", "embedder.embedder.convolution."),
        (r"^(?:stem\.bn|bn1)\.", "embedder.embedder.normalization."),
        (r"^(layer|s)(\d)\.b?(\d+)\.", block),
        (r"downsample\.(?:0|conv)\.", "shortcut.convolution."),
        (r"downsample\.(?:1|bn)\.", "shortcut.normalization."),
        (r"se\.fc1", "layer.2.attention.0"),
        (r"se\.fc2", "layer.2.attention.2"),
        (r"\b(?:conv|bn)(\d)\.(?:conv\.|bn\.)?", conv),
        (r"^(?:fc|head\.fc)\.", "classifier.1."),
    ):
        name = re.sub(ours, theirs, name)
    return name if name.startswith("classifier") else f"resnet.{name}"


@pytest.mark.parametrize("network", ["resnet18", "resnet50", "regnetx_002", "regnety_002"])
def test_hugging_face_names(network: str, tmp_path: Path) -> None:
    graph = resrt.build_graph(network)
    ours = draw({parameter.name: list(parameter.shape) for parameter in graph.parameters})
    theirs = {to_hugging_face(name, "regnety" in network): array for name, array in ours.items()}
    assert len(theirs) == len(ours)
    save_file(theirs, tmp_path / "x")
    checkpoint = weights.read(tmp_path / "x")
    assert names.convention_of(checkpoint.arrays).name == "Hugging Face"
    fitted = weights.load(tmp_path / "x", graph)
    for name, array in ours.items():
        np.testing.assert_array_equal(fitted[name], array)
    assert weights.describe(checkpoint).matches[0].share == 1


def test_the_error_for_weights_of_another_network_names_it() -> None:
    with pytest.raises(resrt.WeightsError, match=r"look like the weights of resnest101e\.$"):
        weights.fit(ones("resnest101e"), resrt.build_graph("resnest50d"))
    with pytest.raises(resrt.WeightsError) as caught:
        weights.fit({"nonsense": np.zeros(3, np.float32)}, resrt.build_graph("resnet18"))
    assert "look like" not in str(caught.value)


@pytest.fixture
def fine_tuned(tmp_path: Path) -> Path:
    """Return the weights of timm's resnet18 for 7 classes of one-channel images."""
    graph = resrt.build_graph("resnet18", classes=7, in_channels=1)
    arrays = draw({parameter.name: list(parameter.shape) for parameter in graph.parameters})
    save_file(arrays, tmp_path / "fine.safetensors", {"trained_by": "me"})
    return tmp_path / "fine.safetensors"


def test_classes_and_channels_are_those_of_the_checkpoint(fine_tuned: Path) -> None:
    engine = resrt.build("resnet18", fine_tuned, input_size=32, max_batch=1)
    assert (engine.info.classes, engine.info.input_shape) == (7, (1, 32, 32))
    with pytest.raises(resrt.WeightsError, match=r"fc.bias: expected \(9,\), found \(7,\)"):
        resrt.build("resnet18", fine_tuned, classes=9)


def test_labels_from_a_file(fine_tuned: Path) -> None:
    listed = ["ant", "bee", "cicada", "dragonfly", "earwig", "fly", "größerer Käfer"]
    text, document = fine_tuned.with_name("labels.txt"), fine_tuned.with_name("labels.json")
    text.write_text("\n".join(listed) + "\n", encoding="utf-8")
    document.write_text(json.dumps(listed))
    for path in (text, document):
        engine = resrt.build("resnet18", fine_tuned, input_size=32, max_batch=1, labels=path)
        assert engine.info.labels == listed
    document.write_text("[1, 2")
    with pytest.raises(resrt.InputError, match="invalid labels: not a valid JSON list"):
        resrt.build("resnet18", fine_tuned, labels=document)
    with pytest.raises(resrt.FileError, match="missing.txt': No such file"):
        resrt.build("resnet18", fine_tuned, labels=fine_tuned.with_name("missing.txt"))


def test_the_command_describes_a_file(fine_tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["weights", str(fine_tuned)]) == 0
    text = capsys.readouterr().out
    assert re.search(r"names +those of timm", text)
    assert re.search(r"fits +resnet18, resnetblur18$", text, re.MULTILINE)
    assert re.search(r"trained for +7 classes, 1 input channels", text)
    assert re.search(r"trained_by +me", text)
    assert "odd" not in text
    assert cli.main(["weights", "--format", "json", str(fine_tuned)]) == 0
    (found,) = json.loads(capsys.readouterr().out).values()
    assert (found["classes"], found["matches"][0]["network"]) == (7, "resnet18")


def test_the_command_reports_what_is_unusual(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = resrt.build_graph("resnet18")
    arrays = draw({parameter.name: list(parameter.shape) for parameter in graph.parameters})
    arrays["bn1.running_var"][3] = -1
    arrays["bn1.bias"][0] = np.nan
    arrays["layer1.0.conv1.weight"][:] = 0
    arrays["extra.thing"] = np.zeros(3, np.int32)
    del arrays["layer4.1.bn2.bias"]
    save_file(arrays, tmp_path / "odd")
    assert cli.main(["weights", str(tmp_path / "odd")]) == 0
    text = capsys.readouterr().out
    assert "bn1.running_var is a variance with negative values" in text
    assert "bn1.bias has non-finite values" in text
    assert "layer1.0.conv1.weight is all zeros" in text
    assert "extra.thing has the dtype int32, expected floats" in text
    assert "1 arrays are missing for resnet18: layer4.1.bn2.bias" in text
    assert "1 arrays do not belong to resnet18: extra.thing" in text


def test_the_command_names_a_few_of_many_odd_arrays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({f"x{i:05}": np.zeros((2, 2), np.float32) for i in range(20_000)}, tmp_path / "odd")
    assert cli.main(["weights", str(tmp_path / "odd")]) == 0
    text = capsys.readouterr().out
    assert [f"x{i:05} is all zeros" in text for i in range(6)] == [True] * 5 + [False]
    assert "19995 more arrays: each is all zeros" in text
    assert text.count("\n") < 20


def test_converted_weights_are_the_same_and_have_labels(
    fine_tuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = fine_tuned.with_name("labels.txt")
    listed.write_text("\n".join("abcdefg"))
    out = fine_tuned.with_name("out.safetensors")
    assert cli.main(["convert", str(fine_tuned), str(out), "--labels", str(listed)]) == 0
    assert "resnet18" in capsys.readouterr().out
    before = resrt.build("resnet18", fine_tuned, input_size=32, max_batch=1)
    after = resrt.build("resnet18", out, input_size=32, max_batch=1)
    batch = np.random.default_rng(0).standard_normal((1, 1, 32, 32)).astype(np.float32)
    np.testing.assert_array_equal(before.infer(batch), after.infer(batch))
    assert (before.info.labels, after.info.labels) == ([], list("abcdefg"))
    # The arrays are views of the file's content.
    arrays = weights.load(out, resrt.build_graph("resnet18", classes=7, in_channels=1))
    assert not any(array.flags.owndata or array.flags.writeable for array in arrays.values())


def test_conversion_from_paddle(tmp_path: Path) -> None:
    source, out = tmp_path / "model.pdparams", tmp_path / "model.safetensors"
    source.write_bytes(pickle.dumps(draw(LISTING["RegNetX_200MF"]["shapes"])))
    metadata = convert(source, out)
    assert metadata["network"] == "RegNetX_200MF"
    assert "named as PaddleClas does" in metadata["source"]
    assert metadata["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert weights.read(out).metadata == metadata
    engine = resrt.build("RegNetX_200MF", out, max_batch=1)
    assert engine.info.preprocessing.resize == 256
    graph = resrt.build_graph("RegNetX_200MF")
    old, new = weights.load(source, graph), weights.load(out, graph)
    for name, array in old.items():
        np.testing.assert_array_equal(new[name], array)


def test_impossible_conversions(fine_tuned: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    with pytest.raises(resrt.InputError, match="2 labels for 7 classes"):
        convert(fine_tuned, out, names=["a", "b"])
    with pytest.raises(resrt.WeightsError, match="do not fit resnet34"):
        convert(fine_tuned, out, network="resnet34")
    with pytest.raises(resrt.FileError, match="cannot write"):
        convert(fine_tuned, tmp_path / "nowhere" / "out.safetensors")
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "x")
    with pytest.raises(resrt.WeightsError, match="fits no network .* network="):
        convert(tmp_path / "x", out)
    assert not out.exists()
    assert not list(tmp_path.glob("*.tmp"))


def test_folded_onnx_files_are_recognised_by_their_matrices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = resrt.build_graph("resnet18")
    arrays = resrt.weights.fit(draw(LISTING["resnet18"]["shapes"]), graph)
    path, out = tmp_path / "model.onnx", tmp_path / "model.safetensors"
    model = scramble(export(graph, arrays, folds=True))
    path.write_bytes(model.SerializeToString())
    assert cli.main(["weights", str(path)]) == 0
    text = capsys.readouterr().out
    assert re.search(r"fits +resnet18, resnetblur18$", text, re.MULTILINE)
    assert "odd" not in text
    assert convert(path, out)["network"] == "resnet18"
    weights.load(out, graph)
