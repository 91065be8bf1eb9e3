"""PyTorch on the network as a module of its own layers, as it is or compiled by Inductor."""

from __future__ import annotations

import torch
from safetensors.torch import load_file

from resrt.graphs.torch_network import TorchNetwork
from resrt.operations.compare.competitors import WEIGHTS, Ready, Task

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def prepare(task: Task, name: str) -> Ready:
    """Convert to channels_last and to the engine's precision, weights and all.

    "torch-compile" freezes the weights, too, which folds the batch normalisations.
    """
    torch.set_num_threads(task.threads)
    is_compiled = name == "torch-compile"
    network = TorchNetwork(task.graph)
    network.load(load_file(task.folder / WEIGHTS))
    layout = {"dtype": _TYPES[task.precision], "memory_format": torch.channels_last}
    network = network.eval().requires_grad_(False).to(**layout)
    images = torch.from_numpy(task.images()).to(**layout)
    forward = torch.compile(network, options={"freezing": True}) if is_compiled else network
    logits = images

    def run() -> None:
        nonlocal logits
        with torch.inference_mode():
            logits = forward(images)

    return Ready(
        version=torch.__version__,
        precision=task.precision,
        settings="channels_last, freezing" if is_compiled else "channels_last",
        run=run,
        logits=lambda: logits.float().numpy(),
    )
