"""Run the Triton Inference Server of the wheel nvidia-pytriton, without Docker and without a GPU.

    pip install nvidia-pytriton 'numpy<2' resrt
    python tools/tritonserver.py MODEL_REPOSITORY [OPTION of tritonserver ...]

The wheel carries tritonserver with its Python backend. This script puts the stub for the Python
that X
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path


def wheel() -> Path | None:
    """Return the wheel's folder with the server, if the wheel is installed."""
    spec = importlib.util.find_spec("pytriton")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        server = Path(folder) / "tritonserver"
        if (server / "bin" / "tritonserver").is_file():
            return server
    return None


def command(repository: str | Path, *options: str) -> tuple[list[str], dict[str, str]]:
    """Return the command line and the environment that start the server.

    Raises FileNotFoundError if the wheel is not installed or has no stub for this Python.
    """
    server = wheel()
    if server is None:
        raise FileNotFoundError("the wheel is not installed: pip install nvidia-pytriton 'numpy<2'")
    return (
        [
            str(server / "bin" / "tritonserver"),
            f"--model-repository={repository}",
            f"--backend-directory={_backends(server)}",
            *options,
        ],
        os.environ
        | {
            "LD_LIBRARY_PATH": str(server.parents[1] / "nvidia_pytriton.libs"),
            # The stub embeds the Python that it finds first.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        },
    )


def _backends(server: Path) -> Path:
    """Return a folder of backends whose Python backend is for the Python that runs here."""
    number = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / number / "triton_python_backend_stub"
    if not stub.is_file():
        raise FileNotFoundError(f"nvidia-pytriton has no stub for Python {number}: {stub}")
    backends = Path(sys.prefix) / "share" / "tritonserver" / "backends"
    backend = backends / "python"
    if not (backend / stub.name).is_file():
        shutil.copytree(server / "backends" / "python", backend, dirs_exist_ok=True)
        shutil.copy2(stub, backend)
    return backends


def missing() -> str | None:
    """Return why the real server cannot run here."""
    if wheel() is None:
        return "the wheel nvidia-pytriton, which carries the server, is not installed"
    if not importlib.util.find_spec("tritonclient"):
        return "tritonclient is not installed: pip install 'tritonclient[all]'"
    if int(version("numpy").partition(".")[0]) >= 2:
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
        arguments, environment = command(self.repository, *ports, *self.options)
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
        except OSError:
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


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    try:
        arguments, environment = command(*sys.argv[1:])
    except FileNotFoundError as error:
        sys.exit(f"tritonserver.py: {error}")
    os.execve(arguments[0], arguments, environment)


if __name__ == "__main__":
    main()
