"""`resrt compare`."""

from __future__ import annotations

import argparse

from resrt.cli.arguments import (
    DONE,
    INVALID_ARGUMENT,
    NETWORK,
    SKIPPED,
    Misuse,
    add_shared,
    count,
    model,
)
from resrt.cli.tables import print_json
from resrt.cli.terminal import steps

SUMMARY = "time a network in resrt and in other libraries"
DESCRIPTION = (
    "Times a network in resrt and in those of OpenVINO, ONNX Runtime, PyTorch and Paddle that are "
    "installed, with the same weights, images and number of threads, in turn. Prints the latency "
    "of each, the ratio of resrt's latency to it (median and quartiles of the rounds), and the "
    "difference of the logits. Exit status 3: one of them failed."
)
EXAMPLE = "resrt compare ResNeSt50 --weights random --batch 1 8 --with openvino,onnxruntime"
MISUSE = INVALID_ARGUMENT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_shared(parser, *NETWORK)
    parser.add_argument(
        "--batch",
        type=count,
        nargs="+",
        default=[1, 8],
        metavar="N",
        help="images per batch; default: 1 8",
    )
    add_shared(parser, "--precision", "--threads")
    parser.add_argument(
        "--rounds", type=count, default=30, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--with",
        dest="competitors",
        type=lambda text: text.split(","),
        metavar="NAMES",
        help="comma-separated: openvino, onnxruntime, torch, torch-compile, paddle; default: those "
        "that are installed",
    )
    add_shared(parser, "--format")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    import resrt

    for name in options.competitors or ():
        if name not in resrt.COMPETITORS:
            expected = ", ".join(resrt.COMPETITORS)
            raise Misuse(f"unknown competitor {name!r}; expected one of {expected}")
    network = model(options)
    with steps(quiet=options.quiet) as progress:
        comparison = resrt.compare(
            network,
            options.weights,
            batch_sizes=options.batch,
            precision=options.precision,
            threads=options.threads,
            rounds=options.rounds,
            competitors=options.competitors,
            input_size=options.input_size,
            progress=progress,
        )
    if options.format == "json":
        print_json(comparison)
    else:
        print(comparison)
    return SKIPPED if any(row.error for row in comparison.measurements) else DONE
