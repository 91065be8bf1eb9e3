"""The `resrt` command: parses, calls the Python API, prints."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import resrt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0 done, 1 failed, 2 misused."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except resrt.Error as error:
        if options.debug:
            raise
        print(f"resrt: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="resrt", description="ResNet, ResNeSt and RegNet classifiers as fast engines."
    )
    parser.add_argument("--version", action="version", version=f"resrt {resrt.__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="classify handwritten digits that ship with resrt",
        description="Builds a small ResNeSt from layer definitions and trained weights, classifies "
        "held-out handwritten digits, and prints accuracy and latency.",
    )
    demo.add_argument(
        "--precision", default="auto", choices=resrt.PRECISIONS, help="default: %(default)s"
    )
    demo.add_argument("--threads", type=int, help="processor threads; default: one for each core")
    demo.set_defaults(run=_demo)
    return parser


def _demo(options: argparse.Namespace) -> int:
    from resrt.demo import demo

    demo(precision=options.precision, threads=options.threads)
    return 0
