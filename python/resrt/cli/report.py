"""`resrt report`."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from resrt._core import precision_names
from resrt.cli.arguments import add_shared, check_output, count
from resrt.cli.terminal import report_error, stages

_QUICK = {"repeats": 3, "rounds": 1}

SUMMARY = "measure networks and plot accuracy and latency on a page"
DESCRIPTION = (
    "Measures the latencies of networks on this machine and writes them, with the accuracies and "
    "latencies that PaddleClas published, as one self-contained HTML page of plots and tables."
)
EXAMPLE = "resrt report --save-measurements report.json -o report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "-o", "--output", metavar="FILE", default="report.html", help="default: %(default)s"
    )
    add_shared(parser, "--overwrite")
    parser.add_argument(
        "--networks",
        nargs="+",
        metavar="PATTERN",
        help="names or shell patterns such as 'ResNet50*'; default: all with published figures",
    )
    parser.add_argument(
        "--batch", nargs="+", type=count, metavar="N", help="images per batch; default: 1 4 8"
    )
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=[name for name in precision_names() if name != "auto"],
        help="default: all that the processor supports natively",
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
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument(
        "--save-measurements", metavar="FILE", help="save the measurements after each network"
    )
    kept.add_argument(
        "--measurements",
        metavar="FILE",
        help="use saved measurements; an interrupted measurement is completed first",
    )


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    import resrt

    check_output(options, options.output)
    counts = {"repeats": options.repeats, "rounds": options.rounds}
    if options.quick:
        counts = {name: counts[name] or quick for name, quick in _QUICK.items()}
    kept = options.measurements or options.save_measurements
    try:
        with stages(quiet=options.quiet) as progress:
            measurements = resrt.report(
                options.output,
                networks=options.networks,
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
            if Path(kept).exists():
                report_error(f"resume with: resrt report --measurements {shlex.quote(kept)}")
            else:
                report_error("no measurements were saved yet")
        raise
    if not options.quiet:
        settings = measurements.settings
        count = len(settings.networks)
        print(
            f"{options.output}: {count} network{'s' if count > 1 else ''} in "
            f"{' and '.join(settings.precisions)} on {measurements.machine.processor}"
        )
        if busy := measurements.busy():
            print(busy)
