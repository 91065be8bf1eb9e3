"""`resrt eval`."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from resrt.cli.arguments import (
    DONE,
    SKIPPED,
    Misuse,
    add_ray,
    add_records,
    add_shared,
    check_records,
    loaded,
)
from resrt.cli.tables import print_json
from resrt.cli.terminal import progress, report_number_skipped, report_skipped

if TYPE_CHECKING:
    from resrt import Evaluation, Rank

SUMMARY = "measure accuracy on labelled photographs"
DESCRIPTION = (
    "Measures top-1 and top-5 accuracy, with 95% confidence intervals, and prints the published "
    "accuracies. Every image is decoded, resized and cropped as the weights require."
)
EXAMPLE = "resrt eval resnest50.engine imagenet/val"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_shared(parser, "engine")
    parser.add_argument(
        "data",
        metavar="DATA",
        help='a folder with a subfolder of images for each class, or a list file with a line "path '
        'number" for each image',
    )
    parser.add_argument(
        "--root",
        metavar="DIR",
        help="the folder to which a list's paths are relative; default: its own",
    )
    add_shared(parser, "--limit")
    add_records(parser, help="write each image's rank, as JSON")
    add_shared(parser, "--format", "--workers", "--device")
    add_ray(parser, "evaluate images that all nodes see")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    import resrt

    check_records(options)
    if options.root is not None and Path(options.data).is_dir():
        raise Misuse("--root is only for a list file; the images of a folder are in the folder")
    engine = loaded(options)
    listed = resrt.labelled_images(options.data, engine, root=options.root, limit=options.limit)
    records = None
    if options.output is not None:
        records = resrt.records.RecordFile(
            options.output,
            resrt.records.JsonRanks(),
            resume=options.resume,
            overwrite=options.overwrite,
            made_by=resrt.records.made_by(
                engine,
                limit=options.limit,
                data=str(Path(options.data).absolute()),
                root=None if options.root is None else str(Path(options.root).absolute()),
                **resrt.records.listing(listed),
            ),
        )
    known = records.known if records else []
    with (
        records or contextlib.nullcontext(),
        progress("evaluating", len(listed), quiet=options.quiet, done=len(known)) as advance,
    ):

        def each(rank: Rank) -> None:
            if records:
                records.write(rank)
            advance()

        found = resrt.eval(
            engine, listed, workers=options.workers, ray=options.ray, known=known, each=each
        )
    for skipped in found.skipped:
        report_skipped(skipped.error or "")
    report_number_skipped(len(found.skipped), found.total + len(found.skipped))
    if options.format == "json":
        print_json(found)
    else:
        _print(found)
    return SKIPPED if found.skipped else DONE


def _print(found: Evaluation) -> None:
    images = f"{found.total} image{'' if found.total == 1 else 's'}"
    print(f"{found.model} on {images}, with 95% confidence intervals:")
    for name, accuracy, published in (
        ("top-1", found.top1, found.published_top1),
        ("top-5", found.top5, found.published_top5),
    ):
        suffix = "" if published is None else f", published {published:.2%}"
        print(f"  {name}  {accuracy}{suffix}")
