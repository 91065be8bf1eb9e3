"""Run the Triton Inference Server of the wheel nvidia-pytriton, without Docker and without a GPU.

    pip install nvidia-pytriton 'numpy<2' resrt
    python tools/tritonserver.py MODEL_REPOSITORY [OPTION of tritonserver ...]

The wheel carries tritonserver with its Python backend. This script puts the stub for the Python
that runs it beside that backend, and replaces itself by the server. The models run in the same
Python.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
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
