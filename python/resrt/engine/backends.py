"""The inference libraries that can run an engine, and how the core finds them."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import re
from pathlib import Path

from resrt import _core
from resrt._support.arguments import choice, path
from resrt.errors import InputError

BACKENDS = tuple(_core.backend_names())
PRECISIONS = tuple(_core.precision_names())

# The wheels that carry an inference library which the core opens by itself.
_LIBRARY_WHEELS = ("tensorrt_libs", "tensorrt_rtx_libs", "onnxruntime_ep_nv_tensorrt_rtx")


def backends() -> list[_core.BackendStatus]:
    """Return the backends that this build supports, and whether each can be used here."""
    for name in BACKENDS:
        prepare(name)
    return _core.backends()


def prepare(backend: str) -> str:
    """Let the core find the library of a backend whose wheel is in another site-packages folder."""
    if backend != "openvino":
        for wheel in _LIBRARY_WHEELS:
            if spec := importlib.util.find_spec(wheel):
                for folder in spec.submodule_search_locations or ():
                    _core.add_library_folder(path(Path(folder).parent))
    elif spec := importlib.util.find_spec("openvino"):
        for folder in spec.submodule_search_locations or ():
            for library in Path(folder).glob("libs/libopenvino.so.*"):
                with contextlib.suppress(OSError):  # the core says what is wrong with it
                    ctypes.CDLL(str(library))
    return backend


def device_number(device: str | None) -> int:
    """Return the number of a GPU that is named as in PyTorch: "cuda", "cuda:1"."""
    if device is None:
        return 0
    match = re.fullmatch(r"cuda(?::(\d{1,4}))?", choice("device", device))
    if match is None:
        raise InputError(f"device must be a GPU such as 'cuda' or 'cuda:1', not '{device}'")
    return int(match[1] or 0)
