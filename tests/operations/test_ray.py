"""`resrt.classify` and `resrt.eval` on a Ray cluster of several nodes on this machine."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import resrt
from resrt.cli import main
from support.paths import PHOTOS

if not importlib.util.find_spec("ray"):
    pytest.skip("Ray is not installed: pip install 'resrt[ray]'", allow_module_level=True)

import pyarrow
import ray
import ray.data
from pyarrow import parquet
from ray.cluster_utils import Cluster

COUNT = 200


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three nodes, with one processor each, and keys for S3."""
    os.environ |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    for _ in range(2):
        started.add_node(num_cpus=1)
    os.environ["RAY_ADDRESS"] = started.address
    ray.init(started.address, log_to_driver=False)
    yield started
    ray.shutdown()
    started.shutdown()
    for name in ("RAY_ADDRESS", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        del os.environ[name]


@pytest.fixture(scope="module")
def engine_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = resrt.ResNet(depths=[1, 1], width=8)
    path = tmp_path_factory.mktemp("engine") / "small.engine"
    # With one image at once, no logit depends on what other images are in its batch.
    resrt.build(config, "random", input_size=32, max_batch=1, precision="fp32").save(path)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parts of a photograph, and a file that is none."""
    folder = tmp_path_factory.mktemp("photos")
    photo = Image.open(PHOTOS / "china.jpg")
    for i in range(COUNT - 1):
        photo.crop((i, i // 2, i + 160, i // 2 + 120)).save(folder / f"{i:04}.jpg")
    (folder / "broken.jpg").write_bytes(b"nonsense")
    return folder


def local(engine_file: Path, photos: Path) -> dict[str, tuple[Any, ...]]:
    return {
        one.image: (
            [found.index for found in one.predictions] or None,
            [found.probability for found in one.predictions] or None,
            one.error,
        )
        for one in resrt.classify(engine_file, resrt.find_images([photos]))
    }


def rows(table: pyarrow.Table) -> dict[str, tuple[Any, ...]]:
    found = {
        row["path"]: (row["classes"], row["probabilities"], row["error"])
        for row in table.to_pylist()
    }
    assert len(found) == table.num_rows  # each image once
    return found


def test_command(
    cluster: Cluster,
    engine_file: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out"
    arguments = ["classify", str(engine_file), str(photos), "--ray", "auto", "-o", str(output)]
    assert main(arguments) == 3
    assert "broken.jpg' is not an image" in capsys.readouterr().err
    assert rows(parquet.read_table(output)) == local(engine_file, photos)
    assert main(arguments) == 1
    assert "has results; resume them with --resume" in capsys.readouterr().err
    assert main([*arguments, "--resume"]) == 3
    assert main([*arguments, "--resume", "--topk", "2"]) == 1
    assert "made with another engine, other data or other options" in capsys.readouterr().err
    assert main([*arguments, "--overwrite", "--topk", "2"]) == 3
    table = parquet.read_table(output)
    assert table.num_rows == COUNT
    assert {len(classes) for classes in table["classes"].to_pylist() if classes} == {2}


def test_datasets(cluster: Cluster, engine_file: Path, photos: Path) -> None:
    """Files, paths and pixels, from an engine in memory or in a file."""
    expected = local(engine_file, photos)
    files = ray.data.read_binary_files(str(photos), include_paths=True)
    found = resrt.classify(resrt.load(engine_file), files)
    assert "bytes" not in (found.columns() or [])
    table = found.to_arrow_refs()
    named = rows(pyarrow.concat_tables(ray.get(table)))
    assert {name: row[:2] for name, row in named.items()} == {
        name: row[:2] for name, row in expected.items()
    }
    paths = ray.data.from_items([{"path": name, "id": i} for i, name in enumerate(expected)])
    listed = resrt.classify(engine_file, paths, topk=1).take_all()
    assert {row["id"]: row["path"] for row in listed} == dict(enumerate(expected))
    pixels = np.stack([np.asarray(Image.open(name)) for name in list(expected)[:5]])
    images = ray.data.from_numpy(pixels).rename_columns({"data": "image"})
    (classes,) = {len(row["classes"]) for row in resrt.classify(engine_file, images).take_all()}
    assert classes == 5


def test_a_node_fails(cluster: Cluster, engine_file: Path, photos: Path, tmp_path: Path) -> None:
    """Every image has exactly one row, also those that the node was working on."""
    node = cluster.add_node(num_cpus=2)
    listed = resrt.find_images([photos])
    many = tmp_path / "many"
    many.mkdir()
    for copy in range(10):
        for name in listed:
            (many / f"{copy}_{Path(name).name}").hardlink_to(name)
    done: list[int] = []
    removed = threading.Event()

    def progress(_: str, number: int, __: int) -> None:
        done.append(number)
        if len(done) == 2:
            cluster.remove_node(node, allow_graceful=False)
            removed.set()

    output = tmp_path / "out"
    resrt.classify_on_cluster(engine_file, [many], output, progress=progress, workers=1)
    assert removed.is_set()
    assert done[1] < 10 * COUNT
    assert rows(parquet.read_table(output)) == local(engine_file, many)


def test_a_driver_that_died(
    cluster: Cluster, engine_file: Path, photos: Path, tmp_path: Path
) -> None:
    """What it wrote is kept, and a file that it did not finish is no result."""
    output = tmp_path / "out"
    resrt.classify_on_cluster(engine_file, sorted(photos.glob("00[0-4]*")), output)
    (output / "part-000001.parquet.tmp").write_bytes(b"unfinished")
    before = (output / "part-000000.parquet").read_bytes()
    resrt.classify_on_cluster(engine_file, [photos], output, resume=True)
    assert (output / "part-000000.parquet").read_bytes() == before
    tables = [parquet.read_table(file) for file in sorted(output.glob("*.parquet"))]
    assert len(tables) == 2
    assert rows(pyarrow.concat_tables(tables)) == local(engine_file, photos)


def test_eval(
    cluster: Cluster, engine_file: Path, photos: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    engine = resrt.load(engine_file)
    monkeypatch.chdir(photos.parent)
    names = sorted(photos.glob("0*.jpg"))
    listed = [
        resrt.LabelledImage(str(name.relative_to(photos.parent)), i % 7)
        for i, name in enumerate(names)
    ]
    expected: list[resrt.Rank] = []
    found: list[resrt.Rank] = []
    evaluation = resrt.eval(engine, listed, each=expected.append)
    assert resrt.eval(engine, listed, ray="auto", each=found.append) == evaluation
    assert sorted(found, key=lambda rank: rank.image) == expected
    columns = [{"path": str(photos.parent / one.image), "label": one.label} for one in listed]
    assert resrt.eval(engine_file, ray.data.from_items(columns)) == evaluation


def test_object_store(cluster: Cluster, engine_file: Path, photos: Path) -> None:
    """Images and results in S3, as moto's server emulates it."""
    pytest.importorskip("moto", reason="moto is not installed: pip install 'moto[server]'")
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    s3 = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
    s3.create_bucket(Bucket="bucket")
    for file in sorted(photos.iterdir())[:20]:
        s3.upload_file(str(file), "bucket", f"photos/{file.name}")
    s3.upload_file(str(photos / "broken.jpg"), "bucket", "photos/broken.jpg")
    query = f"?endpoint_override={host}%3A{port}&scheme=http&region=us-east-1"
    try:
        skipped = resrt.classify_on_cluster(
            engine_file, [f"s3://bucket/photos{query}"], f"s3://bucket/out{query}"
        )
        assert len(skipped) == 1, skipped
        assert "'s3://bucket/photos/broken.jpg' is not an image" in skipped[0]
        storage, _ = pyarrow.fs.FileSystem.from_uri(f"s3://bucket{query}")
        found = rows(parquet.read_table("bucket/out", filesystem=storage))
        expected = local(engine_file, photos)
        for name, row in found.items():
            assert row[:2] == expected[str(photos / Path(name).name)][:2]
        assert len(found) == 21 - (photos / "broken.jpg" in sorted(photos.iterdir())[:20])
        with pytest.raises(resrt.FileError, match="cannot list 's3://none/photos"):
            resrt.classify_on_cluster(engine_file, [f"s3://none/photos{query}"], "out")
    finally:
        server.stop()


def test_no_cluster(engine_file: Path, photos: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "RAY_ADDRESS": "127.0.0.1:1"}
    command = [sys.executable, "-m", "resrt", "classify", str(engine_file), str(photos)]
    done = subprocess.run(
        [*command, "--ray", "127.0.0.1:1", "-o", str(tmp_path / "out")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "resrt: there is no Ray cluster at '127.0.0.1:1'"
    )
    assert not (tmp_path / "out").exists()


def test_columns(cluster: Cluster, engine_file: Path) -> None:
    dataset = ray.data.from_items([{"a": 1, "b": 2}])
    with pytest.raises(resrt.InputError, match="this one has 'a', 'b'"):
        resrt.classify(engine_file, dataset)
    with pytest.raises(resrt.InputError, match="must have a column 'label'"):
        resrt.eval(engine_file, dataset)


def test_misuse(engine_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["classify", str(engine_file), "x", "--ray", "auto"]
    assert main(arguments) == 2
    assert main([*arguments, "-o", "out", "--format", "csv"]) == 2
    assert "--ray requires a folder in -o" in capsys.readouterr().err
