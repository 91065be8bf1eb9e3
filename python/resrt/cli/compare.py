"""`resrt compare`."""

from __future__ import annotations

import argparse
import dataclasses
import json

from resrt.cli.arguments import (
    DONE,
    SKIPPED,
    Commands,
    add_command,
    add_network,
    add_precision,
    add_threads,
)
from resrt.cli.terminal import steps


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "compare",
        _run,
        summary="time a network in resrt and in other libraries",
        description="Times a network in resrt and in those of OpenVINO, ONNX Runtime, PyTorch and "
        "Paddle that are installed, with the same weights, images and number of threads, in turn. "
        "Prints the latency of each, the ratio of resrt's latency to it (median and quartiles of "
        "the rounds), and the difference of the logits. Exit status 3: one of them failed.",
        example="resrt compare ResNeSt50 --weights random --batch 1 8 --with openvino,onnxruntime",
    )
    add_network(parser)
    parser.add_argument(
        "--batch",
        type=int,
        nargs="+",
        default=[1, 8],
        metavar="N",
        help="images per batch; default: 1 8",
    )
    add_precision(parser)
    add_threads(parser)
    parser.add_argument("--rounds", type=int, default=30, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--with",
        dest="competitors",
        type=lambda text: text.split(","),
        metavar="NAMES",
        help="comma-separated: openvino, onnxruntime, torch, torch-compile, paddle; default: those "
        "that are installed",
    )
    parser.add_argument("--format", choices=["text", "json"], default="text")


def _run(options: argparse.Namespace) -> int:
    import resrt

    with steps(quiet=options.quiet) as progress:
        comparison = resrt.compare(
            options.network,
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
        print(json.dumps(dataclasses.asdict(comparison), indent=2, ensure_ascii=False))
    else:
        print(comparison)
    return SKIPPED if any(row.error for row in comparison.measurements) else DONE
