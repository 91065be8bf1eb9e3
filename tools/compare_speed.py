"""Times resrt against OpenVINO on timm's ONNX export: same weights, same process, in turn.

    python tools/compare_speed.py [resnest50d resnet50] [--batch 1 8] [--precision bf16]

For each network timm's module gets random weights, which go to resrt as safetensors and to OpenVINO
as the ONNX file of torch.onnx.export, for the fixed batch size, which OpenVINO runs faster than a
dynamic one. Both engines then run the same images in turn, so that whatever else the machine does
falls on both alike. Prints the ratio of the medians, and the spread of the ratios within rounds.
Needs timm, torch and onnx.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov
import timm
import torch
from safetensors.torch import save_file

import resrt


def export(name: str, batch: int, folder: Path) -> tuple[Path, Path]:
    """Timm's network under random weights, as safetensors and as ONNX."""
    torch.manual_seed(0)
    network = timm.create_model(name).eval()
    for parameter_name, parameter in network.named_parameters():
        if parameter.ndim == 1 and parameter_name.endswith("weight"):
            # timm begins with residual branches that yield zeros.
            torch.nn.init.uniform_(parameter, 0.3, 0.7)
    weights, onnx = folder / f"{name}.safetensors", folder / f"{name}_{batch}.onnx"
    save_file(network.state_dict(), weights)
    images = torch.zeros(batch, *network.default_cfg["input_size"])
    torch.onnx.export(network, (images,), onnx, dynamo=False)
    return weights, onnx


def openvino_model(onnx: Path, precision: str, threads: int) -> ov.CompiledModel:
    """What a user of OpenVINO who cares for latency would compile."""
    properties = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": threads,
    }
    return ov.Core().compile_model(onnx, "CPU", properties)


def compare(name: str, batch: int, options: argparse.Namespace, folder: Path) -> None:
    """Print one network's ratio at one batch size."""
    weights, onnx = export(name, batch, folder)
    engine = resrt.build(
        name, weights, precision=options.precision, max_batch=batch, threads=options.threads
    )
    request = openvino_model(onnx, options.precision, options.threads).create_infer_request()
    images = np.random.default_rng(0).standard_normal((batch, *engine.info.input_shape), np.float32)
    request.set_input_tensor(ov.Tensor(images, shared_memory=True))

    logits = engine.infer(images)
    request.infer()
    reference = request.get_output_tensor().data
    difference = np.abs(logits - reference).max() / np.abs(reference).max()

    runs = (lambda: engine.infer(images), request.infer)
    times = np.array([one_round(runs, i % 2) for i in range(-4, options.rounds)])[4:]
    ours, theirs = np.median(times, axis=0) * 1e3
    low, high = np.percentile(times[:, 0] / times[:, 1], [25, 75])
    print(
        f"{name:22} batch {batch}: resrt {ours:7.2f} ms, OpenVINO on ONNX {theirs:7.2f} ms, "
        f"ratio {ours / theirs:.3f} (rounds: {low:.3f} to {high:.3f}), "
        f"logits differ by {difference:.1e}"
    )


def one_round(runs: tuple[Callable[[], object], ...], first: int) -> list[float]:
    """Time each run once, beginning with one or the other, so that neither always follows."""
    seconds = [0.0, 0.0]
    for which in (first, 1 - first):
        start = time.perf_counter()
        runs[which]()
        seconds[which] = time.perf_counter() - start
    return seconds


def main() -> None:
    """Parse the arguments and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", default=["resnest50d", "resnet50"])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    device = ov.Core().get_property("CPU", "FULL_DEVICE_NAME")
    print(
        f"{device}, {options.threads} threads, {options.precision}, OpenVINO {ov.__version__}, "
        f"timm {timm.__version__}, Python {platform.python_version()}, {options.rounds} rounds"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in options.names:
            for batch in options.batch:
                compare(name, batch, options, Path(folder))


if __name__ == "__main__":
    main()
