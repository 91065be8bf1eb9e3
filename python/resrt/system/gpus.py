"""The NVIDIA GPUs of this machine, as the system describes them, without NVIDIA's libraries."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Gpus:
    """The NVIDIA GPUs, as the system's files describe them.

    Attributes:
        cards: how many there are on the PCI bus.
        driver: the version of the driver that is loaded; None if none is.
        models: the driver's names for them.
        devices: the device files by which this process would reach them.
        problem: why no backend could use them; None if there is no reason.
    """

    cards: int
    driver: str | None
    models: tuple[str, ...]
    devices: tuple[str, ...]
    problem: str | None


def find(root: Path = Path("/")) -> Gpus:
    """Return what the system's files below `root` say about NVIDIA GPUs."""
    driver = root / "proc/driver/nvidia"
    version = _matched(r"Module.*?\s(\d+\.[\d.]+)", _text(driver / "version"))
    information = [_text(file) for file in sorted(driver.glob("gpus/*/information"))]
    cards = sum(
        _text(device / "vendor").strip() == "0x10de" and _text(device / "class").startswith("0x03")
        for device in (root / "sys/bus/pci/devices").glob("*")
    )
    # In the Windows Subsystem for Linux the GPU is behind /dev/dxg, and the driver is Windows's.
    files = [*(root / "dev").glob("nvidia[0-9]*"), *(root / "dev").glob("dxg")]
    devices = tuple(sorted(map(str, files)))
    return Gpus(
        cards=cards,
        driver=version or None,
        models=tuple(_matched(r"Model:\s*(.+)", text) for text in information),
        devices=devices,
        problem=_problem(cards, version, devices),
    )


def _problem(cards: int, driver: str, devices: tuple[str, ...]) -> str | None:
    if driver and not devices:
        return "the driver's device files are missing; start the container with --gpus all"
    if cards and not devices:
        return "the driver is not loaded; install NVIDIA's driver"
    return None


def _matched(pattern: str, text: str) -> str:
    """Return the first group of a pattern's match, or "" if it does not match."""
    match = re.search(pattern, text)
    return "" if match is None else match[1]


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
