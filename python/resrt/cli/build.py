"""`resrt build`."""

from __future__ import annotations

import argparse
from pathlib import Path

from resrt.cli.arguments import DONE, Commands, add_command, add_network, add_precision
from resrt.cli.terminal import waiting


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
    add_network(parser)
    parser.add_argument("-o", "--output", metavar="FILE", required=True)
    add_precision(parser)
    parser.add_argument("--max-batch", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--labels", metavar="FILE", help="names of the classes, one per line")
    parser.add_argument(
        "--no-cache", action="store_true", help="build anew, and keep no copy for the next time"
    )


def _run(options: argparse.Namespace) -> int:
    from resrt.engine_cache import build_file

    with waiting(f"building {options.network}", quiet=options.quiet):
        built = build_file(
            options.network,
            options.output,
            options.weights,
            cache=not options.no_cache,
            precision=options.precision,
            max_batch=options.max_batch,
            input_size=options.input_size,
            labels=None if options.labels is None else Path(options.labels),
        )
    if not options.quiet:
        info = built.info
        shape = "x".join(map(str, info.input_shape))
        print(
            f"{info.model}: {shape} -> {info.classes} classes, {info.precision} on {info.backend} "
            f"{info.backend_version}, max_batch {info.max_batch}\n"
            f"{built.path}: {built.size / 1e6:.1f} MB in {built.seconds:.1f} s"
            f"{', from the cache' if built.from_cache else ''}"
        )
    return DONE
