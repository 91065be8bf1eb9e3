"""`resrt convert`."""

from __future__ import annotations

import argparse

from resrt.cli.arguments import DONE, Commands, add_command


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "convert",
        _run,
        summary="write weights as a safetensors file that loads directly",
        description="Writes weights of any supported format as a safetensors file with the "
        "network's parameter names, preprocessing, input size and labels.",
        example="resrt convert ResNet50_pretrained.pdparams resnet50.safetensors",
    )
    parser.add_argument("source", metavar="IN")
    parser.add_argument("destination", metavar="OUT.safetensors")
    parser.add_argument(
        "--network", help="the network that the weights belong to; default: the one that they fit"
    )
    parser.add_argument("--labels", metavar="FILE", help="names of the classes, one per line")


def _run(options: argparse.Namespace) -> int:
    import resrt

    names = resrt.labels.read(options.labels) if options.labels else None
    metadata = resrt.convert(
        options.source, options.destination, network=options.network, names=names
    )
    if not options.quiet:
        for name, value in metadata.items():
            print(f"{name:<14} {value if len(value) <= 80 else f'{value[:80]}…'}")
    return DONE
