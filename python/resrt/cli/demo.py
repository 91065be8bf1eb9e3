"""`resrt demo`."""

from __future__ import annotations

import argparse

from resrt.cli.arguments import add_shared

SUMMARY = "classify the handwritten digits that ship with resrt"
DESCRIPTION = (
    "Builds a small ResNeSt from layer definitions and trained weights, classifies held-out "
    "handwritten digits, and prints accuracy and latency."
)
EXAMPLE = "resrt demo --precision fp32"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_shared(parser, "--precision", "--threads")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    import resrt

    resrt.demo.demo(precision=options.precision, threads=options.threads)
