"""The `resrt` command: parse arguments, call the public Python API, print. One module per command.

The modules import what a command needs only when it runs, so that help appears at once.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO, cast

from resrt._core import __version__
from resrt.cli import (
    build,
    calibrate,
    classify,
    compare,
    completion,
    convert,
    demo,
    doctor,
    embed,
    eval,
    export,
    inspect,
    models,
    report,
    time,
    triton,
    weights,
)
from resrt.cli.arguments import DONE, FAILED, MISUSED, Misuse
from resrt.cli.terminal import Output, report_error, warnings_shown
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
    calibrate,
    build,
    inspect,
    classify,
    embed,
    time,
    eval,
    compare,
    report,
    weights,
    convert,
    export,
    triton,
    completion,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status, one of those in `resrt.cli.arguments`."""
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - until the process ends
    if sys.stdout is None:
        report_error("standard output is closed; redirect it to a file")
        return FAILED
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file name may contain any bytes and is printed unchanged. A character that the
            # terminal cannot show must not be an error.
            is_unicode = stream.encoding.lower().startswith("utf")
            stream.reconfigure(errors="surrogateescape" if is_unicode else "replace")
    with contextlib.redirect_stdout(cast(TextIO, Output(sys.stdout))):
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> int:
    options = argparse.Namespace(debug=False, quiet=False)
    try:
        try:
            parser = _parser()
            if "_ARGCOMPLETE" in os.environ:  # set by the script of `resrt completion`
                import argcomplete

                argcomplete.autocomplete(parser)
            _, unknown = parser.parse_known_args(arguments, options)
            if unknown:  # `parse_args` would show the usage of resrt, not that of the command
                options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
            if getattr(options, "offline", False):
                os.environ["RESRT_OFFLINE"] = "1"
            with warnings_shown(quiet=options.quiet):
                status: int | None = options.run(options)
        finally:
            sys.stdout.flush()  # here, where a failure is reported
    except Error as error:
        if options.debug:
            raise
        report_error(str(error))
        return MISUSED if isinstance(error, getattr(options, "misuse", Misuse)) else FAILED
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    except MemoryError:
        if options.debug:
            raise
        report_error("this machine does not have enough memory for that")
        return FAILED
    return DONE if status is None else status


class _PrintCMakeDir(argparse.Action):
    """Like argparse's own "version", but computed only when needed."""

    def __init__(self, **options: Any) -> None:
        super().__init__(nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import resrt

        print(resrt.cmake_dir())
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    # These are accepted before and after a command's name. They have no defaults: those of the
    # command's parser would override what the first parser has read.
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--quiet", action="store_true", help="print only results and errors")
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = argparse.ArgumentParser(
        prog="resrt",
        description="ResNet, ResNeSt and RegNet classifiers as fast engines.",
        epilog="resrt COMMAND --help describes each command. Exit status: 0 success, 1 failure, "
        "2 usage error, 3 success except for some inputs that were skipped.",
        parents=[common],
    )
    parser.add_argument("--version", action="version", version=f"resrt {__version__}")
    parser.add_argument(
        "--cmake-dir",
        action=_PrintCMakeDir,
        help="print the folder of the CMake package for C++ programs and exit",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        subparser = commands.add_parser(
            command.__name__.rpartition(".")[2],
            help=command.SUMMARY,
            description=command.DESCRIPTION,
            epilog=f"example: {command.EXAMPLE}",
            parents=[common],
        )
        subparser.set_defaults(
            parser=subparser, run=command.run, misuse=getattr(command, "MISUSE", Misuse)
        )
        command.add_arguments(subparser)
    return parser
