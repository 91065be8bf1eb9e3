"""`resrt inspect`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from resrt.cli.arguments import add_shared
from resrt.cli.tables import preprocessing_row, print_json

if TYPE_CHECKING:
    from resrt import EngineFile

SUMMARY = "describe an engine file"
DESCRIPTION = (
    "Describes an engine file without loading it: network, precision, input, preprocessing, "
    "weights, and whether it can run here."
)
EXAMPLE = "resrt inspect resnest50.engine --layers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_shared(parser, "engine")
    parser.add_argument("--labels", action="store_true", help="also list the labels")
    parser.add_argument("--layers", action="store_true", help="also list the layers")
    add_shared(parser, "--format")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    import resrt

    found = resrt.inspect(options.engine)
    if options.format == "json":
        print_json(found.document(labels=options.labels, layers=options.layers))
        return
    rows = dict(_rows(found))
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")
    if options.labels:
        print()
        for number, label in enumerate(found.info.labels):
            print(f"{number:>5}  {label}")
    if options.layers:
        print(f"\n{found.info.layers}", end="")


def _rows(found: EngineFile) -> Iterator[tuple[str, str]]:
    info = found.info
    channels, height, width = info.input_shape
    yield "file", f"{found.path}, {found.size / 1e6:.1f} MB"
    yield "network", f"{info.model}, {info.layers.splitlines()[-1].partition(': ')[2]}"
    yield (
        "input",
        f"float32 (N, {channels}, {height}, {width}), up to {info.max_batch} images at once",
    )
    shapes = {name: ", ".join(["N", *map(str, shape)]) for name, shape in info.outputs.items()}
    yield "output", ", ".join(f"{name} float32 ({shape})" for name, shape in shapes.items())
    yield "precision", info.precision
    yield "backend", f"{info.backend} {info.backend_version}"
    yield "runs here", "yes" if found.why_not is None else f"no: {found.why_not}"
    checksum = f", SHA-256 {info.weights_sha256}" if info.weights_sha256 else ""
    yield "weights", f"{info.weights or 'unnamed'}{checksum}"
    yield "preprocessing", preprocessing_row(info)
    yield "labels", f"{len(info.labels)}" if info.labels else "none"
