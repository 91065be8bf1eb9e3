"""Labelled images of the digits that the demo's network was trained for."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from resrt.operations import demo


def write_digits(folder: Path) -> Path:
    """Write the demo's held-out scans, a subfolder for each digit, and a list of them."""
    scans, labels = demo.held_out()
    lines = []
    for i, (scan, label) in enumerate(zip(scans, labels, strict=True)):
        path = folder / str(label) / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(scan).save(path)
        lines.append(f"{label}/{i}.png {label}\n")
    (folder / "list.txt").write_text("".join(lines))
    return folder
