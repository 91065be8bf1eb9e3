"""`resrt build`."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from resrt.cli.arguments import DONE, Commands, add_command, add_precision


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "build",
        _run,
        summary="build an engine file",
        description="Builds an engine from a network's layer definitions and its weights, and "
        "writes it to a file.",
        example="resrt build ResNeSt50 -o resnest50.engine",
    )
    parser.add_argument("network", metavar="NAME", help="a network, as resrt models lists them")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help='a weights file, or "random"; default: the pretrained ones, downloaded if need be',
    )
    parser.add_argument("-o", "--output", metavar="FILE", required=True)
    add_precision(parser)
    parser.add_argument("--max-batch", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--input-size", type=int, help="height and width in pixels")
    parser.add_argument("--labels", metavar="FILE", help="names of the classes, one per line")
    parser.add_argument("--offline", action="store_true", help="use no network")


def _run(options: argparse.Namespace) -> int:
    import resrt

    if options.offline:
        os.environ["RESRT_OFFLINE"] = "1"
    start = time.perf_counter()
    engine = resrt.build(
        options.network,
        options.weights,
        precision=options.precision,
        max_batch=options.max_batch,
        input_size=options.input_size,
        labels=None if options.labels is None else Path(options.labels),
    )
    engine.save(options.output)
    size = Path(options.output).stat().st_size / 1e6
    if not options.quiet:
        print(f"{engine}\n{options.output}: {size:.1f} MB in {time.perf_counter() - start:.1f} s")
    return DONE
