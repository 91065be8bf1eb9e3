"""`resrt embed`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from resrt.cli.arguments import DONE, SKIPPED, Misuse, add_records, add_shared, image_paths, loaded
from resrt.cli.terminal import progress, report_skipped

if TYPE_CHECKING:
    from resrt import Embedding

SUMMARY = "compute the features of photographs"
DESCRIPTION = (
    "Writes what the network's classifier reads of each image, for search, clustering and linear "
    "probes. The engine must be built with --outputs features. FILE.npy has a row for each image, "
    "and FILE.npy.jsonl names them; FILE.parquet has both. Unreadable files are reported and "
    "skipped, and the exit status is 3."
)
EXAMPLE = "resrt embed features.engine photos/ -o features.npy"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_shared(parser, "engine", "images")
    add_records(parser, required=True, help="an .npy or .parquet file")
    add_shared(parser, "--limit", "--exact", "--workers", "--device")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    import resrt

    if Path(options.output).suffix not in (".npy", ".parquet"):
        raise Misuse(f"-o must name a .npy or .parquet file, not '{options.output}'")
    files = resrt.find_images(image_paths(options), limit=options.limit)
    engine = loaded(options)
    with resrt.open_features(
        options.output,
        engine,
        resume=options.resume,
        overwrite=options.overwrite,
        exact=options.exact,
        folder=resrt.records.folder_of(files),
    ) as output:
        skipped, total = sum(map(_report, output.known)), len(output.known)
        finished = {one.image for one in output.known}
        rest = [file for file in files if file not in finished]
        found = resrt.embed(engine, rest, exact=options.exact, workers=options.workers)
        done = len(files) - len(rest)
        with progress("embedding", len(files), quiet=options.quiet, done=done) as advance:
            for one in found:
                output.write(one)
                skipped, total = skipped + _report(one), total + 1
                advance()
    if not options.quiet:
        (channels,) = engine.info.outputs["features"]
        embedded = total - skipped
        print(
            f"{options.output}: {channels} features of {embedded} "
            f"image{'' if embedded == 1 else 's'}{f', {skipped} skipped' if skipped else ''}"
        )
    return SKIPPED if skipped else DONE


def _report(one: Embedding) -> bool:
    if one.error is not None:
        report_skipped(one.error)
    return one.error is not None
