"""`resrt convert`."""

from __future__ import annotations

import argparse

from resrt.cli.arguments import (
    INVALID_ARGUMENT,
    add_preprocessing,
    add_shared,
    check_output,
    complete,
    preprocessing,
)
from resrt.cli.tables import printable

SUMMARY = "write weights as a safetensors file that loads directly"
DESCRIPTION = (
    "Writes weights of any supported format as a safetensors file with the network's parameter "
    "names, preprocessing, input size and labels."
)
EXAMPLE = "resrt convert ResNet50_pretrained.pdparams resnet50.safetensors"
MISUSE = INVALID_ARGUMENT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("source", metavar="IN")
    parser.add_argument("destination", metavar="OUT.safetensors")
    network = parser.add_argument(
        "--network", help="the network that the weights belong to; default: the one that they fit"
    )
    complete(network)
    parser.add_argument("--key", help="the entry of a checkpoint to convert, such as state_dict")
    add_shared(parser, "--overwrite", "--input-size", "--labels")
    add_preprocessing(parser)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    import resrt

    check_output(options, options.destination)
    names = resrt.labels.read(options.labels) if options.labels else None
    metadata = resrt.convert(
        options.source,
        options.destination,
        network=options.network,
        names=names,
        key=options.key,
        input_size=options.input_size,
        preprocessing=preprocessing(options),
    )
    if not options.quiet:
        for name, value in metadata.items():
            print(f"{name:<14} {printable(value, 200)}")
