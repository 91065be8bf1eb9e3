"""Runs the command in a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys


def run_resrt(*arguments: str, stream: str, columns: int = 80) -> str:
    """Run the command with a terminal as its stdout or stderr, and return what it displays."""
    main, terminal = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns)}
    command = [sys.executable, "-m", "resrt", *arguments]
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: terminal}
    with subprocess.Popen(command, env=environment, **streams) as process:  # type: ignore[call-overload]
        os.close(terminal)
        shown = b""
        while part := _read(main):
            shown += part
    os.close(main)
    assert process.returncode == 0
    return shown.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the command has closed the terminal
        return b""
