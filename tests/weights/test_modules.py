"""Building from PyTorch modules: of the libraries, where they are installed, and of stand-ins."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import resrt
from resrt import _core

OPTIONS: dict[str, Any] = {"precision": "fp32", "max_batch": 1, "input_size": 64}


def part(kind: str, library: str = "torch.nn", **attributes: Any) -> Any:
    """Return a layer as a module has it: an object of the class `kind`."""
    made = type(kind, (), {"__module__": library, "children": lambda self: iter(())})()
    vars(made).update(attributes)
    return made


class Module:
    """As timm's ResNet: the modules of a graph's layers, and its parameters."""

    __module__ = "timm.models.resnet"

    def __init__(self, network: str = "resnet18", classes: int = 7, in_channels: int = 3) -> None:
        graph = resrt.build_graph(network, classes=classes, in_channels=in_channels)
        self.state = dict(_core.random_weights(graph, 0))
        self.parts: dict[str, Any] = {}
        for layer in graph.layers:
            if (made := self._part(layer.definition)) is not None:
                names = [parameter.name.rpartition(".")[0] for parameter in layer.parameters]
                self.parts[names[0] if names else layer.name] = made
        self.pretrained_cfg: dict[str, Any] = {
            "architecture": network,
            "input_size": (3, 64, 64),
            "mean": (0.5, 0.5, 0.5),
            "std": (0.25, 0.25, 0.25),
            "crop_pct": 0.9,
            "interpolation": "bilinear",
            "label_names": [f"class {i}" for i in range(classes)],
        }

    @staticmethod
    def _part(definition: object) -> Any:
        match definition:
            case _core.Conv2d(stride=stride, padding=padding, groups=groups):
                sizes = {"stride": (stride, stride), "padding": (padding, padding)}
                return part("Conv2d", groups=groups, dilation=(1, 1), padding_mode="zeros", **sizes)
            case _core.BatchNorm2d():
                return part("BatchNorm2d", eps=1e-5)
            case _core.MaxPool2d(kernel=kernel, stride=stride, padding=padding):
                return part("MaxPool2d", kernel_size=kernel, stride=stride, padding=padding)
            case _core.Relu():
                return part("ReLU")
            case _core.GlobalAvgPool2d():
                return part("AdaptiveAvgPool2d", output_size=1)
            case _core.Linear():
                return part("Linear")
        return None

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def named_modules(self) -> Iterable[tuple[str, Any]]:
        return [("", self), *self.parts.items()]

    def children(self) -> Iterable[Any]:
        return self.parts.values()


def test_a_module(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = Module()
    engine = resrt.build(module, precision="fp32", max_batch=1)
    assert (engine.info.model, engine.info.weights) == ("resnet18", "module")
    assert engine.info.input_shape == (3, 64, 64)
    assert engine.info.labels == module.pretrained_cfg["label_names"]
    assert engine.info.preprocessing.resize == 71
    assert engine.info.preprocessing.mean == [0.5, 0.5, 0.5]
    assert engine.info.preprocessing_source == "the module's pretrained_cfg"
    assert not caplog.records
    images = np.random.default_rng(0).standard_normal((1, 3, 64, 64), np.float32)
    same = resrt.build("resnet18", module.state, **OPTIONS)
    np.testing.assert_array_equal(engine.infer(images), same.infer(images))
    assert resrt.build_file(module, tmp_path / "x.engine", max_batch=1).info.model == "resnet18"


def test_a_module_for_grey_images() -> None:
    info = resrt.build(Module(in_channels=1), precision="fp32", max_batch=1).info
    assert (info.input_shape, info.preprocessing.mean) == ((1, 64, 64), [0.5])


def test_export(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    exported = resrt.export(Module(), tmp_path / "x.onnx", verify=False)
    assert (exported.network, exported.classes) == ("resnet18", 7)


def test_wrappers() -> None:
    wrapped = type("OptimizedModule", (Module,), {"__module__": "torch._dynamo"})()
    vars(wrapped)["_orig_mod"] = Module("resnet34")
    assert resrt.build(wrapped, **OPTIONS).info.model == "resnet34"


def test_assumed_preprocessing(caplog: pytest.LogCaptureFixture) -> None:
    module = Module()
    module.pretrained_cfg = {}
    assert resrt.build(module, **OPTIONS).info.preprocessing_source.startswith("assumed as for")
    assert "the weights from module do not say how photographs are preprocessed" in caplog.text


def changed(name: str, **attributes: Any) -> Callable[[Module], None]:
    return lambda module: vars(module.parts[name]).update(attributes)


def replaced(name: str, kind: str, library: str = "torch.nn") -> Callable[[Module], None]:
    return lambda module: module.parts.update({name: part(kind, library)})


def _wrong_class(module: Module) -> None:
    module.__class__ = type("Mine", (Module,), {"__module__": "mine"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("layer4.0.conv1", stride=(1, 1)), r"layer4\.0\.conv1 has the stride 1, padding 1"),
        (changed("layer4.0.conv2", dilation=(2, 2)), r"layer4\.0\.conv2 is dilated"),
        (changed("conv1", padding_mode="reflect"), "conv1 is dilated, or pads"),
        (changed("bn1", eps=1e-3), r"bn1 has the epsilon 0\.001, not 1e-05, unlike resnet18"),
        (replaced("conv1", "StdConv2d", "timm.layers"), "conv1 is a StdConv2d"),
        (replaced("mine", "LeakyReLU"), "mine is a LeakyReLU"),
        (replaced("mine", "Identity", "mine"), "mine is a Identity, which resrt does not know"),
        (replaced("mine", "AdaptiveMaxPool2d"), "mine is a AdaptiveMaxPool2d"),
        (replaced("fc.1", "Sigmoid"), "it has 1 Sigmoid layers, not 0"),
        (lambda module: module.parts.pop("maxpool"), r"it has 0 MaxPool2d\(kernel=3.*\) layers"),
        (lambda module: module.state.pop("bn1.bias"), "other parameters than resnet18, the near"),
        (lambda module: module.state.clear(), "other parameters than all of them"),
        (changed("conv1", forward=print), "conv1 has a forward of its own, unlike resnet18"),
        (lambda module: vars(module).update(forward=print), "resnet18.*: it has a forward of its"),
        (changed("bn1", _forward_hooks={0: print}), "its layer bn1 has forward hooks, which must"),
        (changed("bn1", _forward_pre_hooks={0: print}), "bn1 has forward hooks, which must be"),
        (_wrong_class, "Mine is not one of timm, torchvision or Transformers.*state_dict"),
    ],
)
def test_another_function(change: Callable[[Module], None], message: str) -> None:
    module = Module()
    maxpools = [name for name, found in module.parts.items() if type(found).__name__ == "MaxPool2d"]
    module.parts["maxpool"] = module.parts.pop(maxpools[0])
    change(module)
    with pytest.raises(resrt.ModelError, match=message):
        resrt.build(module, **OPTIONS)


@pytest.mark.parametrize("model", [Module, resrt.ResNet, print, None, 3])
def test_what_is_no_network(model: Any) -> None:
    with pytest.raises(
        resrt.ModelError, match="a network must be a name.* or a PyTorch module, no"
    ):
        resrt.build(model, **OPTIONS)


def test_weights_beside_a_module() -> None:
    for options in ({"weights": "random"}, {"key": "state_dict"}):
        with pytest.raises(resrt.InputError, match="a PyTorch module has weights of its own"):
            resrt.build(Module(), **options)


# --- The libraries ---


def libraries() -> tuple[Any, Any, Any]:
    try:
        import timm
        import torch
        import torchvision
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision for another PyTorch
        pytest.skip(f"requires PyTorch, timm and torchvision: {error}")
    return torch, timm, torchvision.models


def check(torch: Any, module: Any, network: str) -> None:
    module.eval()
    engine = resrt.build(module, **OPTIONS)
    assert engine.info.model == network
    images = np.random.default_rng(0).standard_normal((1, 3, 64, 64), np.float32)
    with torch.no_grad():
        logits = module(torch.from_numpy(images))
    logits = getattr(logits, "logits", logits).numpy()
    np.testing.assert_allclose(engine.infer(images), logits, atol=1e-4 * np.abs(logits).max())


@pytest.mark.parametrize("name", ["resnet18", "resnest14d", "seresnet50", "regnety_002"])
def test_timm(name: str) -> None:
    torch, timm, _ = libraries()
    check(torch, timm.create_model(name, num_classes=7), name)
    with pytest.raises(resrt.ModelError, match="is no network of the catalog"):
        resrt.build(timm.create_model(name, act_layer=torch.nn.SiLU), **OPTIONS)


def test_torchvision(caplog: pytest.LogCaptureFixture) -> None:
    torch, _, models = libraries()
    module = models.resnet18()
    module.fc = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(512, 9))
    check(torch, module, "resnet18")
    assert "assumed as for resnet18.tv_in1k" in caplog.text
    check(torch, models.regnet_y_400mf(), "regnet_y_400mf")
    module.layer1[0].relu = torch.nn.Identity()
    with pytest.raises(resrt.ModelError, match="it has 8 Relu layers, not 9"):
        resrt.build(module, **OPTIONS)


def test_transformers(caplog: pytest.LogCaptureFixture) -> None:
    torch, *_ = libraries()
    transformers = pytest.importorskip("transformers")
    labels = {0: "a", 1: "b", 2: "c"}
    sizes = {"layer_type": "basic", "depths": [2] * 4, "hidden_sizes": [64, 128, 256, 512]}
    config = transformers.ResNetConfig(**sizes, id2label=labels)
    module = transformers.ResNetForImageClassification(config)
    with caplog.at_level(logging.WARNING, "resrt"):
        check(torch, module, "resnet18")
    assert resrt.build(module, **OPTIONS).info.labels == list(labels.values())
    config = transformers.ResNetConfig(downsample_in_bottleneck=True)
    with pytest.raises(resrt.ModelError, match=r"has the stride 2, padding 0.*not 1, 0 and 1"):
        resrt.build(transformers.ResNetForImageClassification(config), **OPTIONS)
