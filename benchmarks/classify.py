"""Compare the time of `resrt classify` with that of its parts: preprocessing, and inference.

    python benchmarks/classify.py ResNet50 [--photos DIR] [--count 500]

Everything runs on the cores that this process may use. If decoding and inference share them well,
classification takes little longer than the longer part plus half of the shorter one. The ratios are
relative to that, for `resrt.classify` and for the whole command, which also starts Python and loads
the engine. Without --photos, parts of the photographs in tests/data, enlarged to 1152x864 pixels,
are used.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

import resrt
from resrt.measuring.rounds import Spread
from resrt.system import machine
from shared import in_turns, parser, report

PHOTOS = Path(__file__).parents[1] / "tests" / "data" / "photos"


def make_photos(folder: Path, count: int) -> None:
    """Write different parts of photographs as JPEG files of 1152x864 pixels."""
    rng = np.random.default_rng(0)
    originals = [Image.open(path).convert("RGB") for path in sorted(PHOTOS.glob("*.jpg"))]
    for i in range(count):
        whole = originals[i % len(originals)]
        left, top = map(int, rng.integers(0, (whole.width - 500, whole.height - 375)))
        part = whole.crop((left, top, left + 500, top + 375))
        part.resize((1152, 864), Image.Resampling.LANCZOS).save(folder / f"{i}.jpg", quality=92)


def measure(file: Path, photos: list[str], rounds: int) -> dict[str, npt.NDArray[np.float64]]:
    """Return the seconds of each part in each round."""
    cores = machine.cores()
    pool = ThreadPoolExecutor(cores)
    engine = resrt.load(file, threads=1)  # as `resrt.classify` does: an inference per core
    on_all_cores = resrt.load(file, threads=cores)
    info = engine.info
    images = np.empty((len(photos), *info.input_shape), np.float32)

    def preprocess(i: int) -> None:
        images[i] = resrt.images.preprocess(
            photos[i], info.preprocessing, info.input_shape, exact=False
        )

    batches = np.array_split(images, -(-len(photos) // 4))
    command = [sys.executable, "-m", "resrt", "classify", str(file), "-", "--format", "json"]
    listed = "\n".join(photos).encode()
    runs: dict[str, Callable[[], object]] = {
        "preprocess": lambda: list(pool.map(preprocess, range(len(photos)))),
        "infer, one core each": lambda: list(pool.map(engine.infer, batches)),
        "infer, all cores": lambda: on_all_cores.infer(images),
        "classify": lambda: list(resrt.classify(engine, photos)),
        "command": lambda: subprocess.run(
            command, input=listed, stdout=subprocess.DEVNULL, check=True
        ),
    }
    runs["preprocess"]()  # inference needs the images
    return in_turns(runs, rounds, warm_up=0)


def main() -> None:
    arguments = parser(__doc__, rounds=3)
    arguments.add_argument("network")
    arguments.add_argument("--photos", type=Path)
    arguments.add_argument("--count", type=int, default=500)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.photos is None:
            make_photos(Path(folder), options.count)
        photos = resrt.find_images([options.photos or folder])[: options.count]
        file = Path(folder) / "x.engine"
        engine = resrt.build(options.network, "random")
        engine.save(file)
        seconds = measure(file, photos, options.rounds)
    infer = np.minimum(seconds["infer, one core each"], seconds["infer, all cores"])
    preprocess = seconds["preprocess"]
    ideal = np.maximum(preprocess, infer) + np.minimum(preprocess, infer) / 2
    results = {f"{name} (s)": Spread.of(taken) for name, taken in seconds.items()}
    for name in ("classify", "command"):
        results[f"{name}, ratio"] = Spread.of(seconds[name] / ideal)
    title = f"{options.network} in {engine.info.precision}, {len(photos)} photographs"
    report(options, title, results)


if __name__ == "__main__":
    main()
