"""`resrt report`."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from resrt._core import precision_names
from resrt.cli.arguments import INVALID_ARGUMENT, Misuse, add_shared, check_output, complete, count
from resrt.cli.terminal import report_error, stages, visible

if TYPE_CHECKING:
    from resrt.operations.report.entries import Entry

_QUICK = {"repeats": 3, "rounds": 1}

SUMMARY = "measure networks and plot accuracy and latency on a page"
DESCRIPTION = (
    "Measures the latencies of engine files, or of networks of the catalog with random weights, on "
    "this machine, and the time of their layers. Writes them as one self-contained HTML page of "
    "plots and tables, with the accuracies that --eval measures or that PaddleClas published."
)
EXAMPLE = "resrt report mine.engine other.engine --networks ResNet50 --eval imagenet/val"
MISUSE = INVALID_ARGUMENT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "engines", nargs="*", metavar="ENGINE", help="engine files; default: networks"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", default="report.html", help="default: %(default)s"
    )
    add_shared(parser, "--overwrite")
    networks = parser.add_argument(
        "--networks",
        nargs="+",
        metavar="PATTERN",
        help="networks of the catalog: names, or shell patterns such as 'ResNet50*'; default: if "
        "no engines are named, all with published figures",
    )
    complete(networks)
    parser.add_argument(
        "--batch", nargs="+", type=count, metavar="N", help="images per batch; default: 1 4 8"
    )
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=[name for name in precision_names() if name != "auto"],
        help="of the networks of the catalog; default: all that the processor supports natively",
    )
    parser.add_argument(
        "--rounds", type=count, metavar="N", help="how often everything is measured; default: 3"
    )
    parser.add_argument(
        "--repeats", type=count, metavar="N", help="timed inferences per round; default: 10"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one round of three inferences: a first look, not figures to quote",
    )
    add_shared(parser, "--threads")
    parser.add_argument(
        "--eval",
        dest="data",
        metavar="DATA",
        help="measure the accuracy of the engines on these labelled images: a folder with a "
        "subfolder for each class, or a list file, as for resrt eval",
    )
    parser.add_argument(
        "--limit", type=count, metavar="N", help="evaluate on N images, sampled evenly"
    )
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument(
        "--save-measurements", metavar="FILE", help="save the measurements after each network"
    )
    kept.add_argument(
        "--measurements",
        metavar="FILE",
        help="use saved measurements; an interrupted measurement is completed first",
    )


def _count(entries: Sequence[Entry]) -> str:
    engines = sum(entry.engine is not None for entry in entries)
    counts = {"engine": engines, "network": len(entries) - engines}
    return " and ".join(f"{n} {what}{'s' if n > 1 else ''}" for what, n in counts.items() if n)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    import resrt

    check_output(options, options.output)
    counts = {"repeats": options.repeats, "rounds": options.rounds}
    if options.quick:
        if options.rounds is not None or options.repeats is not None:
            raise Misuse("--quick is one round of three inferences; omit --rounds and --repeats")
        counts = dict(_QUICK)
    if options.data is None and options.limit is not None:
        raise Misuse("--limit is the number of images for --eval, which is missing")
    if options.data is not None and not options.engines and options.measurements is None:
        raise Misuse("--eval is for engine files, and none is named; networks have random weights")
    if options.precisions and options.engines and not options.networks:
        raise Misuse("--precisions is only for --networks; an engine has its own precision")
    kept = options.measurements or options.save_measurements
    try:
        with stages(quiet=options.quiet) as progress:
            measurements = resrt.report(
                options.output,
                networks=options.networks,
                engines=options.engines or None,
                data=options.data,
                limit=options.limit,
                batch_sizes=options.batch,
                precisions=options.precisions,
                threads=options.threads,
                measurements=options.measurements,
                save_measurements=options.save_measurements,
                progress=progress,
                **counts,
            )
    except KeyboardInterrupt:
        if kept and not options.quiet:
            if os.path.exists(kept):  # noqa: PTH110
                report_error(f"resume with: resrt report --measurements {shlex.quote(kept)}")
            else:
                report_error("no measurements were saved yet")
        raise
    if not options.quiet:
        settings = measurements.settings
        print(
            f"{visible(options.output)}: {_count(settings.entries)} in "
            f"{' and '.join(settings.precisions)} on {visible(measurements.machine.processor)}"
        )
        if busy := measurements.busy():
            print(busy)
