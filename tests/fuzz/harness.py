"""Runs a reader on any input within limits of time and memory, and fuzzes it with atheris.

Each fuzz_<reader>.py is a program: `python tests/fuzz/fuzz_npz.py -max_total_time=600`, with any
of libFuzzer's options (https://llvm.org/docs/LibFuzzer.html), after `pip install resrt[fuzz]`.
Inputs that reach new code are saved in build/fuzz/, and used by the next run.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import ModuleType

import numpy as np
import numpy.typing as npt

import resrt
from mutators import Mutator

HERE = Path(__file__).parent
SAMPLES = HERE.parent / "data" / "weights"
SLACK = 64 << 20  # bytes of memory that a reader may take, besides twice the file's size
SECONDS = 5.0  # of processor time that it may take for an input of a few KB


@dataclass(frozen=True)
class Target:
    """A reader, the pattern of its initial files, and how to mutate them."""

    name: str
    reader: ModuleType
    samples: str
    mutate: Mutator

    def corpus(self) -> list[Path]:
        """Return the initial files."""
        return sorted([*SAMPLES.glob(self.samples), *(HERE / "corpus" / self.name).glob("*")])

    def check(self, content: bytes) -> None:
        """Read a file. Fails unless the reader stays within the limits or raises resrt.Error."""
        assert tracemalloc.is_tracing()
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        start = time.process_time()
        with contextlib.suppress(resrt.Error):
            view = memoryview(content)
            if self.reader.recognises(view):
                _use(self.reader.read(view, "the input").arrays.values())
        seconds = time.process_time() - start
        taken = tracemalloc.get_traced_memory()[1] - before
        assert seconds < SECONDS, f"{seconds:.1f} s"
        assert taken < 2 * len(content) + SLACK, f"{taken} bytes of memory for {len(content)}"


def _use(arrays: Iterable[npt.NDArray[np.generic]]) -> None:
    """Read every number. One outside the file would end the process."""
    for array in arrays:
        assert isinstance(array, np.ndarray)
        assert array.dtype.kind in "fiub"
        array.tobytes()


def main(target: Target) -> None:
    """Fuzz a reader with the options on the command line."""
    import atheris

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.3:
            return bytes(atheris.Mutate(data, max_size))
        return target.mutate(data, random)[:max_size]

    tracemalloc.start()
    kept = HERE.parent.parent / "build" / "fuzz" / target.name
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as begin:
        for path in target.corpus():
            (Path(begin) / path.name).write_bytes(path.read_bytes())
        options = ["-timeout=20", "-rss_limit_mb=1024", "-max_len=16384", *sys.argv[1:]]
        atheris.Setup(
            [sys.argv[0], *options, str(kept), begin], target.check, custom_mutator=mutate
        )
        atheris.Fuzz()
