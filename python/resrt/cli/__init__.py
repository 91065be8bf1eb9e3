"""The `resrt` command: parse arguments, call the public Python API, print. One module per command.

The modules import what a command needs only when it runs, so that help appears at once.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, Protocol

from resrt._core import __version__
from resrt.cli import (
    build,
    classify,
    compare,
    convert,
    demo,
    doctor,
    eval,
    export,
    inspect,
    models,
    report,
    time,
    weights,
)
from resrt.cli.arguments import DONE, FAILED
from resrt.errors import Error


class _Command(Protocol):
    """A module that has the name of its command. `run` returns the exit status; None: DONE."""

    __name__: str
    SUMMARY: str
    DESCRIPTION: str
    EXAMPLE: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...
    def run(self, options: argparse.Namespace) -> int | None: ...


# In the order in which a user needs them.
_COMMANDS: tuple[_Command, ...] = (
    demo,
    doctor,
    models,
    build,
    inspect,
    classify,
    time,
    eval,
    compare,
    report,
    weights,
    convert,
    export,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status, one of those in `resrt.cli.arguments`."""
    options = _parser().parse_args(arguments)
    if getattr(options, "offline", False):
        os.environ["RESRT_OFFLINE"] = "1"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file name may contain any bytes and is printed unchanged. A character that the
            # terminal cannot show must not be an error.
            is_unicode = stream.encoding.lower().startswith("utf")
            stream.reconfigure(errors="surrogateescape" if is_unicode else "replace")
    try:
        status: int | None = options.run(options)
        sys.stdout.flush()  # here, where a closed pipe is handled
    except Error as error:
        if options.debug:
            raise
        print(f"resrt: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of the output has closed it. Nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return DONE if status is None else status


class _PrintCMakeDir(argparse.Action):
    """Like argparse's own "version", but computed only when needed."""

    def __init__(self, **options: Any) -> None:
        super().__init__(nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import resrt

        print(resrt.cmake_dir())
        parser.exit()


def _common() -> argparse.ArgumentParser:
    """Return the options that are accepted before and after a command's name."""
    # No defaults here: those of the second parser would override what the first has read.
    parser = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    parser.add_argument("--quiet", action="store_true", help="print only results and errors")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="resrt",
        description="ResNet, ResNeSt and RegNet classifiers as fast engines.",
        epilog="resrt COMMAND --help describes each command. Exit status: 0 success, 1 failure, "
        "2 usage error, 3 success except for some inputs that were skipped.",
        parents=[_common()],
    )
    parser.add_argument("--version", action="version", version=f"resrt {__version__}")
    parser.add_argument(
        "--cmake-dir",
        action=_PrintCMakeDir,
        help="print the folder of the CMake package for C++ programs and exit",
    )
    parser.set_defaults(debug=False, quiet=False)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        subparser = commands.add_parser(
            command.__name__.rpartition(".")[2],
            help=command.SUMMARY,
            description=command.DESCRIPTION,
            epilog=f"example: {command.EXAMPLE}",
            parents=[_common()],
        )
        subparser.set_defaults(run=command.run)
        command.add_arguments(subparser)
    return parser
