"""`resrt classify`."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable
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
    count,
    fraction,
    image_paths,
    loaded,
)
from resrt.cli.terminal import progress, report_number_skipped, report_skipped, visible, waiting
from resrt.errors import FileError

if TYPE_CHECKING:
    from resrt import Classification, Engine, records

SUMMARY = "classify photographs"
DESCRIPTION = (
    "Classifies image files on all cores. Each is decoded, resized and cropped as the engine's "
    "weights require. Unreadable files are reported and skipped, and the exit status is 3."
)
EXAMPLE = "resrt classify resnest50.engine photos/ --format csv -o classes.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_shared(parser, "engine", "images")
    parser.add_argument(
        "-k",
        "--topk",
        type=count,
        default=5,
        metavar="K",
        help="classes per image; default: %(default)s",
    )
    parser.add_argument(
        "--format",
        choices=["text", "json", "csv"],
        default="text",
        help="json: one object per line; csv: one row per image; default: %(default)s",
    )
    add_shared(parser, "--multilabel")
    parser.add_argument(
        "--threshold", type=fraction, metavar="P", help="omit classes that are less probable"
    )
    parser.add_argument(
        "--explain",
        metavar="DIR",
        help="write pictures of where the best class was found to this folder; the engine must be "
        "built with --outputs logits cam",
    )
    add_records(parser, help="default: standard output")
    add_shared(parser, "--exact", "--workers", "--device")
    add_ray(
        parser,
        "classify files that all nodes see, or in an object store (s3://bucket/folder), and write "
        "Parquet files to the folder of -o,",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    import resrt

    if options.ray is not None:
        return _run_on_cluster(options)
    if options.explain is None or not options.overwrite:
        check_records(options)
    if options.explain is not None and not (options.overwrite or options.resume):
        _check_pictures(Path(options.explain))
    if options.output is not None and options.format == "text":
        raise Misuse("-o requires --format json or csv")
    files = resrt.find_images(image_paths(options))
    engine = loaded(options)
    with contextlib.ExitStack() as opened:
        return _classify(options, files, engine, opened)


def _classify(
    options: argparse.Namespace, files: list[str], engine: Engine, opened: contextlib.ExitStack
) -> int:
    import resrt

    known: list[Classification] = []
    if options.output is None:
        write = _printer(options)
    else:
        records = resrt.records.RecordFile(
            options.output,
            _format(options),
            resume=options.resume,
            overwrite=options.overwrite,
            made_by=resrt.records.made_by(
                engine,
                topk=options.topk,
                multilabel=options.multilabel,
                threshold=options.threshold,
                exact=options.exact,
                folder=resrt.records.folder_of(files),
            ),
        )
        opened.enter_context(records)
        known, write = records.known, records.write
    skipped = sum(map(_report, known))
    finished = {record.image for record in known}
    rest = [file for file in files if file not in finished]
    found = resrt.classify(
        engine,
        rest,
        topk=options.topk,
        multilabel=options.multilabel,
        threshold=options.threshold,
        explain=options.explain,
        exact=options.exact,
        workers=options.workers,
    )
    # Results on the terminal show the progress themselves.
    quiet = options.quiet or (options.output is None and sys.stdout.isatty())
    done = len(files) - len(rest)
    with progress("classifying", len(files), quiet=quiet, done=done) as advance:
        for record in found:
            write(record)
            skipped += _report(record)
            advance()
    report_number_skipped(skipped, len(known) + len(rest))
    return SKIPPED if skipped else DONE


def _run_on_cluster(options: argparse.Namespace) -> int:
    import resrt

    check_records(options)
    if options.multilabel or options.threshold is not None or options.explain is not None:
        raise Misuse("--ray does not support --multilabel, --threshold and --explain")
    if options.output is None or options.format != "text":
        raise Misuse("--ray requires a folder in -o, and writes only Parquet, without --format")
    if options.device is not None:
        raise Misuse("--ray lets Ray choose the GPUs, without --device")
    paths = list(image_paths(options))
    with waiting("classifying", quiet=options.quiet) as show:
        skipped = resrt.classify_on_cluster(
            options.engine,
            paths,
            options.output,
            address=options.ray,
            topk=options.topk,
            exact=options.exact,
            workers=options.workers,
            resume=options.resume,
            overwrite=options.overwrite,
            progress=show,
        )
    for error in skipped:
        report_skipped(error)
    return SKIPPED if skipped else DONE


def _check_pictures(folder: Path) -> None:
    """Raise FileError for a folder with files, which the pictures might replace."""
    try:
        is_empty = next(folder.iterdir(), None) is None
    except FileNotFoundError:
        is_empty = True
    except OSError as error:
        raise FileError(f"cannot write to the folder '{folder}': {error.strerror}") from None
    if not is_empty:
        raise FileError(
            f"the folder '{folder}' is not empty; name another folder, or replace the pictures in "
            "it with --overwrite"
        )


def _report(record: Classification) -> bool:
    if record.error is not None:
        report_skipped(record.error)
    return record.error is not None


def _format(options: argparse.Namespace) -> records.Format:
    from resrt import records

    if options.format == "csv":
        return records.CsvClassifications(options.topk)
    return records.JsonClassifications()


def _printer(options: argparse.Namespace) -> Callable[[Classification], None]:
    if options.format == "text":
        return _print
    format_ = _format(options)
    print(format_.header, end="")
    return lambda record: print(format_.line(record), end="", flush=True)


def _print(record: Classification) -> None:
    # A line break in a name must not look like another result.
    shown = visible if sys.stdout.isatty() else str
    if record.error is None:
        print(shown(record.image))
        for prediction in record.predictions:
            print(f"  {prediction.probability:6.2%}  {shown(prediction.label)}", flush=True)
