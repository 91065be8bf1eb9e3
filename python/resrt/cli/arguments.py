"""The arguments that several commands share, and their exit statuses."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import TypeAlias

from resrt._core import precision_names
from resrt.errors import InputError

DONE, FAILED, MISUSED, SKIPPED = 0, 1, 2, 3

TABLE_FORMATS = ("table", "json", "csv", "markdown")

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def common() -> argparse.ArgumentParser:
    """Return the options that are accepted before and after a command's name."""
    # No defaults here: those of the second parser would override what the first has read.
    parser = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    parser.add_argument("--quiet", action="store_true", help="print only results and errors")
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
    """Add a command. `run` gets the parsed options and returns the exit status."""
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
        help='a weights file, or "random"; default: the pretrained weights, downloaded if needed',
    )
    command.add_argument("--input-size", type=int, metavar="N", help="height and width in pixels")
    command.add_argument(
        "--offline",
        action=_Offline,
        nargs=0,
        default=False,
        help="do not download anything; use only local weights",
    )


class _Offline(argparse.Action):
    """Sets the environment variable that forbids downloads."""

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
        "--threads", type=int, metavar="N", help="processor threads; default: one per core"
    )


def add_device(command: argparse.ArgumentParser) -> None:
    """Add --device."""
    command.add_argument(
        "--device",
        metavar="GPU",
        help="the GPU to use, such as cuda:1; default: the first. Only for GPU backends",
    )


def add_table_format(command: argparse.ArgumentParser) -> None:
    """Add --format, with the formats that `resrt.cli.tables` writes."""
    command.add_argument(
        "--format",
        choices=TABLE_FORMATS,
        default="table",
        help="default: %(default)s, which is truncated to the width of a terminal",
    )


def add_engine(command: argparse.ArgumentParser) -> None:
    """Add the engine file, the first argument of a command."""
    command.add_argument("engine", metavar="ENGINE", help="an engine file, written by resrt build")


def add_resume(command: argparse.ArgumentParser) -> None:
    """Add --resume, for a command that writes records to the file of -o; see `check_resume`."""
    command.add_argument(
        "--resume", action="store_true", help="process only the images that FILE has no record of"
    )


def check_resume(options: argparse.Namespace) -> None:
    """Raise InputError if there is no file to resume."""
    if options.resume and options.output is None:
        raise InputError("--resume requires the file to resume: name it with -o")


def add_workers(command: argparse.ArgumentParser) -> None:
    """Add --workers."""
    command.add_argument("--workers", type=int, metavar="N", help="threads; default: one per core")
