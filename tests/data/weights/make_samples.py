"""Make the sample files in this folder, each with the library that defines its format.

The script requires PyTorch, OmegaConf and PaddlePaddle; the tests do not. `numbers()` are a few
parameters with timm's names and the same values in every file.
"""

from __future__ import annotations

import argparse
import sys
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np

try:
    import omegaconf
    import torch
except ModuleNotFoundError:
    torch = None

HERE = Path(__file__).parent


def numbers() -> dict[str, np.ndarray]:
    """Return the content of every sample, apart from precision and names."""
    rng = np.random.default_rng(5)
    return {
        "conv1.weight": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "bn1.weight": rng.standard_normal(4).astype(np.float32),
        "bn1.running_var": rng.uniform(1, 2, 4).astype(np.float32),
        "fc.weight": rng.standard_normal((5, 4)).astype(np.float32),
    }


def make_torch() -> None:
    def state(prefix: str = "", dtype: torch.dtype = torch.float32) -> OrderedDict:
        tensors = {prefix + k: torch.tensor(v).to(dtype) for k, v in numbers().items()}
        tensors[prefix + "bn1.num_batches_tracked"] = torch.tensor(7)
        return OrderedDict(tensors)

    module = torch.nn.Sequential(OrderedDict(fc=torch.nn.Linear(4, 5)))
    torch.save(module.state_dict(), HERE / "torch_module_state.pth")  # with its _metadata
    torch.save(module, HERE / "torch_module.pth")

    torch.save(state(), HERE / "torch_plain.pth")
    torch.save(state(), HERE / "torch_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(state(dtype=torch.bfloat16), HERE / "torch_bfloat16.pth")
    torch.save(
        state(dtype=torch.float16),
        HERE / "torch_float16_legacy.pth",
        _use_new_zipfile_serialization=False,
    )
    shared = torch.arange(24, dtype=torch.float64)
    torch.save(
        {
            "whole": shared,
            "tail": shared[16:],
            "transposed": shared.reshape(4, 6).T,
            "columns": shared.reshape(4, 6)[:, 1:5:2],
            "scalar": torch.tensor(2.5),
            "empty": torch.zeros(0, 3),
            "parameter": torch.nn.Parameter(torch.ones(2)),
        },
        HERE / "torch_views.pth",
    )
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(3))], lr=0.1)
    optimizer.param_groups[0]["params"][0].grad = torch.ones(3)
    optimizer.step()
    for suffix, options in (("", {}), ("_legacy", {"_use_new_zipfile_serialization": False})):
        torch.save(
            {
                "epoch": 90,
                "arch": "resnet50d",
                "state_dict": state("module."),
                "state_dict_ema": {k: v + 1 for k, v in state("module.").items()},
                "optimizer": optimizer.state_dict(),
                "args": argparse.Namespace(lr=0.1, data=Path("/data"), sizes=(224, 224)),
                "metric": np.float64(76.5),
                "history": defaultdict(list, loss=[1.0, 0.5]),
                "dtype": torch.float16,
                "device": torch.device("cpu"),
                "seen": {1, 2},
                "random": torch.get_rng_state()[:16].clone(),
                "scores": np.arange(3),
            },
            HERE / f"torch_training{suffix}.pth",
            **options,
        )


class Small(torch.nn.Module if torch else object):
    """A network with a residual block's names."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 4, 3, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(4)
        self.fc = torch.nn.Linear(4, 5, bias=False)

    def forward(self, images):
        return self.fc(self.bn1(self.conv1(images)).mean((2, 3)))


def make_torch_programs() -> None:
    module = Small().eval()
    module.load_state_dict({k: torch.tensor(v) for k, v in numbers().items()}, strict=False)
    images = torch.zeros(1, 3, 8, 8)
    torch.jit.script(module).save(HERE / "torch_script.pt")
    torch.jit.trace(module, images).save(HERE / "torch_trace.pt")
    torch.jit.freeze(torch.jit.script(module)).save(HERE / "torch_frozen.pt")
    torch.export.save(torch.export.export(module, (images,)), HERE / "torch_export.pt")
    quantised = torch.ao.quantization.quantize_dynamic(module, {torch.nn.Linear}, torch.qint8)
    torch.save(quantised.state_dict(), HERE / "torch_quantised.pth")
    torch.save(
        quantised.state_dict(),
        HERE / "torch_quantised_legacy.pth",
        _use_new_zipfile_serialization=False,
    )
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    module(images + 1).sum().backward()
    optimizer.step()
    module.load_state_dict({k: torch.tensor(v) for k, v in numbers().items()}, strict=False)
    objects = {
        "optimizer": optimizer,
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1),
        "config": omegaconf.OmegaConf.create({"model": {"arch": "resnet18"}, "lr": 0.1}),
        "when": np.array(["2024-01-01"], dtype="datetime64[D]"),
        "names": np.array(["a", None], dtype=object),
    }
    for suffix, options in (("", {}), ("_legacy", {"_use_new_zipfile_serialization": False})):
        path = HERE / f"torch_objects{suffix}.pth"
        torch.save({"state_dict": module.state_dict(), **objects}, path, **options)
        torch.save(
            {**module.state_dict(), **objects}, HERE / f"torch_flat_objects{suffix}.pth", **options
        )


def make_paddle() -> None:
    import paddle

    state = {k: paddle.to_tensor(v) for k, v in numbers().items()}
    paddle.save(state, str(HERE / "paddle_plain.pdparams"))
    paddle.save(state, str(HERE / "paddle_protocol2.pdparams"), protocol=2)
    narrow = {k: v.astype("bfloat16") for k, v in state.items()}
    paddle.save(narrow, str(HERE / "paddle_bfloat16.pdparams"))
    layer = paddle.nn.Linear(4, 5)
    layer.weight.set_value(numbers()["fc.weight"].T)
    paddle.save(layer.state_dict(), str(HERE / "paddle_layer.pdparams"))


if __name__ == "__main__":
    {"torch": make_torch, "programs": make_torch_programs, "paddle": make_paddle}[sys.argv[1]]()
