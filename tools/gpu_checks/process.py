"""Functions in processes of their own: one that loses its GPU or crashes takes no other along."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TypeVar

R = TypeVar("R")


class ProcessError(Exception):
    """Why a process gave no result."""


def run_apart(function: Callable[..., R], *arguments: object, limit: float) -> R:
    """Return what a module's function returns elsewhere, which must not raise.

    What the function has started and left behind ends with it. Raises ProcessError where it did not
    end within `limit` seconds, or its process crashed.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        if not receiver.poll(limit):
            raise ProcessError(f"it did not end within {limit:.0f} s")
        result: R = receiver.recv()
        return result
    except EOFError:
        process.join()
        raise ProcessError(f"its process ended with status {process.exitcode}") from None
    finally:
        process.kill()  # by itself, too, where it has come to no group of its own yet
        if process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.join()


def _send_result(
    sender: Connection, function: Callable[..., object], arguments: tuple[object, ...]
) -> None:
    os.setsid()
    sender.send(function(*arguments))
