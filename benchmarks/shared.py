"""The options, the output and the OpenVINO models that the scripts share."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino

import resrt
from resrt.measuring.rounds import Spread, take_turns, turn
from resrt.system import machine


def parser(documentation: str, rounds: int) -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=documentation.splitlines()[0])
    found.add_argument("--rounds", type=int, default=rounds, help="default: %(default)s")
    found.add_argument("--output", type=Path, metavar="FILE", help="also write JSON to this file")
    return found


def in_turns(
    runs: Mapping[str, Callable[[], object]], rounds: int, *, warm_up: int = 2
) -> dict[str, npt.NDArray[np.float64]]:
    """Time functions in interleaved rounds; return the seconds of each, one value per round."""
    turns = {name: functools.partial(turn, run) for name, run in runs.items()}
    seconds, failures = take_turns(turns, rounds, warm_up=warm_up)
    for error in failures.values():
        raise error
    return seconds


def report(options: argparse.Namespace, title: str, results: Mapping[str, Spread]) -> None:
    """Print medians and quartiles with the machine, and write them to --output."""
    here = machine.describe(("openvino", "numpy", "pillow", "onnx"))
    print(f"{title}; median (quartiles) of {options.rounds} rounds\n{here}")
    for name, spread in results.items():
        print(f"{name:48}{spread.median:10.3f} ({spread.low:.3f} – {spread.high:.3f})")
    if options.output:
        document = {
            "title": title,
            "options": vars(options),
            "machine": dataclasses.asdict(here),
            "results": {name: dataclasses.asdict(spread) for name, spread in results.items()},
        }
        options.output.write_text(json.dumps(document, indent=2, default=str) + "\n")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the options of `openvino_model`."""
    parser.add_argument("network")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--precision", default="auto", choices=resrt.PRECISIONS)
    parser.add_argument("--onnx", action="store_true", help="OpenVINO on the ONNX export instead")


def openvino_model(
    options: argparse.Namespace,
) -> tuple[openvino.Model, dict[str, Any], tuple[int, ...]]:
    """Return a network for any batch size, how resrt compiles it, and the shape of its images."""
    engine = resrt.build(options.network, "random", precision=options.precision, max_batch=1)
    core = openvino.Core()
    if options.onnx:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.onnx"
            resrt.export(options.network, file, "random", verify=False)
            model = core.read_model(file)
    else:
        # The length of the model's XML, the XML, and its constants.
        length, rest = int.from_bytes(engine.plan[:8], "little"), engine.plan[8:]
        constants = np.frombuffer(rest[length:], np.uint8).copy()
        model = core.read_model(rest[:length], openvino.Tensor(constants))
    properties = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}[
            engine.info.precision
        ],
    }
    return model, properties, (options.batch, *engine.info.input_shape)
