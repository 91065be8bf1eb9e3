"""Measure how long Python, `import resrt`, some commands, and loading an engine take.

    python benchmarks/startup.py [--network ResNet50]

Every run is a new process of Python.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from pathlib import Path

import resrt
from resrt.measuring.rounds import Spread
from shared import in_turns, parser, report


def main() -> None:
    arguments = parser(__doc__, rounds=20)
    arguments.add_argument("--network", default="ResNet50", help="default: %(default)s")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.engine"
        resrt.build(options.network, "random").save(file)
        commands = {
            "python": ("-c", "pass"),
            "import resrt": ("-c", "import resrt"),
            "resrt --help": ("-m", "resrt", "--help"),
            "resrt models": ("-m", "resrt", "models"),
            f"load {options.network}, as resrt classify does": (
                *("-c", "import resrt, sys; resrt.load(sys.argv[1], threads=1)", file),
            ),
        }
        runs = {name: functools.partial(run, *command) for name, command in commands.items()}
        seconds = in_turns(runs, options.rounds, warm_up=0)
    results = {f"{name} (s)": Spread.of(taken) for name, taken in seconds.items()}
    report(options, "processes of Python", results)


def run(*command: str | Path) -> None:
    subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    main()
