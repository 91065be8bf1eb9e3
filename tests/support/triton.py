"""The real server of the wheel nvidia-pytriton, for tests and for tools/triton_soak.py."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import tritonserver


def missing() -> str | None:
    """Return why the real server cannot run here."""
    if tritonserver.wheel() is None:
        return "the wheel nvidia-pytriton, which carries the server, is not installed"
    if not importlib.util.find_spec("tritonclient"):
        return "tritonclient is not installed: pip install 'tritonclient[all]'"
    if int(np.__version__.partition(".")[0]) >= 2:
        return "the server of nvidia-pytriton requires NumPy 1: pip install 'numpy<2'"
    return None


@dataclass
class Server:
    """A server on ports of its own."""

    repository: Path
    log: Path
    options: tuple[str, ...] = ()
    http: str = ""
    grpc: str = ""
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _ports: list[int] = field(default_factory=list)

    def start(self) -> None:
        """Start it, on the same ports as before, and wait until its models are ready."""
        self._ports = self._ports or [_free_port() for _ in range(3)]
        names = ("--http-port", "--grpc-port", "--metrics-port")
        ports = (f"{name}={port}" for name, port in zip(names, self._ports, strict=True))
        arguments, environment = tritonserver.command(self.repository, *ports, *self.options)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                arguments, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self.http, self.grpc = (f"127.0.0.1:{port}" for port in self._ports[:2])
        deadline = time.monotonic() + 120
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"the server did not start:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        """End it and the processes of its models at once."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def stop(self) -> None:
        """Let it end what it computes."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(60)
            finally:
                self.kill()

    def processes(self) -> list[int]:
        """Return the numbers of its processes: its own, and those of the models."""
        assert self._process is not None
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if os.getpgid(int(entry.name)) == self._process.pid:
                    found.append(int(entry.name))
        return found

    def metrics(self) -> str:
        """Return its metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._ports[2]}/metrics") as response:
            text: str = response.read().decode()
        return text

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.http}/v2/health/ready", timeout=1) as found:
                return bool(found.status == 200)
        except (OSError, urllib.error.URLError):
            return False


@contextlib.contextmanager
def serving(repository: Path, log: Path, *options: str) -> Iterator[Server]:
    server = Server(repository, log, options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
