"""Detection of NVIDIA GPUs from the files of the system."""

from __future__ import annotations

from pathlib import Path

import pytest

from resrt.system import gpus
from support.files import write_files

CARD = {
    "sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n",
    "sys/bus/pci/devices/0000:01:00.0/class": "0x030200\n",
    # Neither the card's sound device nor a card of another vendor counts.
    "sys/bus/pci/devices/0000:01:00.1/vendor": "0x10de\n",
    "sys/bus/pci/devices/0000:01:00.1/class": "0x040300\n",
    "sys/bus/pci/devices/0000:02:00.0/vendor": "0x1002\n",
    "sys/bus/pci/devices/0000:02:00.0/class": "0x030000\n",
}
DRIVER = {
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue\n"
    "GCC version: gcc version 12.2.0 (Debian)\n",
    "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA H100 80GB HBM3\n",
}
DEVICES = {"dev/nvidia0": "", "dev/nvidiactl": "", "dev/nvidia-uvm": ""}


def test_a_gpu_that_can_be_used(tmp_path: Path) -> None:
    assert gpus.find(write_files(tmp_path, {**CARD, **DRIVER, **DEVICES})) == gpus.Gpus(
        cards=1,
        driver="550.54.15",
        models=("NVIDIA H100 80GB HBM3",),
        devices=(str(tmp_path / "dev/nvidia0"),),
        problem=None,
    )


def test_driver_with_open_kernel_modules(tmp_path: Path) -> None:
    text = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n"
    found = gpus.find(write_files(tmp_path, {"proc/driver/nvidia/version": text}))
    assert found.driver == "570.86.15"


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({}, None),
        (CARD, "the driver is not loaded; install NVIDIA's driver"),
        (
            {**CARD, **DRIVER},
            "the driver's device files are missing; start the container with --gpus all",
        ),
        ({"dev/dxg": ""}, None),
    ],
    ids=["no GPU", "no driver", "no device files", "Windows Subsystem for Linux"],
)
def test_problems(tmp_path: Path, files: dict[str, str], problem: str | None) -> None:
    assert gpus.find(write_files(tmp_path, files)).problem == problem
