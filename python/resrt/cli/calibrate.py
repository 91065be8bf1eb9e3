"""`resrt calibrate`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from resrt.cli.arguments import (
    DONE,
    INVALID_ARGUMENT,
    NETWORK,
    SKIPPED,
    add_preprocessing,
    add_shared,
    check_output,
    model,
    preprocessing,
)
from resrt.cli.tables import Column, show
from resrt.cli.terminal import waiting

if TYPE_CHECKING:
    from resrt import LayerSensitivity

SUMMARY = "measure what an int8 engine needs to know"
DESCRIPTION = (
    "Measures the ranges of a network's tensors on photographs, from which resrt build makes an "
    "engine with 8-bit integers for any backend. A few hundred photographs like those that the "
    "engine will see suffice. The file is JSON and can be edited."
)
EXAMPLE = "resrt calibrate ResNet50 --images photos/ -o ranges.json"
MISUSE = INVALID_ARGUMENT

_COLUMNS: list[Column[LayerSensitivity]] = [
    Column("layer", "layer", lambda one: one.layer),
    Column("snr", "SNR of the logits, dB", lambda one: one.snr, "{:.1f}".format),
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_shared(parser, *NETWORK)
    parser.add_argument(
        "--images", metavar="DIR", nargs="+", required=True, help="folders, files or patterns"
    )
    parser.add_argument("-o", "--output", metavar="FILE", required=True)
    add_shared(parser, "--overwrite", "--limit")
    parser.add_argument(
        "--method",
        default="mse",
        help="how ranges are estimated: minmax, percentile, entropy or mse; default: mse",
    )
    parser.add_argument(
        "--keep",
        nargs="+",
        default=[],
        metavar="LAYER",
        help="convolutions that stay in floating point, and additions whose inputs do",
    )
    parser.add_argument(
        "--analyse",
        action="store_true",
        help="also print what rounding each layer alone costs, on up to 32 of the images, the most "
        "harmful first",
    )
    add_shared(parser, "--classes", "--in-channels", "--key")
    add_preprocessing(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    import resrt

    network = model(options)
    check_output(options, options.output)
    described: dict[str, Any] = {
        "input_size": options.input_size,
        "classes": options.classes,
        "in_channels": options.in_channels,
        "preprocessing": preprocessing(options),
        "key": options.key,
    }
    with waiting("calibrating", quiet=options.quiet) as progress:
        found = resrt.calibrate(
            network,
            options.weights,
            options.images,
            method=options.method,
            limit=options.limit or 512,
            keep=options.keep,
            **described,
            progress=progress,
        )
    found.save(options.output)
    if not options.quiet:
        print(
            f"{found.network}: {len(found.ranges)} ranges from {found.images} images, by "
            f"{found.method}\n{options.output}"
        )
    if options.analyse:
        with waiting("analysing", quiet=options.quiet) as progress:
            costs = resrt.sensitivity(
                network,
                options.weights,
                options.images,
                calibration=found,
                **described,
                progress=progress,
            )
        show(costs, _COLUMNS, "table")
    return SKIPPED if found.skipped else DONE
