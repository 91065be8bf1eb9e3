"""Measure the start of an engine, its memory and its latency, beside OpenVINO and ONNX Runtime.

    python benchmarks/loading.py resnet50 resnest50d regnetx_040 --batch 1 8

Every load has a new process, which has imported the library before. The first time is from the call
that loads to the end of the first inference. Memory is what the process has gained by then, mapped
pages included. OpenVINO and ONNX Runtime load the ONNX export for the batch size.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

import resrt
from resrt.measuring.processes import Process
from resrt.measuring.rounds import Spread, order, turn
from resrt.system import machine
from shared import parser, report

Images = npt.NDArray[np.float32]
Load = Callable[[], Callable[[Images], Any]]  # returns what infers
LIBRARIES = ("resrt", "OpenVINO", "ONNX Runtime")
FIGURES = ("to the first inference (s)", "memory (MB)", "later inferences (ms)")


@dataclass(frozen=True)
class Started:
    first_s: float
    memory_mb: float
    later_ms: float


def with_resrt(folder: Path, precision: str, batch: int) -> Load:
    from resrt.engine.engine import load  # imported when first used, which does not count

    # The first inference is the caller's own, as with the others.
    return lambda: load(folder / "engine", warm_up=False).infer


def with_openvino(folder: Path, precision: str, batch: int) -> Load:
    import openvino

    properties = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}[precision],
    }

    def load() -> Callable[[Images], Any]:
        model = openvino.Core().compile_model(folder / f"{batch}.onnx", "CPU", properties)
        return functools.partial(model.create_infer_request().infer, share_inputs=True)

    return load


def with_onnx_runtime(folder: Path, precision: str, batch: int) -> Load:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = machine.usable_cores()

    def load() -> Callable[[Images], Any]:
        session = onnxruntime.InferenceSession(
            folder / f"{batch}.onnx", options, providers=["CPUExecutionProvider"]
        )
        return lambda images: session.run(None, {"images": images})

    return load


def start(library: str, folder: Path, precision: str, shape: tuple[int, ...]) -> Started:
    """Load a network in a process that has not loaded one before."""
    prepare = {"resrt": with_resrt, "OpenVINO": with_openvino, "ONNX Runtime": with_onnx_runtime}
    load = prepare[library](folder, precision, shape[0])
    images = np.random.default_rng(0).standard_normal(shape, np.float32)
    before, begin = resident_mb(), perf_counter()
    infer = load()
    infer(images)
    first, memory = perf_counter() - begin, resident_mb() - before
    return Started(first, memory, 1e3 * turn(lambda: infer(images), repeats=10))


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(network: str, precision: str, batch: int, rounds: int) -> dict[str, Spread]:
    found: dict[str, list[Started]] = {library: [] for library in LIBRARIES}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        engine = resrt.build(network, "random", precision=precision, max_batch=batch)
        engine.save(folder / "engine")
        resrt.export(network, folder / f"{batch}.onnx", "random", batch=batch, verify=False)
        shape = (batch, *engine.info.input_shape)
        for number in range(rounds):
            for library in order(list(LIBRARIES), number):
                with Process() as process:
                    started = process.call(start, library, folder, engine.info.precision, shape)
                found[library].append(started)
    table = {
        library: np.array([astuple(one) for one in starts]) for library, starts in found.items()
    }
    results = {}
    for column, figure in enumerate(FIGURES):
        for library in LIBRARIES:
            title = f"{network}, batch {batch}, {figure}: {library}"
            results[title] = Spread.of(table[library][:, column])
        for library in LIBRARIES[1:]:
            ratios = table["resrt"][:, column] / table[library][:, column]
            results[f"{network}, batch {batch}, {figure}: resrt / {library}"] = Spread.of(ratios)
    return results


def main() -> None:
    arguments = parser(__doc__, rounds=10)
    arguments.add_argument("networks", nargs="+", metavar="NETWORK")
    arguments.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    arguments.add_argument("--precision", default="fp32", choices=resrt.PRECISIONS)
    options = arguments.parse_args()
    results: dict[str, Spread] = {}
    for network in options.networks:
        for batch in options.batch:
            results |= measure(network, options.precision, batch, options.rounds)
    report(options, f"Starting, {options.precision}", results)


if __name__ == "__main__":
    # Imported by its name, so that other processes can import `start` too.
    import loading

    loading.main()
