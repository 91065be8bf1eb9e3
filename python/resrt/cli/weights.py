"""`resrt weights`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from resrt.cli.arguments import DONE, FAILED, SKIPPED, add_shared
from resrt.cli.tables import print_json, printable
from resrt.cli.terminal import report_error

if TYPE_CHECKING:
    from resrt.weights import Description

SUMMARY = "describe a weights file"
DESCRIPTION = (
    "Prints the format of each file, its naming convention, the networks that it fits, and "
    "anything unusual about it. If some of several files cannot be read, the others are described, "
    "and the exit status is 3."
)
EXAMPLE = "resrt weights ResNeSt50_pretrained.pdparams"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--key", help="the entry of a checkpoint to describe, such as state_dict")
    add_shared(parser, "--format")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    import resrt

    found: dict[str, Description | dict[str, str]] = {}
    failed = 0
    for file in options.files:
        try:
            described = found[file] = resrt.weights.describe(
                resrt.weights.read(file, key=options.key)
            )
        except resrt.Error as error:
            if len(options.files) == 1:
                raise
            failed += 1
            found[file] = {"error": str(error)}
            report_error(str(error))
            continue
        if options.format == "text":
            print(f"{file}:")
            for name, value in _rows(described):
                print(f"  {name:<12} {value}")
    if options.format == "json":
        print_json(found)
    return FAILED if failed == len(found) else SKIPPED if failed else DONE


def _rows(found: Description) -> Iterator[tuple[str, str]]:
    yield "format", found.format
    yield "names", f"those of {found.convention}"
    yield (
        "content",
        f"{found.parameters:,} values in {found.arrays} arrays of {', '.join(found.dtypes)}",
    )
    fits = [match.network for match in found.matches if match.share == 1]
    if fits:
        yield "fits", ", ".join(fits)
    elif found.matches:
        nearest = found.matches[0]
        yield "nearest", f"{nearest.network}, with {nearest.share:.0%} of the parameters in common"
    else:
        yield "nearest", "no network of the catalog shares 80% of these parameters"
    if found.classes is not None:
        channels = "" if found.in_channels is None else f", {found.in_channels} input channels"
        yield "trained for", f"{found.classes} classes{channels}"
    for name, value in found.metadata.items():
        yield printable(name, 60), printable(value, 60)
    if found.left_aside:
        named = ", ".join(printable(name, 60) for name in found.left_aside[:5])
        yield "left aside", f"{named}{', ...' if len(found.left_aside) > 5 else ''}"
    for oddity in found.oddities:
        yield "odd", oddity
