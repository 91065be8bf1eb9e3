"""What the inference libraries say, as messages of Python's `logging`."""

from __future__ import annotations

import atexit
import logging

from resrt import _core


def forward() -> None:
    """Hand the libraries' messages to the loggers "resrt.<backend>".

    They are silent until the program sets up logging: what fails is raised besides.
    """
    logging.getLogger("resrt").addHandler(logging.NullHandler())
    _core.set_log(_log)
    # A library's thread must not enter an interpreter that is being taken down.
    atexit.register(_core.set_log, None)


def _log(level: int, backend: str, message: str) -> None:
    logging.getLogger(f"resrt.{backend}").log(level, "%s", message)
