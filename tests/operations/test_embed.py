"""`resrt.embed`, `resrt.open_features` and `resrt embed`, also across interruptions."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import resrt
from resrt import cli
from support.paths import PHOTOS

CHANNELS = 64


def build(*outputs: str) -> resrt.Engine:
    return resrt.build(
        "cifar_resnet20", "random", input_size=32, max_batch=2, precision="fp32", outputs=outputs
    )


@pytest.fixture(scope="module")
def engine_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engines") / "features.engine"
    build("features").save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five photographs, and two files that are none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    photo = Image.open(PHOTOS / "china.jpg")
    for i in range(5):
        photo.crop((60 * i, 0, 60 * i + 300, 300)).save(folder / f"{i}.png")
    (folder / "1b.jpg").write_bytes((PHOTOS / "china.jpg").read_bytes()[:300])
    (folder / "9\udce9\\.png").write_bytes(b"")
    return folder


def run(*arguments: str | Path) -> int:
    return cli.main(["embed", *map(str, arguments), "--quiet"])


def expected_features(engine: resrt.Engine, folder: Path) -> npt.NDArray[np.float32]:
    files = sorted(folder.glob("?.png"))
    batch = np.stack([resrt.preprocess(file, engine.info.preprocessing) for file in files])
    return engine.outputs(batch, "features")["features"]


def test_features_of_files(engine_file: Path, folder: Path) -> None:
    engine = resrt.load(engine_file)
    found = list(resrt.embed(engine, resrt.find_images([folder]), exact=True, workers=3))
    assert [Path(one.image).name for one in found] == [
        *("0.png", "1.png", "1b.jpg", "2.png", "3.png", "4.png", "9\udce9\\.png")
    ]
    assert [Path(one.image).name for one in found if one.error] == ["1b.jpg", "9\udce9\\.png"]
    features = np.stack([one.features for one in found if one.features is not None])
    expected = expected_features(engine, folder)
    np.testing.assert_allclose(features, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_other_outputs_beside_the_features(engine_file: Path, folder: Path) -> None:
    several = build("logits", "features", "layer1")
    (one,) = resrt.embed(several, [folder / "0.png"])
    (same,) = resrt.embed(engine_file, [folder / "0.png"])
    assert one.features is not None
    np.testing.assert_allclose(one.features, same.features, rtol=0, atol=1e-5)


def test_an_engine_without_features_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = build("logits")
    with pytest.raises(resrt.InputError, match=r"--outputs features, or outputs=\['features'\]"):
        resrt.embed(engine, [folder / "0.png"])
    engine.save(tmp_path / "logits.engine")
    out = tmp_path / "x.npy"
    assert run(tmp_path / "logits.engine", folder, "-o", out) == 1
    assert "build it with features among them" in capsys.readouterr().err
    assert not out.exists()


def listed(path: Path) -> list[dict[str, Any]]:
    lines = path.with_name(f"{path.name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_npy_and_its_list(engine_file: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.npy"
    assert run(engine_file, folder, "-o", out, "--exact") == 3
    expected = expected_features(resrt.load(engine_file), folder)
    array = np.load(out)
    assert array.dtype == np.float32
    assert array.shape == (5, CHANNELS)
    np.testing.assert_allclose(array, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    rows = {Path(one["image"]).name: one["row"] for one in listed(out) if "row" in one}
    assert rows == {f"{i}.png": i for i in range(5)}
    errors = {Path(one["image"]).name for one in listed(out) if "error" in one}
    assert errors == {"1b.jpg", "9\udce9\\.png"}


def test_parquet(engine_file: Path, folder: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out, array = tmp_path / "x.parquet", tmp_path / "x.npy"
    assert run(engine_file, folder, "-o", out) == run(engine_file, folder, "-o", array) == 3
    assert sorted(path.name for path in tmp_path.glob("x.*")) == [
        *("x.npy", "x.npy.jsonl", "x.parquet")
    ]
    table = parquet.read_table(out).to_pydict()
    names = [Path(resrt.records.unescape(image)).name for image in table["image"]]
    assert names == [Path(one["image"]).name for one in listed(array)]
    assert [error is None for error in table["error"]] == ["row" in one for one in listed(array)]
    features = [row for row in table["features"] if row is not None]
    np.testing.assert_allclose(features, np.load(array), rtol=0, atol=1e-6)
    assert [row is None for row in table["features"]] == [e is not None for e in table["error"]]


def test_parquet_without_pyarrow(
    engine_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "resrt.operations.embed.parquet", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(resrt.PackageError, match=r"pip install 'resrt\[parquet\]'"):
        resrt.open_features(tmp_path / "x.parquet", resrt.load(engine_file))
    assert list(tmp_path.iterdir()) == []


def content(path: Path) -> Any:
    """Everything in a file of features, however it was written."""
    if path.suffix == ".npy":
        return np.load(path).tolist(), [one | {"made_by": None} for one in listed(path)]
    return pytest.importorskip("pyarrow.parquet").read_table(path).to_pydict()


class Interrupted(Exception):
    pass


def embed_some(engine: resrt.Engine, files: list[str], out: Path, stop: int | None = None) -> int:
    """Embed the files that are still to be done, as the command does, up to an interruption."""
    with resrt.open_features(out, engine, resume=True, exact=False, folder=None) as output:
        finished = {one.image for one in output.known}
        rest = [file for file in files if file not in finished]
        for i, one in enumerate(resrt.embed(engine, rest)):
            if i == stop:
                raise Interrupted
            output.write(one)
        return len(rest)


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
def test_resuming(engine_file: Path, folder: Path, tmp_path: Path, suffix: str) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    engine, files = resrt.load(engine_file), resrt.find_images([folder])
    whole, out = tmp_path / f"whole.{suffix}", tmp_path / f"x.{suffix}"
    assert embed_some(engine, files, whole) == 7
    with pytest.raises(Interrupted):
        embed_some(engine, files[:6], out, stop=3)
    with pytest.raises(Interrupted):
        embed_some(engine, files[:6], out, stop=1)
    assert embed_some(engine, files[:6], out) == 2
    finished = out.read_bytes()
    assert embed_some(engine, files[:6], out) == 0
    assert out.read_bytes() == finished
    assert embed_some(engine, files, out) == 1  # the folder has grown
    assert content(out) == content(whole)
    assert run(engine_file, folder, "-o", out) == 1
    assert run(engine_file, folder, "-o", out, "--resume") == 3
    assert run(engine_file, folder, "-o", out, "--resume", "--exact") == 1
    assert content(out) == content(whole)
    assert run(engine_file, folder, "-o", out, "--overwrite", "--limit", "2") == 0
    assert content(out) != content(whole)


def test_a_row_whose_image_was_not_listed_is_discarded(
    engine_file: Path, folder: Path, tmp_path: Path
) -> None:
    """Whatever is killed, each row is written before its image is listed."""
    engine, files = resrt.load(engine_file), resrt.find_images([folder])
    whole, out = tmp_path / "whole.npy", tmp_path / "x.npy"
    embed_some(engine, files, whole)
    embed_some(engine, files, out)
    images = tmp_path / "x.npy.jsonl"
    lines = images.read_bytes().splitlines(keepends=True)
    images.write_bytes(b"".join(lines[:4]) + lines[4][:9])
    assert embed_some(engine, files, out) == 3
    assert out.read_bytes() == whole.read_bytes()
    images.unlink()
    with pytest.raises(resrt.InputError, match="is missing"):
        embed_some(engine, files, out)
    out.unlink()
    assert embed_some(engine, files, out) == 7
    out.write_bytes(whole.read_bytes()[:-1])
    with pytest.raises(resrt.InputError, match="it has fewer rows than"):
        embed_some(engine, files, out)
    out.write_bytes(b"x" * 10000)
    with pytest.raises(resrt.InputError, match="it is not an array that resrt embed wrote"):
        embed_some(engine, files, out)


def test_the_array_is_complete_after_each_row(
    engine_file: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x.npy"
    engine = resrt.load(engine_file)
    with resrt.open_features(out, engine) as output:
        assert np.load(out).shape == (0, CHANNELS)
        for i, one in enumerate(resrt.embed(engine, sorted(folder.glob("?.png"))), 1):
            output.write(one)
            assert np.load(out, mmap_mode="r").shape == (i, CHANNELS)


@pytest.mark.parametrize("removed", [0, 1])
def test_a_run_that_was_killed_after_the_parquet_file_was_finished(
    engine_file: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: int
) -> None:
    """The array of which the file was made is still there, with its list or without."""
    pytest.importorskip("pyarrow")
    engine, files = resrt.load(engine_file), resrt.find_images([folder])
    out = tmp_path / "x.parquet"
    unlink, calls = Path.unlink, []

    def kill(path: Path, **options: bool) -> None:
        if path.name.startswith("x.parquet.part"):
            calls.append(path)
            if len(calls) > removed:
                raise Interrupted
        unlink(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", kill)
        with pytest.raises(Interrupted):
            embed_some(engine, files[:6], out)
    before = content(out)
    assert len(list(tmp_path.glob("x.parquet.part*"))) == 2 - removed
    assert embed_some(engine, files[:6], out) == 0
    assert content(out) == before
    assert list(tmp_path.glob("x.parquet.part*")) == []
    assert embed_some(engine, files, out) == 1
    assert len(content(out)["image"]) == 7


def test_another_parquet_file_is_not_resumed(engine_file: Path, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    engine, out = resrt.load(engine_file), tmp_path / "x.parquet"
    parquet.write_table(pa.table({"image": ["a"], "error": ["b"]}), out)
    with pytest.raises(resrt.InputError, match="not known to be made by the same engine"):
        resrt.open_features(out, engine, resume=True)
    out.write_bytes(b"PAR1")
    with pytest.raises(resrt.InputError, match="cannot resume"):
        resrt.open_features(out, engine, resume=True)


@pytest.mark.parametrize("name", ["x.txt", "x", ".npy"])
def test_other_suffixes(engine_file: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(resrt.InputError, match=r"written as \.npy or \.parquet, not as"):
        resrt.open_features(tmp_path / name, resrt.load(engine_file))


def test_outputs_that_cannot_be_written(engine_file: Path, folder: Path, tmp_path: Path) -> None:
    engine = resrt.load(engine_file)
    with pytest.raises(resrt.FileError, match="it is not a regular file"):
        resrt.open_features(tmp_path, engine)
    with pytest.raises(resrt.FileError, match="cannot write"):
        resrt.open_features(tmp_path / "none" / "x.npy", engine)


def test_an_array_of_somebody_else_is_not_resumed(
    engine_file: Path, folder: Path, tmp_path: Path
) -> None:
    engine, out = resrt.load(engine_file), tmp_path / "x.npy"
    np.save(out, np.ones((50, CHANNELS), np.float32))
    before = out.read_bytes()
    images = tmp_path / "x.npy.jsonl"
    with pytest.raises(resrt.InputError, match=r"as '.*x\.npy\.jsonl' is missing"):
        resrt.open_features(out, engine, resume=True)
    assert not images.exists()
    images.touch()
    with pytest.raises(resrt.InputError, match="it has rows that .* does not list"):
        resrt.open_features(out, engine, resume=True)
    assert out.read_bytes() == before
