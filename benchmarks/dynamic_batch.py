"""Compare the latency of a network compiled for one batch size with that for any batch size.

    python benchmarks/dynamic_batch.py resnest50d [--batch 1] [--onnx]

Both run in OpenVINO, from resrt's lowering or from the ONNX export, in alternating turns.
"""

from __future__ import annotations

import functools

import numpy as np
import openvino

from resrt.measuring.rounds import Spread
from shared import add_model, in_turns, openvino_model, parser, report


def main() -> None:
    arguments = parser(__doc__, rounds=30)
    add_model(arguments)
    options = arguments.parse_args()
    dynamic, properties, shape = openvino_model(options)
    fixed = dynamic.clone()
    fixed.reshape(shape)
    images = np.random.default_rng(0).standard_normal(shape, np.float32)
    runs = {}
    for name, model in (("fixed", fixed), ("dynamic", dynamic)):
        request = openvino.Core().compile_model(model, "CPU", properties).create_infer_request()
        runs[name] = functools.partial(request.infer, {0: images}, share_inputs=True)
    seconds = in_turns(runs, options.rounds)
    report(
        options,
        f"{options.network}, batch {options.batch}",
        {
            "compiled for this batch size (ms)": Spread.of(1e3 * seconds["fixed"]),
            "compiled for any batch size (ms)": Spread.of(1e3 * seconds["dynamic"]),
            "ratio": Spread.of(seconds["dynamic"] / seconds["fixed"]),
        },
    )


if __name__ == "__main__":
    main()
