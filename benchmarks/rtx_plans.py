"""Compare the kernels that TensorRT for RTX chooses for ways to lower a network, without a GPU.

    python benchmarks/rtx_plans.py ResNeSt50 [--targets 75 86 89 120] [--precision fp16]

The library lists the kernels of an engine in its log when it builds it: their names, and the shapes
and types of their inputs, parameters and outputs. The table has, for each target and each way, the
number of kernels, the MB of the inputs and outputs for one image, and how many kernels only cast.
"""

from __future__ import annotations

import argparse
import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import resrt

LOGGER = "resrt.tensorrt_rtx"
BYTES = {"Float": 4, "Half": 2, "BFloat16": 2, "Int8": 1, "Bool": 1, "Int32": 4, "Int64": 8}
WAYS = {
    "ResNeSt": ("", "split", "dense", "pooled", "windows", "matrix", "split pooled"),
    "ResNet": ("", "pooled", "matrix"),
    "RegNet": ("", "merged", "pooled", "matrix"),
}
KERNEL = re.compile(r"^Name: (\S+), LayerType: (\w+), (.*)$", re.MULTILINE)
TENSOR = re.compile(r"Dimensions: \[([\d,]*)\].*?Datatype: (\w+)")


@dataclass(frozen=True)
class Kernels:
    """The kernels of an engine."""

    count: int
    bytes: int  # of inputs and outputs
    casts: int  # that do nothing else


@contextmanager
def messages() -> Iterator[list[str]]:
    """Collect all messages of TensorRT for RTX."""
    found: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    logger = logging.getLogger(LOGGER)
    handler = Collect()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield found
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def bytes_of(description: str) -> int:
    """Return the bytes of the inputs and outputs of a kernel."""
    activations = re.sub(r"Constants: \[.*?\], Outputs", "Outputs", description)
    return sum(
        math.prod(int(size) for size in sizes.split(",") if size) * BYTES[kind]
        for sizes, kind in TENSOR.findall(activations)
    )


def read_kernels(log: str) -> Kernels:
    """Return the kernels that a log lists."""
    found = KERNEL.findall(log)
    return Kernels(
        len(found),
        sum(bytes_of(description) for _, _, description in found),
        sum(re.match(r"__myl_(Cast|Move|Tran)+_", name) is not None for name, _, _ in found),
    )


def build(network: str, precision: str, target: int, way: str) -> Kernels:
    """Build an engine for one image and return its kernels."""
    with messages() as found:
        resrt.build(
            network,
            "random",
            backend="tensorrt_rtx",
            precision=precision,
            max_batch=1,
            tensorrt=resrt.TensorRTOptions(compute_capabilities=[target], lowering=way.split()),
        )
    return read_kernels("\n".join(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network")
    parser.add_argument("--targets", type=int, nargs="+", default=[75, 86, 89, 120])
    parser.add_argument("--precision", default="fp16")
    options = parser.parse_args()
    ways = next(ways for family, ways in WAYS.items() if options.network.startswith(family))
    print("| lowering |" + "".join(f" {target} |" for target in options.targets))
    print("|---|" + "---|" * len(options.targets))
    for way in ways:
        cells = []
        for target in options.targets:
            kernels = build(options.network, options.precision, target, way)
            cells.append(f" {kernels.count}, {kernels.bytes / 1e6:.1f} MB, {kernels.casts} |")
        print(f"| {way or 'as before'} |" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
