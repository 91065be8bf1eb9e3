"""Measure how much decoding large JPEGs at reduced size, as `classify` does, changes the images.

    python benchmarks/reduced_decoding.py PHOTOS

Prints the mean and the largest change of the grey levels (0 to 255) of each photograph that is
decoded at reduced size, after preprocessing for a network of torchvision with 224x224 pixels.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

import resrt
from resrt.images import imagenet_preprocessing, preprocess

SHAPE = (3, 224, 224)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("photos", type=Path, nargs="+")
    arguments.add_argument("--output", type=Path, metavar="FILE", help="also write JSON")
    options = arguments.parse_args()
    steps = imagenet_preprocessing(3, resize=256)
    grey_levels = 255 * np.array(steps.std)[:, None, None]
    changes = {}
    for photo in resrt.find_images(options.photos):
        exact, reduced = (preprocess(photo, steps, SHAPE, exact=exact) for exact in (True, False))
        change = np.abs(exact - reduced) * grey_levels
        if change.any():
            changes[photo] = {"mean": float(change.mean()), "largest": float(change.max())}
            print(f"{change.mean():8.2f} {change.max():8.1f}  {photo}")
    print(f"{len(changes)} photographs were decoded at reduced size")
    if options.output:
        options.output.write_text(json.dumps(changes, indent=2) + "\n")


if __name__ == "__main__":
    main()
