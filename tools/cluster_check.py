"""Classifies many images on a Ray cluster of three nodes, one of which fails, and checks the rows.

    pip install 'resrt[ray]'
    python tools/cluster_check.py --images 20000

The nodes are processes on this machine, with one processor each. In the middle, one of them is
killed. Every image must have exactly one row, equal to that of `resrt.classify`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import ray
from PIL import Image
from pyarrow import parquet
from ray.cluster_utils import Cluster

import resrt

_DIFFERENT = 500  # images; the others are the same under other names


def write_images(folder: Path, count: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (_DIFFERENT, 40, 40), np.uint8)
    for i in range(count):
        file = folder / f"{i:06}.png"
        if i < _DIFFERENT:
            Image.fromarray(pixels[i]).save(file)
        else:
            file.hardlink_to(folder / f"{i % _DIFFERENT:06}.png")
    (folder / "broken.png").write_bytes(b"nonsense")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20000, help="default: %(default)s")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="cluster_check."))
    photos, file, output = folder / "photos", folder / "small.engine", folder / "out"
    photos.mkdir()
    write_images(photos, options.images)
    network = resrt.ResNet(depths=[1, 1], width=8)
    # With one image at once, no logit depends on what other images are in its batch.
    resrt.build(network, "random", input_size=32, max_batch=1, precision="fp32").save(file)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1}, connect=True)
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    killed_at = 0

    def progress(_: str, done: int, total: int) -> None:
        nonlocal killed_at
        if not killed_at and done > total // 3:
            killed_at = done
            cluster.remove_node(nodes[0], allow_graceful=False)

    skipped = resrt.classify_on_cluster(file, [photos], output, topk=3, progress=progress)
    rows = {row["path"]: row for row in parquet.read_table(output).to_pylist()}
    count = parquet.read_table(output).num_rows
    different = 0
    for one in resrt.classify(file, resrt.find_images([photos]), topk=3):
        row = rows[one.image]
        same = (
            one.error == row["error"]
            if one.error
            else [(found.index, found.probability) for found in one.predictions]
            == list(zip(row["classes"], row["probabilities"], strict=True))
        )
        different += not same
    ray.shutdown()
    cluster.shutdown()
    shutil.rmtree(folder)
    print(
        f"{options.images + 1} images, a node killed after {killed_at}: {count} rows of "
        f"{len(rows)} images, {len(skipped)} skipped, {different} different from resrt.classify"
    )
    if not (killed_at and count == len(rows) == options.images + 1 and not different):
        sys.exit(1)


if __name__ == "__main__":
    main()
