"""`resrt demo`."""

from __future__ import annotations

import argparse

from resrt.cli.arguments import DONE, Commands, add_command, add_precision, add_threads


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "demo",
        _run,
        summary="classify the handwritten digits that ship with resrt",
        description="Builds a small ResNeSt from layer definitions and trained weights, classifies "
        "held-out handwritten digits, and prints accuracy and latency.",
        example="resrt demo --precision fp32",
    )
    add_precision(parser)
    add_threads(parser)


def _run(options: argparse.Namespace) -> int:
    import resrt

    resrt.demo.demo(precision=options.precision, threads=options.threads)
    return DONE
