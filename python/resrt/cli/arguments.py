"""The arguments that several commands share, and their exit statuses."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from resrt._core import precision_names
from resrt.errors import InputError

DONE, FAILED, MISUSED, SKIPPED = 0, 1, 2, 3

_SHARED: dict[str, dict[str, Any]] = {
    "engine": {"metavar": "ENGINE", "help": "an engine file, written by resrt build"},
    "network": {"metavar": "NAME", "help": "a network, as resrt models lists them"},
    "--weights": {
        "metavar": "FILE",
        "help": 'a weights file, or "random"; default: the pretrained weights, downloaded if '
        "needed",
    },
    "--input-size": {"type": int, "metavar": "N", "help": "height and width in pixels"},
    "--offline": {
        "action": "store_true",
        "help": "do not download anything; use only local weights",
    },
    "--labels": {"type": Path, "metavar": "FILE", "help": "names of the classes, one per line"},
    "--precision": {
        "default": "auto",
        "choices": precision_names(),
        "help": "default: %(default)s",
    },
    "--threads": {
        "type": int,
        "metavar": "N",
        "help": "processor threads; default: one per core",
    },
    "--workers": {"type": int, "metavar": "N", "help": "threads; default: one per core"},
    "--device": {
        "metavar": "GPU",
        "help": "the GPU to use, such as cuda:1; default: the first. Only for GPU backends",
    },
    "--format": {"choices": ["text", "json"], "default": "text"},
    "--resume": {
        "action": "store_true",
        "help": "process only the images that FILE has no record of",
    },
}

# The arguments of a command that takes a network by its name.
NETWORK = ("network", "--weights", "--input-size", "--offline")


def add_shared(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add shared arguments by their names, in this order."""
    for name in names:
        parser.add_argument(name, **_SHARED[name])


def check_resume(options: argparse.Namespace) -> None:
    """Raise InputError for --resume without the file of -o."""
    if options.resume and options.output is None:
        raise InputError("--resume requires the file to resume: name it with -o")
