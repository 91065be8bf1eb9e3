"""The messages of the inference libraries, as messages of Python's `logging`."""

from __future__ import annotations

import atexit
import logging

from resrt import _core


def forward() -> None:
    """Forward the libraries' messages to the loggers "resrt.<backend>".

    They are silent until the program configures logging; failures are raised in any case.
    """
    logging.getLogger("resrt").addHandler(logging.NullHandler())
    _core.set_log(_log)
    # A thread of a library must not enter an interpreter that is shutting down.
    atexit.register(_core.set_log, None)


def _log(level: int, backend: str, message: str) -> None:
    fields = {"backend": backend}
    logging.getLogger(f"resrt.{backend}").log(level, "%s", message, extra=fields)
