"""`resrt completion`."""

from __future__ import annotations

import argparse

SUMMARY = "print a script that completes this command in a shell"
DESCRIPTION = (
    "Prints a script after which the shell completes commands, options, files and the names of "
    "networks. Source it in the shell's start-up file; for fish, write it to "
    "~/.config/fish/completions/resrt.fish."
)
EXAMPLE = "resrt completion bash"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("shell", choices=["bash", "zsh", "fish"])


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    import resrt

    print(resrt.completion(options.shell))
