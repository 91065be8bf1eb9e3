"""Runs resrt for a long time under load, faults and hostile input, and checks every result.

    python tools/soak.py --minutes 60

Random steps, from a seed that is printed, are repeated until the time is over:

- 64 threads share an engine, and every logit must be equal to the bit;
- a process that classifies or saves is killed at a random moment. An engine file must be whole,
  and a file of results must be resumed without a lost or doubled row;
- threads build networks to one path through one cache, and each network must get its own engine;
- the disk is full (a small tmpfs, which requires root): saving must fail and leave nothing behind;
- bits of an engine file are flipped, or it is truncated, and it must be rejected;
- weights files and images are mutated, and must be read or rejected;
- an engine file is replaced while threads load it, and each must get one of the two engines.

At the end, memory, open files and threads must be as they were at first. If not, the exit
status is 1 and the last line says what; the seed repeats the steps.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import gc
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

import resrt

CORPUS = Path(__file__).parents[1] / "tests" / "fuzz" / "corpus"
# The growth of the resident memory that is allowed after the first minute.
ALLOWED_GROWTH = 64 << 20
_CALLERS = 64
_IMAGES = 40
_TMPFS = 256 << 10


class Fault(Exception):
    """Something is not as it should be."""


def expect(holds: bool, message: str) -> None:
    """Raise Fault unless something holds."""
    if not holds:
        raise Fault(message)


class Soak:
    """The engines, files and expected results that the steps share."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.engine = resrt.demo.build_engine("fp32")
        self.file = folder / "digits.engine"
        self.engine.save(self.file)
        self.content = self.file.read_bytes()
        scans, _ = resrt.demo.held_out()
        info = self.engine.info
        images = resrt.images.preprocess_batch(scans[:64], info.preprocessing, info.input_shape)
        starts = [(self.random.randrange(50), self.random.randint(1, 9)) for _ in range(40)]
        batches = [images[start : start + size] for start, size in starts]
        self.batches = [(batch, self.engine.infer(batch)) for batch in batches]
        self.photos = folder / "photos"
        self.photos.mkdir()
        for i, scan in enumerate(scans[:_IMAGES]):
            Image.fromarray(scan).resize((256, 256)).save(self.photos / f"{i:02}.png")
        self.other = resrt.build(
            resrt.ResNet(depths=[1], width=8), "random", classes=3, input_size=16, in_channels=1
        )

    def share_an_engine(self) -> None:
        """Call one engine from many threads with batches of random sizes."""
        seed = self.random.random()

        def call(caller: int) -> None:
            mine = random.Random(f"{seed} {caller}")
            for _ in range(25):
                batch, expected = mine.choice(self.batches)
                expect(np.array_equal(self.engine.infer(batch), expected), "logits differ")
                self.counts["inferences"] += 1

        with ThreadPoolExecutor(_CALLERS) as callers:
            list(callers.map(call, range(_CALLERS)))

    def kill_a_classification(self) -> None:
        """Kill `resrt classify`, resume it, and find every image once in its results."""
        out = self.folder / "rows.csv"
        command = ["classify", str(self.file), str(self.photos), "--format", "csv", "-o", str(out)]
        for attempt in range(100):
            resume = ["--resume"] if out.exists() else []
            if self._killed(command + resume, longest=0.5 + 0.1 * attempt):
                self.counts["kills"] += 1
                continue
            break
        with out.open(newline="") as rows:
            names = [row["image"] for row in csv.DictReader(rows)]
        expect(
            sorted(names) == sorted(map(str, self.photos.iterdir())),
            f"{len(names)} rows for {len(set(names))} images, expected one for each of {_IMAGES}",
        )
        out.unlink()

    def kill_a_save(self) -> None:
        """Kill a process that saves over an engine file, which must stay whole."""
        target = self.folder / "saved.engine"
        target.write_bytes(self.content)
        script = (
            "import sys, resrt; engine = resrt.load(sys.argv[1])\n"
            "while True: engine.save(sys.argv[2])"
        )
        self._killed(["-c", script, str(self.file), str(target)], longest=1.5, module=False)
        self.counts["kills"] += 1
        expect(target.read_bytes() == self.content, "a killed save left another engine file")
        target.unlink()
        for orphan in self.folder.glob("*saved.engine*.tmp"):
            orphan.unlink()  # of the killed process

    def share_a_build_cache(self) -> None:
        """Build different networks to one path at once, and then get each from the cache."""
        os.environ["RESRT_CACHE"] = str(self.folder / "cache")
        out = self.folder / "built.engine"
        offset = self.random.randrange(4)
        networks = [
            resrt.build_graph(
                resrt.ResNet(depths=[1], width=8),
                classes=2 + (offset + i) % 4,
                input_size=16,
                name=f"network{(offset + i) % 4}",
            )
            for i in range(4)
        ]
        with ThreadPoolExecutor(4) as builders:
            list(builders.map(lambda graph: resrt.build_file(graph, out, "random"), networks))
        for graph in networks:
            built = resrt.build_file(graph, out, "random")
            found = (built.info.model, resrt.load(out).info.model, built.info.classes)
            expect(found == (graph.name, graph.name, graph.classes), f"{found} for {graph.name}")
            self.counts["engines from a shared cache"] += 1
        out.unlink()

    def fill_the_disk(self) -> None:
        """Save to a file system that is full."""
        if os.geteuid() != 0:
            return
        mount = self.folder / "full"
        mount.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={_TMPFS}", "tmpfs", str(mount)]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            self.counts["full disks that could not be mounted"] += 1
            return
        try:
            before = mount / "kept.engine"
            before.write_bytes(b"what was there")
            for save in (
                lambda: self.engine.save(before),
                lambda: resrt.convert(
                    resrt.demo.weights_path(), mount / "x.safetensors", network="resnet18"
                ),
            ):
                try:
                    save()
                except resrt.Error:
                    pass
                else:
                    raise Fault("a full disk was not reported")
            expect(before.read_bytes() == b"what was there", "a failed save changed the old file")
            left = sorted(path.name for path in mount.iterdir())
            expect(left == ["kept.engine"], f"a failed save left {left}")
            self.counts["full disks"] += 1
        finally:
            subprocess.run(["umount", str(mount)], check=True)

    def damage_an_engine(self) -> None:
        """Flip bits of an engine file, or cut it off, and load it."""
        damaged = self.folder / "damaged.engine"
        for _ in range(20):
            content = bytearray(self.content)
            if self.random.random() < 0.2:
                del content[self.random.randrange(len(content)) :]
            else:
                content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
            damaged.write_bytes(content)
            try:
                resrt.load(damaged)
            except resrt.EngineFileError:
                self.counts["damaged engines refused"] += 1
            else:
                raise Fault("a damaged engine file was loaded")

    def mutate_weights(self) -> None:
        """Read weights files with random bytes changed, inserted and removed."""
        samples = [path for path in CORPUS.rglob("*") if path.is_file()]
        file = self.folder / "mutated"
        for sample in self.random.sample(samples, min(20, len(samples))):
            content = bytearray(sample.read_bytes())
            for _ in range(self.random.randint(1, 8)):
                at = self.random.randrange(len(content) + 1)
                if self.random.random() < 0.5 and content:
                    del content[at : at + self.random.randint(1, 16)]
                else:
                    content[at:at] = self.random.randbytes(self.random.randint(1, 16))
            file.write_bytes(content)
            with contextlib.suppress(resrt.WeightsError, resrt.FileError):
                resrt.weights.read(file)
            self.counts["mutated weights files"] += 1

    def mutate_images(self) -> None:
        """Classify images with random bytes changed."""
        files = sorted(self.photos.iterdir())[:8]
        folder = self.folder / "mutated_images"
        folder.mkdir(exist_ok=True)
        for file in files:
            content = bytearray(file.read_bytes())
            for _ in range(self.random.randint(1, 8)):
                content[self.random.randrange(len(content))] = self.random.randrange(256)
            (folder / file.name).write_bytes(content)
        found = list(resrt.classify(self.engine, sorted(folder.iterdir())))
        expect(len(found) == len(files), f"{len(found)} results for {len(files)} images")
        self.counts["mutated images"] += len(files)

    def replace_while_loading(self) -> None:
        """Replace an engine file again and again while threads load it."""
        shared = self.folder / "shared.engine"
        self.engine.save(shared)
        stop = threading.Event()

        def replace() -> None:
            while not stop.is_set():
                self.other.save(shared)
                self.engine.save(shared)

        def load(_: int) -> None:
            found = resrt.load(shared, threads=1)
            expect(
                found.info.model in (self.engine.info.model, self.other.info.model),
                f"loaded a third engine, {found.info.model}",
            )
            if found.info.model == self.engine.info.model:
                batch, expected = self.batches[0]
                off = np.abs(found.infer(batch) - expected).max()
                expect(off < 1e-4, "a replaced engine gives other logits")
            self.counts["loads of a file that is replaced"] += 1

        writer = threading.Thread(target=replace)
        writer.start()
        try:
            with ThreadPoolExecutor(4) as loaders:
                list(loaders.map(load, range(12)))
        finally:
            stop.set()
            writer.join()
        shared.unlink()

    def _killed(self, arguments: list[str], *, longest: float, module: bool = True) -> bool:
        """Run resrt and kill it after a random time. Returns whether that was before its end."""
        command = [sys.executable, *(["-m", "resrt"] if module else []), *arguments]
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                _, errors = process.communicate(timeout=self.random.uniform(0.05, longest))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                return True
        expect(process.returncode == 0, f"it failed: {errors[-300:]}")
        return False


def main() -> int:
    """Run the steps and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    print(f"seed {seed}, {options.minutes:g} minutes", flush=True)
    with tempfile.TemporaryDirectory(prefix="resrt-soak-") as folder:
        soak = Soak(Path(folder), seed)
        try:
            run(soak, 60 * options.minutes)
        except Fault as fault:
            print(f"FAULT after {dict(soak.counts)}: {fault}; repeat with --seed {seed}")
            return 1
    print(", ".join(f"{count} {what}" for what, count in sorted(soak.counts.items())))
    print("nothing lost, nothing mixed up, nothing growing")
    return 0


def run(soak: Soak, seconds: float) -> None:
    """Run random steps for that long, and compare what the process holds before and after."""
    steps = [
        soak.share_an_engine,
        soak.kill_a_classification,
        soak.kill_a_save,
        soak.share_a_build_cache,
        soak.fill_the_disk,
        soak.damage_an_engine,
        soak.mutate_weights,
        soak.mutate_images,
        soak.replace_while_loading,
    ]
    for step in 3 * steps:  # which also allocates what stays
        step()
    before = held()
    end = time.monotonic() + seconds
    for step in _chosen(steps, soak.random):
        if time.monotonic() > end:
            break
        step()
    after = held()
    for what, allowed in (("memory", ALLOWED_GROWTH), ("files", 2), ("threads", 2)):
        growth = after[what] - before[what]
        print(f"{what}: {before[what]:,} at first, {after[what]:,} at the end")
        expect(growth <= allowed, f"{what} grew by {growth:,}")


def _chosen(steps: list[Callable[[], None]], source: random.Random) -> Iterator[Callable[[], None]]:
    while True:
        yield source.choice(steps)


def held() -> dict[str, int]:
    """Return this process's resident memory in bytes, open files and threads."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "memory": pages * os.sysconf("SC_PAGE_SIZE"),
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "threads": len(list(Path("/proc/self/task").iterdir())),
    }


if __name__ == "__main__":
    sys.exit(main())
