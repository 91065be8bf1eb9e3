"""The GPUs that NVIDIA's driver reports, and a way to use up their memory."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # of CUdevice_attribute
_VERSION = Path("/sys/module/nvidia/version")
_MEBIBYTE = 1 << 20


class NoGpuError(Exception):
    """No GPU can be used here; the text is the reason, one sentence."""


@dataclass(frozen=True)
class Gpu:
    """A GPU: ten times its compute capability, and the newest CUDA version of its driver."""

    name: str
    compute_capability: int
    memory_gib: float
    driver: str
    cuda: str

    def __str__(self) -> str:
        return (
            f"{self.name}, {self.memory_gib:.0f} GiB, compute capability "
            f"{self.compute_capability / 10}, driver {self.driver} (CUDA {self.cuda})"
        )


class Driver:
    """The initialised driver library, libcuda.so.1. Raises NoGpuError."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL("libcuda.so.1")
        except OSError:
            raise NoGpuError("NVIDIA's driver, libcuda.so.1, is not installed") from None
        if (result := self._library.cuInit(0)) != 0:
            raise NoGpuError(f"NVIDIA's driver does not start: error {result}")
        if self.count() == 0:
            raise NoGpuError("NVIDIA's driver finds no GPU")

    def count(self) -> int:
        """Return the number of GPUs."""
        count = ctypes.c_int()
        self._call("cuDeviceGetCount", ctypes.byref(count))
        return count.value

    def gpu(self, index: int = 0) -> Gpu:
        """Describe a GPU."""
        name = ctypes.create_string_buffer(256)
        memory, version = ctypes.c_size_t(), ctypes.c_int()
        self._call("cuDeviceGetName", name, len(name), index)
        self._call("cuDeviceTotalMem_v2", ctypes.byref(memory), index)
        self._call("cuDriverGetVersion", ctypes.byref(version))
        return Gpu(
            name=name.value.decode(),
            compute_capability=10 * self._attribute(_CAPABILITY_MAJOR, index)
            + self._attribute(_CAPABILITY_MINOR, index),
            memory_gib=memory.value / 2**30,
            driver=_VERSION.read_text().strip() if _VERSION.exists() else "of unknown version",
            cuda=f"{version.value // 1000}.{version.value % 1000 // 10}",
        )

    @contextlib.contextmanager
    def memory_used_up(self) -> Iterator[None]:
        """Allocate all memory of the first GPU except for less than a mebibyte."""
        context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
        self._call("cuCtxPushCurrent_v2", context)
        taken: list[ctypes.c_uint64] = []
        size = 1 << 40
        while size >= _MEBIBYTE:
            pointer = ctypes.c_uint64()
            if self._library.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(size)) == 0:
                taken.append(pointer)
            else:
                size //= 2
        try:
            yield
        finally:
            for pointer in taken:
                self._call("cuMemFree_v2", pointer)
            self._call("cuCtxPopCurrent_v2", ctypes.byref(context))
            self._call("cuDevicePrimaryCtxRelease_v2", 0)

    def _attribute(self, attribute: int, index: int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), attribute, index)
        return value.value

    def _call(self, name: str, *arguments: object) -> None:
        if (result := getattr(self._library, name)(*arguments)) != 0:
            raise RuntimeError(f"{name} failed with error {result}")
