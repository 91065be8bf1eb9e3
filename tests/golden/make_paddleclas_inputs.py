"""Writes paddleclas_inputs.json: checksums of images that PaddleClas has preprocessed.

    python tests/golden/make_paddleclas_inputs.py PADDLECLAS > tests/golden/paddleclas_inputs.json

PADDLECLAS is the folder of an unpacked PaddleClas 2.6 wheel that contains ppcls/. The operators of
PaddleClas run with OpenCV (opencv-python 4.6.0.66, which PaddleClas requires) on parts of the
photographs in tests/data/photos. A checksum is the SHA-256 of the float32 (3, crop, crop) array in
little-endian byte order.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import cv2
import numpy as np

PHOTOS = Path(__file__).parents[1] / "data" / "photos"
# The height and width of the top left part of a photograph, resize_short, and the crop size.
PARTS = [
    (427, 640, 256, 224),
    (427, 640, 320, 320),
    (427, 640, 352, 320),
    (427, 640, 427, 427),
    (427, 640, 97, 61),
    (400, 512, 200, 176),  # halved
    (401, 512, 200, 176),
    (427, 101, 256, 224),
    (100, 640, 256, 224),
    (33, 47, 256, 224),
    (1, 9, 32, 17),
    (1, 1, 8, 8),
    (427, 3, 32, 32),
]


def operators(paddleclas: Path) -> dict[str, type]:
    """Return the operators of PaddleClas, without the imports from Paddle in their file."""
    source = (paddleclas / "deploy/python/preprocess.py").read_text()
    namespace: dict[str, type] = {}
    kept = [line for line in source.splitlines() if not line.startswith("from paddle")]
    exec(compile("\n".join(kept), "preprocess.py", "exec"), namespace)  # needs OpenCV and six
    return namespace


def main() -> None:
    of = operators(Path(sys.argv[1]))
    normalize = of["NormalizeImage"](
        scale=1 / 255, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], order=""
    )
    cases = []
    for photo in sorted(PHOTOS.glob("*.jpg")):
        pixels = cv2.imread(str(photo))[:, :, ::-1]
        for height, width, resize, crop in PARTS:
            part = np.ascontiguousarray(pixels[:height, :width])
            resized = of["ResizeImage"](resize_short=resize)(part)
            array = normalize(of["CropImage"](crop)(resized)).transpose(2, 0, 1)
            digest = hashlib.sha256(np.ascontiguousarray(array, "<f4").tobytes()).hexdigest()
            cases.append([photo.name, height, width, resize, crop, digest])
    print("[\n" + ",\n".join(f"  {json.dumps(case)}" for case in cases) + "\n]")


if __name__ == "__main__":
    main()
