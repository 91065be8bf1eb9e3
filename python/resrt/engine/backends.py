"""The inference libraries that can run an engine, and how the core finds them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from resrt import _core
from resrt._support.arguments import choice, path
from resrt.errors import InputError

BACKENDS = tuple(_core.backend_names())
PRECISIONS = tuple(_core.precision_names())


def backends() -> list[_core.BackendStatus]:
    """Return the backends that this build supports, and whether each can be used here."""
    for name in BACKENDS:
        prepare(name)
    return _core.backends()


def version(backend: str) -> str:
    """Return the version of a backend's library that is installed here; empty if there is none."""
    return next((one.version for one in backends() if one.name == backend), "")


def prepare(backend: str) -> str:
    """Let the core find the backend's library in whichever folder its wheel is installed.

    The core itself looks only in the folder of packages that resrt is installed in.
    """
    for package in _core.library_packages(backend):
        if spec := importlib.util.find_spec(package):
            for folder in spec.submodule_search_locations or ():
                _core.add_library_folder(path(Path(folder).parent))
    return backend


def device_number(device: str | None) -> int | None:
    """Return the number of a GPU that is named as in PyTorch: "cuda", "cuda:1"."""
    if device is None:
        return None
    match = re.fullmatch(r"cuda(?::(\d{1,4}))?", choice("device", device))
    if match is None:
        raise InputError(f"device must be a GPU such as 'cuda' or 'cuda:1', not '{device}'")
    return int(match[1] or 0)
