"""Times `resrt classify` against its parts: decoding and preprocessing alone, inference alone.

    python tools/measure_classify.py ResNet50 [--photos DIR] [--count 500] [--rounds 3]

All on the cores that this process may use. Where decoding and inference share them well,
classifying takes little longer than the longer part and half the shorter; the ratio to that is
printed for the Python function and for the whole command, which starts Python and loads the engine
as well. Without --photos, parts of the photographs in tests/data are enlarged to 1 megapixel.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

import resrt
from resrt import images
from resrt.engine import batches
from resrt.operations import classify as classification
from resrt.system import machine

PHOTOS = Path(__file__).parents[1] / "tests" / "data" / "photos"


def make_photos(folder: Path, count: int) -> list[str]:
    """Parts of photographs, each another, of 1152x864 pixels."""
    rng = np.random.default_rng(0)
    originals = [Image.open(path).convert("RGB") for path in sorted(PHOTOS.glob("*.jpg"))]
    for i in range(count):
        whole = originals[i % len(originals)]
        left, top = rng.integers(0, whole.width - 500), rng.integers(0, whole.height - 375)
        part = whole.crop((left, top, left + 500, top + 375))
        part.resize((1152, 864), Image.Resampling.LANCZOS).save(folder / f"{i}.jpg", quality=92)
    return classification.find([folder])


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = (
            classification.find([options.photos])[: options.count]
            if options.photos
            else make_photos(Path(folder), options.count)
        )
        file = Path(folder) / "measured.engine"
        resrt.build(options.network, "random").save(file)
        measure(file, files, options.rounds)


def measure(file: Path, files: list[str], rounds: int) -> None:
    cores = machine.cores()
    pool = ThreadPoolExecutor(cores)
    engine = batches.ready(file)  # an inference for each core
    latency = resrt.load(file, threads=cores)  # all cores for an inference
    info = engine.info
    prepared = np.empty((len(files), *info.input_shape), np.float32)

    def prepare() -> None:
        def one(i: int) -> None:
            prepared[i] = images.preprocess(
                files[i], info.preprocessing, info.input_shape, exact=False
            )

        list(pool.map(one, range(len(files))))

    def infer_apart() -> None:
        list(pool.map(engine.infer, np.array_split(prepared, -(-len(files) // 4))))

    command = [sys.executable, "-m", "resrt", "classify", file, "-", "--format", "json"]

    def run_command() -> None:
        listed = "\n".join(files).encode()
        subprocess.run(command, input=listed, stdout=subprocess.DEVNULL, check=True)

    print(machine.describe())
    print(f"{info.model} in {info.precision}, {len(files)} images, {cores} cores; seconds")
    print("decode  infer  (one by one)  classify  ratio  command  ratio")
    for _ in range(rounds):
        decode = seconds(prepare)
        apart, together = seconds(infer_apart), seconds(lambda: latency.infer(prepared))
        classify = seconds(lambda: list(resrt.classify(engine, files)))
        whole = seconds(run_command)
        infer = min(apart, together)
        ideal = max(decode, infer) + min(decode, infer) / 2
        print(
            f"{decode:6.2f} {infer:6.2f} {together:13.2f} {classify:9.2f} {classify / ideal:6.3f}"
            f" {whole:8.2f} {whole / ideal:6.3f}"
        )


if __name__ == "__main__":
    main()
