"""Compare the time of int8 engines with fp32 and with OpenVINO on a model that NNCF quantised.

    python benchmarks/int8.py ResNet50=resnet50.onnx ResNeSt50=resnest50d.onnx --batch 1 8

Each argument is a network and the ONNX file of another implementation of it, such as timm's, with
one input for any batch size, with trained weights or made with zero_init_last=False: normalisations
of zero make NNCF's model cheaper than a trained one. NNCF's post-training quantisation gets the
same images as resrt's calibration, and OpenVINO runs its model with the hints of resrt's engine.
Requires nncf.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino

import resrt
from resrt.measuring.rounds import Spread
from shared import in_turns, parser, report

IMAGES = 16  # random ones: time does not depend on them
HINTS = {"bf16": "bf16", "fp16": "f16", "fp32": "f32"}


def quantised(file: str, images: npt.NDArray[np.float32]) -> openvino.Model:
    import nncf

    model = openvino.Core().read_model(file)
    one_by_one = nncf.Dataset([image[None] for image in images])
    return nncf.quantize(model, one_by_one, subset_size=len(images))


def engines(network: str, images: npt.NDArray[np.float32], threads: int) -> dict[str, Any]:
    calibration = resrt.calibrate(network, "random", images)
    int8 = resrt.build(
        network, "random", precision="int8", calibration=calibration, threads=threads
    )
    return {
        "int8": int8,
        "fp32": resrt.build(network, "random", precision="fp32", threads=threads),
        "native": resrt.build(network, "random", threads=threads),
    }


def run_of(
    model: openvino.Model, batch: npt.NDArray[np.float32], threads: int
) -> Callable[[], Any]:
    model = model.clone()
    model.reshape(batch.shape)
    properties = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": HINTS[resrt.backends()[0].precisions[0]],
    }
    request = openvino.Core().compile_model(model, "CPU", properties).create_infer_request()
    request.set_input_tensor(openvino.Tensor(batch))
    return request.infer


def main() -> None:
    arguments = parser(__doc__, rounds=30)
    arguments.add_argument("networks", nargs="+", metavar="NETWORK=FILE.onnx")
    arguments.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    arguments.add_argument("--threads", type=int, default=2)
    options = arguments.parse_args()
    images = np.random.default_rng(0).standard_normal((IMAGES, 3, 224, 224), np.float32)
    files = dict(pair.split("=", 1) for pair in options.networks)
    ours = {network: engines(network, images, options.threads) for network in files}
    theirs = {network: quantised(file, images) for network, file in files.items()}
    results: dict[str, Spread] = {}
    for size in options.batch:
        batch = np.ascontiguousarray(images[:size])
        runs: dict[str, Callable[[], Any]] = {}
        for network in files:
            for precision, engine in ours[network].items():
                runs[f"{network} {precision}"] = functools.partial(engine.infer, batch)
            runs[f"{network} NNCF"] = run_of(theirs[network], batch, options.threads)
        seconds = in_turns(runs, options.rounds)
        for network in files:
            int8 = seconds[f"{network} int8"]
            results[f"{network}, batch {size}: int8 (ms)"] = Spread.of(int8 * 1e3)
            for other in ("NNCF", "fp32", "native"):
                ratio = Spread.of(int8 / seconds[f"{network} {other}"])
                results[f"{network}, batch {size}: int8 / {other}"] = ratio
        first = next(iter(files))
        for network in list(files)[1:]:
            ratio = Spread.of(seconds[f"{network} int8"] / seconds[f"{first} int8"])
            results[f"{network} / {first}, batch {size}: int8"] = ratio
    report(options, "8-bit integers", results)


if __name__ == "__main__":
    main()
