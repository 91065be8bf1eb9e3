"""`resrt eval`."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resrt.cli.arguments import (
    DONE,
    SKIPPED,
    Misuse,
    add_ray,
    add_records,
    add_shared,
    check_records,
    fraction,
    loaded,
)
from resrt.cli.tables import print_json
from resrt.cli.terminal import progress, report_number_skipped, report_skipped

if TYPE_CHECKING:
    from resrt import Engine, Evaluation, MultilabelEvaluation, Rank, Scores, records

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
        'number" for each image; with --multilabel, lines "path number number ..."',
    )
    parser.add_argument(
        "--root",
        metavar="DIR",
        help="the folder to which a list's paths are relative; default: its own",
    )
    add_shared(parser, "--limit", "--multilabel")
    parser.add_argument(
        "--threshold",
        type=fraction,
        metavar="P",
        help="with --multilabel: the probability from which a class counts as found; default: 0.5",
    )
    add_records(parser, help="write each image's rank or probabilities, as JSON")
    add_shared(parser, "--format", "--workers", "--device")
    add_ray(parser, "evaluate images that all nodes see")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    import resrt

    check_records(options)
    if options.root is not None and os.path.isdir(options.data):  # noqa: PTH112
        raise Misuse("--root is only for a list file; the images of a folder are in the folder")
    if options.threshold is not None and not options.multilabel:
        raise Misuse("--threshold requires --multilabel")
    if options.ray is not None and options.multilabel:
        raise Misuse("--ray does not support --multilabel")
    engine = loaded(options)
    listed: Sequence[Any]
    form: records.Format
    evaluate: Callable[..., Any]
    show: Callable[[Any], None]
    if options.multilabel:
        listed = resrt.multilabelled_images(
            options.data, engine, root=options.root, limit=options.limit
        )
        form, show = resrt.records.JsonScores(), _print_multilabel
        threshold = 0.5 if options.threshold is None else options.threshold
        evaluate = functools.partial(resrt.eval, multilabel=True, threshold=threshold)
    else:
        listed = resrt.labelled_images(options.data, engine, root=options.root, limit=options.limit)
        form, show = resrt.records.JsonRanks(), _print
        evaluate = functools.partial(resrt.eval, ray=options.ray)
    output = _records(options, engine, form, listed)
    known = output.known if output else []
    with (
        output or contextlib.nullcontext(),
        progress("evaluating", len(listed), quiet=options.quiet, done=len(known)) as advance,
    ):

        def each(record: Rank | Scores) -> None:
            if output:
                output.write(record)
            advance()

        found: Any = evaluate(engine, listed, workers=options.workers, known=known, each=each)
    for skipped in found.skipped:
        report_skipped(skipped.error or "")
    report_number_skipped(len(found.skipped), found.total + len(found.skipped))
    if options.format == "json":
        print_json(found)
    else:
        show(found)
    return SKIPPED if found.skipped else DONE


def _records(
    options: argparse.Namespace, engine: Engine, form: records.Format, listed: Sequence[Any]
) -> records.RecordFile | None:
    import resrt

    if options.output is None:
        return None
    return resrt.records.RecordFile(
        options.output,
        form,
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


def _images(found: Evaluation | MultilabelEvaluation) -> str:
    return f"{found.model} on {found.total} image{'' if found.total == 1 else 's'}"


def _print(found: Evaluation) -> None:
    print(f"{_images(found)}, with 95% confidence intervals:")
    for name, accuracy, published in (
        ("top-1", found.top1, found.published_top1),
        ("top-5", found.top5, found.published_top5),
    ):
        suffix = "" if published is None else f", published {published:.2%}"
        print(f"  {name}  {accuracy}{suffix}")


def _print_multilabel(found: MultilabelEvaluation) -> None:
    print(
        f"{_images(found)} of {found.classes} classes:\n"
        f"  mean average precision  {found.mean_average_precision:.2%}\n"
        f"  at a probability of {found.threshold:g}: precision {found.precision:.2%}, recall "
        f"{found.recall:.2%}, F1 {found.f1:.2%}"
    )
