"""`resrt inspect`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from resrt.cli.arguments import DONE, Commands, add_command, add_engine

if TYPE_CHECKING:
    from resrt import EngineFile


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "inspect",
        _run,
        summary="describe an engine file",
        description="Describes an engine file without loading it: network, precision, input, "
        "preprocessing, labels, weights, and whether it can run here.",
        example="resrt inspect resnest50.engine --layers",
    )
    add_engine(parser)
    parser.add_argument("--layers", action="store_true", help="also list the layers")
    parser.add_argument("--format", choices=["text", "json"], default="text")


def _run(options: argparse.Namespace) -> int:
    import resrt

    found = resrt.inspect(options.engine)
    if options.format == "json":
        print(json.dumps(found.document(), indent=2))
        return DONE
    rows = dict(_rows(found))
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")
    if options.layers:
        print(f"\n{found.info.layers}", end="")
    return DONE


def _rows(found: EngineFile) -> Iterator[tuple[str, str]]:
    info, steps = found.info, found.info.preprocessing
    channels, height, width = info.input_shape
    yield "file", f"{found.path}, {found.size / 1e6:.1f} MB"
    yield "network", f"{info.model}, {info.layers.splitlines()[-1].partition(': ')[2]}"
    yield (
        "input",
        f"float32 (N, {channels}, {height}, {width}), up to {info.max_batch} images at once",
    )
    yield "output", f"float32 (N, {info.classes})"
    yield "precision", info.precision
    yield "backend", f"{info.backend} {info.backend_version}"
    yield "runs here", "yes" if found.why_not is None else f"no: {found.why_not}"
    checksum = f", SHA-256 {info.weights_sha256}" if info.weights_sha256 else ""
    yield "weights", f"{info.weights or 'unnamed'}{checksum}"
    if steps.mean:
        yield (
            "preprocessing",
            f"as {steps.pipeline}: short side to {steps.resize}, {steps.interpolation}; crop "
            f"{height}x{width}; mean {_numbers(steps.mean)}, std {_numbers(steps.std)}",
        )
    else:
        yield "preprocessing", "none: requires prepared batches"
    yield "labels", _shown(info.labels)


def _numbers(values: list[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def _shown(labels: list[str]) -> str:
    if not labels:
        return "none"
    return f"{len(labels)}: {'; '.join(labels[:3])}{'; …' if len(labels) > 3 else ''}"
