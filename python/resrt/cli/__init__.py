"""The `resrt` command: parses, calls the Python API, prints. Each command has a module here.

The modules import what their commands need only when these run: help must come at once.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from resrt._core import Error, __version__
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
from resrt.cli.arguments import FAILED, common

# In the order in which a user meets them.
_COMMANDS = (
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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file's name may be of any bytes, and is printed as it is. What a terminal cannot
            # show at all, such as a tick in ASCII, is no reason to fail.
            is_unicode = stream.encoding.lower().startswith("utf")
            stream.reconfigure(errors="surrogateescape" if is_unicode else "replace")
    try:
        status: int = options.run(options)
        sys.stdout.flush()  # here, where it is handled that nobody may read it
    except Error as error:
        if options.debug:
            raise
        print(f"resrt: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read the output has seen enough. Nothing more can be written, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="resrt",
        description="ResNet, ResNeSt and RegNet classifiers as fast engines.",
        epilog="resrt COMMAND --help says more of each. Exit status: 0 done, 1 failed, 2 misused, "
        "3 done but for some inputs that were skipped.",
        parents=[common()],
    )
    parser.add_argument("--version", action="version", version=f"resrt {__version__}")
    parser.set_defaults(debug=False, quiet=False)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
    return parser
