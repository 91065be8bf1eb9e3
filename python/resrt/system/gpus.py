"""Detection of NVIDIA GPUs from the files of the system, without NVIDIA's libraries."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from resrt.system import read


@dataclass(frozen=True)
class Gpus:
    """The NVIDIA GPUs of this machine.

    Attributes:
        cards: the number of GPUs on the PCI bus.
        driver: the version of the loaded driver, or None.
        models: the names that the driver gives the GPUs.
        devices: the device files through which this process would use them.
        problem: why no backend could use them, or None.
    """

    cards: int
    driver: str | None
    models: tuple[str, ...]
    devices: tuple[str, ...]
    problem: str | None


def find(root: Path = Path("/")) -> Gpus:
    """Return the NVIDIA GPUs that the files of the system below `root` describe."""
    driver = root / "proc/driver/nvidia"
    version = _first(r"Module.*?\s(\d+\.[\d.]+)", driver / "version")
    cards = sum(
        read(device / "vendor") == "0x10de" and read(device / "class").startswith("0x03")
        for device in (root / "sys/bus/pci/devices").glob("*")
    )
    # In the Windows Subsystem for Linux, the GPU is /dev/dxg and the driver is that of Windows.
    files = [*(root / "dev").glob("nvidia[0-9]*"), *(root / "dev").glob("dxg")]
    devices = tuple(sorted(map(str, files)))
    problem = None
    if version and not devices:
        problem = "the driver's device files are missing; start the container with --gpus all"
    elif cards and not devices:
        problem = "the driver is not loaded; install NVIDIA's driver"
    information = sorted(driver.glob("gpus/*/information"))
    models = tuple(_first(r"Model:\s*(.+)", file) for file in information)
    return Gpus(cards, version or None, models, devices, problem)


def _first(pattern: str, file: Path) -> str:
    """Return the first group of a pattern's match in a file, or "" if it does not match."""
    match = re.search(pattern, read(file))
    return "" if match is None else match[1]
