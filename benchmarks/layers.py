"""Print OpenVINO's profile of a network by kind of layer, and the rate of its convolutions.

    python benchmarks/layers.py resnest50d [--batch 1] [--onnx]

With --onnx, the profile is of OpenVINO on the ONNX export. OpenVINO counts the mean time of each
operation since it was compiled, so a round is the difference after a few more inferences.
"""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import openvino

from resrt.measuring.rounds import Spread
from shared import add_model, openvino_model, parser, report

KINDS = {
    "convolutions": ("Convolution", "GroupConvolution"),
    "means": ("ReduceMean",),
    "sums and element-wise": ("Subgraph", "Add", "Multiply", "Sigmoid", "Softmax", "ReduceSum"),
    "classifier": ("FullyConnected",),
}
OTHERS = "everything else"
INFERENCES = 10  # in a round


def multiply_adds(model: openvino.Model) -> dict[str, int]:
    """Return the multiply-adds of each convolution of a model with fixed shapes, by name."""
    found = {}
    for operation in model.get_ops():
        grouped = operation.get_type_name() == "GroupConvolution"
        if grouped or operation.get_type_name() == "Convolution":
            # (outputs, inputs, height, width), after the groups
            per_value = list(operation.input_value(1).shape)[2 if grouped else 1 :]
            values = math.prod(operation.output(0).shape)
            found[operation.get_friendly_name()] = values * math.prod(per_value)
    return found


def main() -> None:
    arguments = parser(__doc__, rounds=10)
    add_model(arguments)
    options = arguments.parse_args()
    model, properties, shape = openvino_model(options)
    model.reshape(shape)
    costs = multiply_adds(model)
    compiled = openvino.Core().compile_model(model, "CPU", {**properties, "PERF_COUNT": True})
    request = compiled.create_infer_request()
    images = np.random.default_rng(0).standard_normal(shape, np.float32)
    kind_of = {node: kind for kind, nodes in KINDS.items() for node in nodes}
    times: defaultdict[str, list[float]] = defaultdict(list)  # ms of a kind in each round
    layers: defaultdict[str, list[float]] = defaultdict(list)  # ms of a convolution in each round
    before: dict[str, float] = {}  # ms of each operation in all inferences so far
    for number in range(options.rounds + 1):  # the first round warms up
        for _ in range(INFERENCES):
            request.infer({0: images})
        totals = dict.fromkeys([*KINDS, OTHERS], 0.0)
        for node in request.profiling_info:
            so_far = node.real_time.total_seconds() * 1e3 * (number + 1) * INFERENCES
            milliseconds = (so_far - before.get(node.node_name, 0.0)) / INFERENCES
            before[node.node_name] = so_far
            if number == 0:
                continue
            totals[kind_of.get(node.node_type, OTHERS)] += milliseconds
            if node.node_name in costs and milliseconds > 0:
                layers[node.node_name].append(milliseconds)
        for kind, total in totals.items():
            if number > 0:
                times[kind].append(total)
    results = {f"{kind} (ms)": Spread.of(found) for kind, found in times.items()}
    results["all (ms)"] = Spread.of(np.sum(list(times.values()), axis=0))
    results["convolutions (billion multiply-adds/s)"] = Spread.of(
        sum(costs.values()) / np.array(times["convolutions"]) / 1e6
    )
    if not options.onnx:  # most convolutions of an ONNX model are renamed when it is compiled
        fastest = max(layers, key=lambda name: costs[name] / np.median(layers[name]))
        rates = costs[fastest] / np.array(layers[fastest]) / 1e6
        results[f"the fastest, {fastest} (billion/s)"] = Spread.of(rates)
    report(options, f"{options.network}, batch {options.batch}", results)


if __name__ == "__main__":
    main()
