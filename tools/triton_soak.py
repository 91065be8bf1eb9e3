"""Runs Triton Inference Server with resrt's models under load and faults, and checks every answer.

    pip install nvidia-pytriton 'tritonclient[all]' 'numpy<2' resrt
    python tools/triton_soak.py --requests 50000

The server is that of the wheel nvidia-pytriton, the engine that of `resrt demo`. 64 clients send
requests without pause, to the models for images, pictures and photographs in turn:

- every logit must be one that the engine computes for that image at one of its batch sizes, and
  the memory of the server must not grow;
- the server is killed, and started again: every request is answered or refused, none hangs;
- a second version of the models is added: every request is answered, and at the end by it;
- 200 malformed requests are answered with errors.

The last line says whether all of this held; if not, the exit status is 1.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import io
import itertools
import json
import random
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import tritonclient.grpc as grpc
import tritonclient.grpc.aio as grpc_aio
from PIL import Image
from tritonclient.utils import InferenceServerException

import resrt
from resrt.operations import demo
from soak import ALLOWED_GROWTH, Fault, expect
from tritonserver import Server, serving

_CLIENTS = 64
_IMAGES = 12
_MALFORMED = 200
_TIMEOUT = 60  # seconds after which a request hangs
_CHANNEL = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]


@dataclass
class Sample:
    """A request, and the logits that are an answer to it."""

    model: str
    inputs: list[Any]
    answers: set[bytes]


def samples(engine: resrt.Engine, seed: int) -> list[Sample]:
    """Return requests to the three models, with the engine's logits at each of its batch sizes."""
    channels, height, width = engine.info.input_shape
    pixels = np.random.default_rng(seed).integers(
        0, 256, (_IMAGES, channels, height, width), np.uint8
    )
    images = np.random.default_rng(seed).standard_normal(pixels.shape, np.float32)
    files = [_png(picture) for picture in pixels]
    prepared = [resrt.preprocess(file, engine.info.preprocessing, exact=False) for file in files]
    found = []
    for i in range(_IMAGES):
        file = np.array([[files[i]]], object)
        for model, name, array, data_type, known in (
            ("digits", "images", images[i : i + 1], "FP32", images[i]),
            ("digits_uint8", "images", pixels[i : i + 1], "UINT8", pixels[i]),
            ("digits_photographs", "photographs", file, "BYTES", prepared[i]),
        ):
            request = grpc.InferInput(name, array.shape, data_type)
            request.set_data_from_numpy(array)
            found.append(Sample(model, [request], _answers(engine, known)))
    return found


def _answers(engine: resrt.Engine, image: npt.NDArray[Any]) -> set[bytes]:
    sizes = range(1, engine.info.max_batch + 1)
    return {row.tobytes() for size in sizes for row in engine.infer(np.stack([image] * size))}


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(file, "PNG")
    return file.getvalue()


@dataclass
class Outcome:
    """What became of requests: how many were answered, by which versions, or refused, and why."""

    versions: Counter[str]
    refused: Counter[str]
    last_versions: dict[str, str]

    @property
    def answered(self) -> int:
        return sum(self.versions.values())


async def load(server: Server, sampled: list[Sample], requests: Callable[[], bool]) -> Outcome:
    """Send requests from all clients while `requests` says so, and check the answers."""
    outcome = Outcome(Counter(), Counter(), {})
    turns: Iterator[Sample] = itertools.cycle(sampled)
    async with grpc_aio.InferenceServerClient(server.grpc, channel_args=_CHANNEL) as client:

        async def call() -> None:
            while requests():
                sample = next(turns)
                try:
                    answer = await asyncio.wait_for(
                        client.infer(sample.model, sample.inputs), _TIMEOUT
                    )
                except InferenceServerException as error:
                    outcome.refused[str(error.message())[:80]] += 1
                    await asyncio.sleep(0.05)
                    continue
                except asyncio.TimeoutError:
                    raise Fault(f"a request to {sample.model} hung for {_TIMEOUT} s") from None
                logits = answer.as_numpy("logits").tobytes()
                expect(logits in sample.answers, f"{sample.model} answered with other logits")
                version = answer.get_response().model_version
                outcome.versions[version] += 1
                outcome.last_versions[sample.model] = version

        await asyncio.gather(*(call() for _ in range(_CLIENTS)))
    return outcome


def countdown(requests: int) -> Callable[[], bool]:
    numbers = iter(range(requests))
    return lambda: next(numbers, None) is not None


def answers_under_load(server: Server, sampled: list[Sample], requests: int) -> None:
    """Let all answers be right, and the memory of the server flat."""
    asyncio.run(load(server, sampled, countdown(max(1000, requests // 10))))
    before = resident(server)
    start = perf_counter()
    outcome = asyncio.run(load(server, sampled, countdown(requests)))
    seconds, after = perf_counter() - start, resident(server)
    expect(not outcome.refused, f"refused: {dict(outcome.refused)}")
    print(
        f"load: {outcome.answered} requests of {_CLIENTS} clients answered with the engine's own "
        f"logits, {outcome.answered / seconds:.0f} a second; the server's memory was "
        f"{before >> 20} MiB before and {after >> 20} MiB after"
    )
    expect(after - before < ALLOWED_GROWTH, f"memory grew by {(after - before) >> 20} MiB")


def resident(server: Server) -> int:
    """Return the memory of the server's processes in bytes, with what they share counted once."""
    total = 0
    for process in server.processes():
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
        total += 1024 * int(text.partition("\nPss:")[2].split()[0])
    return total


def restart_under_load(server: Server, sampled: list[Sample]) -> None:
    """Kill the server under load and start it again. Requests are answered or refused."""

    async def run() -> Outcome:
        stop = asyncio.Event()
        clients = asyncio.create_task(load(server, sampled, lambda: not stop.is_set()))
        await asyncio.sleep(2)
        server.kill()
        await asyncio.sleep(1)
        await asyncio.to_thread(server.start)
        await asyncio.sleep(2)
        stop.set()
        return await clients

    outcome = asyncio.run(run())
    after = asyncio.run(load(server, sampled, countdown(200)))
    expect(bool(outcome.refused), "no request was refused, so the server was not killed")
    expect(not after.refused, f"refused after the restart: {dict(after.refused)}")
    print(
        f"restart: {outcome.answered} requests answered, {outcome.refused.total()} refused, none "
        "lost; all answered afterwards"
    )


def version_under_load(server: Server, sampled: list[Sample], engine: Path) -> None:
    """Add a version under load. Every request is answered, and in the end by the new version."""

    async def run() -> Outcome:
        stop = asyncio.Event()
        clients = asyncio.create_task(load(server, sampled, lambda: not stop.is_set()))
        await asyncio.sleep(1)
        await asyncio.to_thread(resrt.triton, engine, server.repository, new_version=True)
        await asyncio.sleep(12)
        stop.set()
        return await clients

    outcome = asyncio.run(run())
    expect(not outcome.refused, f"refused: {dict(outcome.refused)}")
    expect(set(outcome.last_versions.values()) == {"2"}, f"in the end: {outcome.last_versions}")
    print(f"versions: all requests answered, by version: {dict(outcome.versions)}")


def malformed_requests(server: Server, sampled: list[Sample], seed: int) -> None:
    """Send malformed requests. Each must be answered with an error, and the server must go on."""
    rng = random.Random(seed)
    statuses: Counter[int] = Counter()
    for number in range(_MALFORMED):
        model, body, headers = rng.choice(_KINDS)(rng)
        url = f"http://{server.http}/v2/models/{model}/infer"
        request = urllib.request.Request(url, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
                raise Fault(f"malformed request {number} to {model}: status {answer.status}")
        except (http.client.HTTPException, OSError) as error:
            if not isinstance(error, urllib.error.HTTPError):
                raise Fault(
                    f"malformed request {number} to {model} was not answered: {error!r}; headers "
                    f"{headers}, body {body[:300]!r}"
                ) from None
            text = json.loads(error.read())["error"]
            expect(bool(text), f"malformed request {number} to {model}: no reason")
            statuses[error.code] += 1
    after = asyncio.run(load(server, sampled, countdown(200)))
    expect(not after.refused, f"refused afterwards: {dict(after.refused)}")
    print(f"malformed: {_MALFORMED} requests answered with errors, by status: {dict(statuses)}")


_Request = tuple[str, bytes, dict[str, str]]
_RAW = {"Inference-Header-Content-Length": "0"}


def _noise(rng: random.Random) -> _Request:
    return rng.choice(_MODELS), rng.randbytes(rng.randrange(1, 2000)), {}


def _no_photograph(rng: random.Random) -> _Request:
    return "digits_photographs", rng.randbytes(rng.randrange(1, 5000)), _RAW


def _cut_photograph(rng: random.Random) -> _Request:
    content = _png(np.frombuffer(rng.randbytes(32 * 32), np.uint8).reshape(1, 32, 32))
    return "digits_photographs", content[: rng.randrange(20, len(content) // 2)], _RAW


def _raw_of_another_size(rng: random.Random) -> _Request:
    return rng.choice(_MODELS[:2]), rng.randbytes(rng.choice([1, 100, 1023, 4097, 9000])), _RAW


def _described(rng: random.Random) -> _Request:
    # Not with 10**9 images: Triton 2.51 allocates memory for them, and ends, before it looks at the
    # model.
    model = rng.choice(_MODELS)
    given: dict[str, Any] = {
        "name": rng.choice(["images", "photographs", "other"]),
        "shape": rng.choice([[1], [1, 2], [1, 3, 32, 32], [-1, 1, 32, 32], [10**4, 1, 32, 32], []]),
        "datatype": rng.choice(["FP32", "UINT8", "BYTES", "INT64", "X"]),
        "data": rng.choice([[], [0], ["x"], None, {}]),
    }
    if rng.random() < 0.3:
        del given[rng.choice(list(given))]
    return model, json.dumps({"inputs": [given]}).encode(), {}


def _lying_header(rng: random.Random) -> _Request:
    length = rng.choice(["-1", "99999999", "x", "7"])
    return rng.choice(_MODELS), b'{"inputs":[]}', {"Inference-Header-Content-Length": length}


def _other_model(rng: random.Random) -> _Request:
    return rng.choice(["none", "digits/versions/9", "digits/versions/x"]), b"{}", {}


_MODELS = ("digits", "digits_uint8", "digits_photographs")
_KINDS = (
    _noise,
    _no_photograph,
    _cut_photograph,
    _raw_of_another_size,
    _described,
    _lying_header,
    _other_model,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=50000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="triton_soak."))
    file, repository = folder / "digits.engine", folder / "repository"
    demo.build_engine().save(file)
    resrt.triton(file, repository, instances=1, batch_sizes=[4, 8])
    sampled = samples(resrt.load(file), options.seed)
    polling = ("--model-control-mode=poll", "--repository-poll-secs=1")
    try:
        with serving(repository, folder / "log") as server:
            answers_under_load(server, sampled, options.requests)
            malformed_requests(server, sampled, options.seed)
            restart_under_load(server, sampled)
        with serving(repository, folder / "log", *polling) as server:
            version_under_load(server, sampled, file)
    except Fault as fault:
        print(f"failed: {fault}; the server's log is {folder / 'log'}")
        sys.exit(1)
    shutil.rmtree(folder)
    print("all answers were right")


if __name__ == "__main__":
    main()
