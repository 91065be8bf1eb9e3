"""Compare how many images per second many callers get from one engine, in several libraries.

    python benchmarks/throughput.py resnet50 resnest50d regnetx_040 --callers 8

Each library has its own process, in which threads call it with single images without pause.
OpenVINO and ONNX Runtime run the ONNX export: OpenVINO with its throughput hint and as many
requests as it advises, ONNX Runtime with one thread per core for each inference.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

import resrt
from resrt.measuring.processes import Process
from resrt.measuring.rounds import Spread, order
from resrt.system import machine
from shared import parser, report

Images = npt.NDArray[np.float32]
Infer = Callable[[Images], Any]
LIBRARIES = ("resrt", "resrt, latency", "OpenVINO", "ONNX Runtime")
_ready: dict[str, Infer] = {}  # in the process of one library


def prepare(library: str, folder: Path, precision: str) -> None:
    make = {
        "resrt": lambda: resrt.load(folder / "engine", optimize_for="throughput").infer,
        "resrt, latency": lambda: resrt.load(folder / "engine").infer,
        "OpenVINO": lambda: openvino_requests(folder, precision),
        "ONNX Runtime": lambda: onnx_runtime_session(folder),
    }
    _ready["infer"] = make[library]()


def openvino_requests(folder: Path, precision: str) -> Infer:
    import openvino

    properties = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}[precision],
    }
    model = openvino.Core().compile_model(folder / "1.onnx", "CPU", properties)
    count = model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    idle = [model.create_infer_request() for _ in range(count)]
    free = threading.Semaphore(count)

    def infer(images: Images) -> None:
        with free:
            request = idle.pop()
            request.start_async({0: images}, share_inputs=True)
            request.wait()
            idle.append(request)

    return infer


def onnx_runtime_session(folder: Path) -> Infer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = machine.usable_cores()
    session = onnxruntime.InferenceSession(
        folder / "1.onnx", options, providers=["CPUExecutionProvider"]
    )
    return lambda images: session.run(None, {"images": images})


def images_per_second(callers: int, inferences: int, shape: tuple[int, ...]) -> float:
    images = np.random.default_rng(0).standard_normal((1, *shape), np.float32)
    infer, left = _ready["infer"], list(range(inferences))

    def call() -> None:
        with contextlib.suppress(IndexError):  # nothing is left
            while True:
                left.pop()
                infer(images)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    start = perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return inferences / (perf_counter() - start)


def measure(
    network: str, precision: str, callers: int, inferences: int, rounds: int
) -> dict[str, Spread]:
    found: dict[str, list[float]] = {library: [] for library in LIBRARIES}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        engine = resrt.build(network, "random", precision=precision, max_batch=1)
        engine.save(folder / "engine")
        resrt.export(network, folder / "1.onnx", "random", batch=1, verify=False)
        processes = {library: stack.enter_context(Process()) for library in LIBRARIES}
        for library, process in processes.items():
            process.call(prepare, library, folder, engine.info.precision)
        for number in range(-1, rounds):  # the first round warms up
            for library in order(list(LIBRARIES), max(number, 0)):
                speed = processes[library].call(
                    images_per_second, callers, inferences, engine.info.input_shape
                )
                if number >= 0:
                    found[library].append(speed)
    results = {
        f"{network}, images/s: {library}": Spread.of(np.array(speeds))
        for library, speeds in found.items()
    }
    for library in LIBRARIES[1:]:
        ratios = np.array(found["resrt"]) / np.array(found[library])
        results[f"{network}: resrt / {library}"] = Spread.of(ratios)
    return results


def main() -> None:
    arguments = parser(__doc__, rounds=10)
    arguments.add_argument("networks", nargs="+", metavar="NETWORK")
    arguments.add_argument("--callers", type=int, default=8)
    arguments.add_argument("--inferences", type=int, default=60, help="of each library in a round")
    arguments.add_argument("--precision", default="fp32", choices=resrt.PRECISIONS)
    options = arguments.parse_args()
    results: dict[str, Spread] = {}
    for network in options.networks:
        results |= measure(
            network, options.precision, options.callers, options.inferences, options.rounds
        )
    report(options, f"Throughput with {options.callers} callers, {options.precision}", results)


if __name__ == "__main__":
    # Imported by its name, so that other processes can import its functions too.
    import throughput

    throughput.main()
