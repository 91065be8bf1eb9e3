"""Compare the throughput of a Triton server with that of the engine alone, on the same cores.

    python benchmarks/serving.py ResNet50 --precision fp32 --clients 64

Requires nvidia-pytriton, tritonclient and NumPy 1; see tools/tritonserver.py. In each round, in
changing order, 64 clients of one process send single images to each of the three models that
`resrt triton` writes, by gRPC without pause, and the engine classifies as many images by itself:
`resrt.load(..., optimize_for="throughput")` called by as many threads as there are cores, and
`resrt.classify` for photographs, which are decoded. The clients run on the same cores as the
server.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.grpc.aio as grpc_aio

import resrt
from resrt.measuring.rounds import Spread, order
from resrt.operations.time import _photo
from resrt.system import machine
from shared import parser, report

sys.path.append(str(Path(__file__).parents[1] / "tools"))
from tritonserver import Server, serving


def send(
    server: Server, model: str, request: Any, requests: int, clients: int
) -> tuple[float, list[float]]:
    """Return the answers per second, and the latency of each request in milliseconds."""
    left, latencies = iter(range(requests)), []

    async def run() -> None:
        async with grpc_aio.InferenceServerClient(server.grpc) as client:

            async def call() -> None:
                while next(left, None) is not None:
                    begun = perf_counter()
                    await client.infer(model, [request])
                    latencies.append(1000 * (perf_counter() - begun))

            await asyncio.gather(*(call() for _ in range(clients)))

    start = perf_counter()
    asyncio.run(run())
    return requests / (perf_counter() - start), latencies


def infer(engine: resrt.Engine, image: Any, images: int) -> tuple[float, list[float]]:
    """Return the images per second of the engine alone, in batches of its best size."""
    batch = np.repeat(image, 4, axis=0)
    start = perf_counter()
    with ThreadPoolExecutor(machine.usable_cores()) as callers:
        for done in [callers.submit(engine.infer, batch) for _ in range(images // 4)]:
            done.result()
    return images // 4 * 4 / (perf_counter() - start), []


def classify(engine: resrt.Engine, photo: Path, images: int) -> tuple[float, list[float]]:
    """Return the photographs per second of `resrt.classify`."""
    start = perf_counter()
    for found in resrt.classify(engine, [photo] * images):
        assert found.error is None
    return images / (perf_counter() - start), []


def tensor(name: str, array: Any, data_type: str) -> Any:
    made = grpc.InferInput(name, array.shape, data_type)
    made.set_data_from_numpy(array)
    return made


Run = Callable[[], tuple[float, list[float]]]


def measure(options: Any) -> dict[str, Spread]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file, photo = folder / "network.engine", folder / "photo.jpg"
        resrt.build(options.network, "random", precision=options.precision).save(file)
        photo.write_bytes(_photo())
        (model, *_) = resrt.triton(file, folder / "repository")
        print(f"instances: {model.instances}, preferred batch sizes: {model.batch_sizes}")
        engine = resrt.load(file, optimize_for="throughput")
        rng = np.random.default_rng(0)
        image = rng.standard_normal((1, *engine.info.input_shape), np.float32)
        pixels = rng.integers(0, 256, image.shape, np.uint8)
        content = np.array([[photo.read_bytes()]], object)
        with serving(folder / "repository", folder / "log") as server:
            runs: dict[str, Run] = {
                "engine alone": functools.partial(infer, engine, image, options.images),
                "resrt.classify": functools.partial(classify, engine, photo, options.images),
            }
            for suffix, request in (
                ("", tensor("images", image, "FP32")),
                ("_uint8", tensor("images", pixels, "UINT8")),
                ("_photographs", tensor("photographs", content, "BYTES")),
            ):
                runs[f"network{suffix}"] = functools.partial(
                    send, server, f"network{suffix}", request, options.images, options.clients
                )
            return in_rounds(runs, options.rounds)


def in_rounds(runs: dict[str, Run], rounds: int) -> dict[str, Spread]:
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    latencies: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(-1, rounds):  # the first round warms up
        for name in order(list(runs), max(number, 0)):
            speed, times = runs[name]()
            if number >= 0:
                speeds[name].append(speed)
                latencies[name] += times
    results = {f"{name}, images/s": Spread.of(np.array(found)) for name, found in speeds.items()}
    for name, alone in (
        ("network", "engine alone"),
        ("network_uint8", "engine alone"),
        ("network_photographs", "resrt.classify"),
    ):
        ratios = np.array(speeds[name]) / np.array(speeds[alone])
        results[f"{name} / {alone}"] = Spread.of(ratios)
        middle, last = np.percentile(latencies[name], [50, 99])
        print(f"{name}: latency of requests: median {middle:.0f} ms, p99 {last:.0f} ms")
    return results


def main() -> None:
    arguments = parser(__doc__, rounds=6)
    arguments.add_argument("network")
    arguments.add_argument("--precision", default="auto", choices=resrt.PRECISIONS)
    arguments.add_argument("--clients", type=int, default=64)
    arguments.add_argument("--images", type=int, default=256, help="in each round, for each")
    options = arguments.parse_args()
    busy = machine.busy(machine.load(), machine.usable_cores())
    if busy:
        print(busy)
    results = measure(options)
    report(options, f"{options.network} in Triton with {options.clients} clients", results)


if __name__ == "__main__":
    main()
