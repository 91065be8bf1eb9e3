"""Paddle Inference with oneDNN, on PaddleClas's own network."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from resrt.catalog.models import list_models
from resrt.errors import BackendError
from resrt.operations.compare.competitors import WEIGHTS, Batch, Ready, Task
from resrt.weights import names


def prepare(task: Task, name: str) -> Ready:
    """Give PaddleClas's network the weights, save it as a program, and load that."""
    import paddle
    from paddle import inference

    images = task.images()
    network = _backbone(task)
    _set_parameters(network, load_file(task.folder / WEIGHTS), task)
    network.eval()
    program = task.folder / "paddle"
    spec = paddle.static.InputSpec(list(images.shape), "float32", "images")
    paddle.jit.save(paddle.jit.to_static(network), str(program), input_spec=[spec])

    config = inference.Config(_program_file(program), f"{program}.pdiparams")
    config.disable_gpu()
    config.disable_glog_info()
    config.enable_mkldnn()
    config.set_cpu_math_library_num_threads(task.threads)
    if task.precision == "bf16":
        config.enable_mkldnn_bfloat16()
    predictor = inference.create_predictor(config)
    predictor.get_input_handle(predictor.get_input_names()[0]).copy_from_cpu(images)
    output = predictor.get_output_handle(predictor.get_output_names()[0])
    return Ready(
        version=paddle.__version__,
        precision="bf16" if task.precision == "bf16" else "fp32",
        settings="oneDNN",
        run=predictor.run,
        logits=output.copy_to_cpu,
    )


def why_not(network: str) -> str | None:
    """Return why PaddleClas cannot build a network, or None."""
    if network not in [model.name for model in list_models(source="PaddleClas")]:
        return f"PaddleClas has no network {network}"
    if importlib.util.find_spec("ppcls") or importlib.util.find_spec("paddleclas"):
        return None
    return "paddleclas not installed: pip install paddleclas"


def _backbone(task: Task) -> Any:
    package = importlib.util.find_spec("paddleclas")
    if importlib.util.find_spec("ppcls") is None and package and package.origin:
        # The package `paddleclas` contains `ppcls`. Importing it requires all it depends on.
        sys.path.append(str(Path(package.origin).parent))
    from ppcls.utils import logger

    logger.init_logger()
    from ppcls.arch import backbone

    try:
        return getattr(backbone, task.graph.name)(class_num=task.graph.classes)
    except AttributeError:
        raise BackendError(f"the installed PaddleClas has no network {task.graph.name}") from None


def _set_parameters(network: Any, weights: dict[str, Batch], task: Task) -> None:
    """Give a Paddle network our weights.

    Our names for Paddle's parameters are those that `names.to_ours` gives them. To see which is
    which, it renames arrays that contain only their own number.
    """
    theirs = dict(network.state_dict())
    numbered = {
        name: np.full(value.shape, number, np.int64)
        for number, (name, value) in enumerate(theirs.items())
    }
    ours = {int(array.flat[0]): name for name, array in names.to_ours(numbered, task.graph).items()}
    state = {}
    for number, name in enumerate(theirs):
        array = weights[ours[number]]
        state[name] = array.T if array.ndim == 2 else array  # linear layers are (in, out)
    network.set_state_dict(state)


def _program_file(program: Path) -> str:
    """Return the file of a program: Paddle 3 writes .json, Paddle 2 .pdmodel."""
    return next(
        str(file)
        for file in (program.with_suffix(".json"), program.with_suffix(".pdmodel"))
        if file.exists()
    )
