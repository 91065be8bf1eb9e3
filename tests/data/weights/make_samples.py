"""Make the sample files in this folder, each with the library that defines its format.

The script requires PyTorch and PaddlePaddle; the tests do not. `numbers()` are a few parameters
with timm's names and the same values in every file.
"""

from __future__ import annotations

import argparse
import sys
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np

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
    import torch

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
    {"torch": make_torch, "paddle": make_paddle}[sys.argv[1]]()
