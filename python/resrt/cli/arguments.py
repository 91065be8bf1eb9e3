"""What the commands' arguments have in common, and the statuses that they end with."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import TypeAlias

from resrt._core import InputError, precision_names

DONE, FAILED, MISUSED, SKIPPED = 0, 1, 2, 3

TABLE_FORMATS = ("table", "json", "csv", "markdown")

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def common() -> argparse.ArgumentParser:
    """Return the options that may stand before a command's name and after it."""
    # No defaults here: those of the second parser would undo what the first has read.
    parser = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    parser.add_argument("--quiet", action="store_true", help="print results and errors only")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    summary: str,
    description: str,
    example: str,
) -> argparse.ArgumentParser:
    """Add a command, which is `run` with the parsed options and returns its exit status."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"example: {example}",
        parents=[common()],
    )
    parser.set_defaults(run=run)
    return parser


def add_network(command: argparse.ArgumentParser) -> None:
    """Add a network's NAME, --weights, --input-size and --offline."""
    command.add_argument("network", metavar="NAME", help="a network, as resrt models lists them")
    command.add_argument(
        "--weights",
        metavar="FILE",
        help='a weights file, or "random"; default: the pretrained ones, downloaded if need be',
    )
    command.add_argument("--input-size", type=int, metavar="N", help="height and width in pixels")
    command.add_argument(
        "--offline",
        action=_Offline,
        nargs=0,
        default=False,
        help="use no network, and only weights that are here",
    )


class _Offline(argparse.Action):
    """Says so to whatever fetches weights."""

    def __call__(self, *_: object) -> None:
        os.environ["RESRT_OFFLINE"] = "1"


def add_precision(command: argparse.ArgumentParser) -> None:
    """Add --precision."""
    command.add_argument(
        "--precision", default="auto", choices=precision_names(), help="default: %(default)s"
    )


def add_threads(command: argparse.ArgumentParser) -> None:
    """Add --threads."""
    command.add_argument(
        "--threads", type=int, metavar="N", help="processor threads; default: one for each core"
    )


def add_device(command: argparse.ArgumentParser) -> None:
    """Add --device."""
    command.add_argument(
        "--device",
        metavar="GPU",
        help="for a backend that runs on one: cuda:1; default: the first",
    )


def add_table_format(command: argparse.ArgumentParser) -> None:
    """Add --format, one of those that `resrt.cli.tables` writes."""
    command.add_argument(
        "--format",
        choices=TABLE_FORMATS,
        default="table",
        help="default: %(default)s, which is cut where a terminal is too narrow for it",
    )


def add_engine(command: argparse.ArgumentParser) -> None:
    """Add the engine's file, the first of a command's arguments."""
    command.add_argument("engine", metavar="ENGINE", help="an engine file, of resrt build")


def add_resume(command: argparse.ArgumentParser) -> None:
    """Add --resume, for a command that writes records to what -o names; see `check_resume`."""
    command.add_argument(
        "--resume", action="store_true", help="go on with the images that FILE has no record of"
    )


def check_resume(options: argparse.Namespace) -> None:
    """Raise InputError where there is no file to go on with."""
    if options.resume and options.output is None:
        raise InputError("--resume needs the file to go on with: give it by -o")


def add_workers(command: argparse.ArgumentParser) -> None:
    """Add --workers."""
    command.add_argument(
        "--workers", type=int, metavar="N", help="threads; default: one for each core"
    )
