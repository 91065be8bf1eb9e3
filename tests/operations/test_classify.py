"""`resrt.classify` and `resrt classify`: files of all kinds, also across interruptions."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import resrt
from resrt import cli, records
from resrt.engine import batches
from support.paths import PHOTOS
from support.terminal import run_resrt

MISSING = os.strerror(errno.ENOENT)


@pytest.fixture(scope="module")
def engine_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = resrt.ResNet(depths=[1, 1], width=8)
    engine = resrt.build(config, "random", input_size=32, max_batch=2, precision="fp32")
    path = tmp_path_factory.mktemp("engines") / "small.engine"
    engine.save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of many kinds, a broken one, and files that are to be omitted."""
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    photo = Image.open(PHOTOS / "china.jpg").resize((160, 107))
    photo.save(folder / "a.jpg")
    photo.save(folder / "deeper" / "B.PNG", "PNG")
    photo.save(folder / "c.webp")
    photo.convert("L").save(folder / "grey.png")
    photo.convert("CMYK").save(folder / "cmyk.jpg")
    photo.convert("RGBA").save(folder / "alpha.png")
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16).save(folder / "deep.png")
    (folder / "broken.jpg").write_bytes((folder / "a.jpg").read_bytes()[:300])
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.jpg").write_bytes(b"")
    return folder


IMAGES = 8  # in the folder, including the broken one


def run(*arguments: str | Path) -> int:
    return cli.main(["classify", *map(str, arguments)])


def test_results_are_in_order_despite_errors(engine_file: Path, folder: Path) -> None:
    files = resrt.find_images([folder])
    assert [Path(file).name for file in files] == [
        "a.jpg",
        "alpha.png",
        "broken.jpg",
        "c.webp",
        "cmyk.jpg",
        "deep.png",
        "B.PNG",
        "grey.png",
    ]
    missing = str(folder / "missing.jpg")
    records = list(resrt.classify(engine_file, [missing, *files], topk=3, workers=3))
    assert [record.image for record in records] == [missing, *files]
    errors = {Path(record.image).name: record.error for record in records if record.error}
    assert errors.keys() == {"missing.jpg", "broken.jpg"}
    assert "No such file" in errors["missing.jpg"]
    assert "cannot decode the image" in errors["broken.jpg"]
    engine = resrt.load(engine_file)
    for record in records:
        if record.error is None:
            (expected,) = engine.classify(record.image, topk=3)
            assert [p.index for p in record.predictions] == [p.index for p in expected]
            np.testing.assert_allclose(
                [p.probability for p in record.predictions],
                [p.probability for p in expected],
                rtol=1e-5,
            )


def unreadable(folder: Path) -> list[str]:
    """Paths that cannot be read for several reasons."""
    loop = folder / "loop.jpg"
    loop.symlink_to(loop)
    below_file = folder / "a.jpg" / "b[1].jpg"
    return [str(folder / f"{'a' * 300}.jpg"), str(below_file), str(loop), "a\0b.jpg"]


def test_paths_without_images_do_not_stop_the_others(
    engine_file: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "empty").mkdir()
    bad = [str(folder / "none*.jpg"), str(folder / "empty")]
    good = str(folder / "a.jpg")
    assert resrt.find_images([*bad, good]) == [*bad, good]
    assert run(engine_file, *bad, good) == 3
    out, error = capsys.readouterr()
    assert out.startswith(good)
    assert error.splitlines()[-1] == "resrt: skipped 2 of 3 images"
    assert run(engine_file, *bad) == 1
    assert "no file matches" in capsys.readouterr().err


def test_unreadable_paths_are_reported(
    engine_file: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = str(folder / "a.jpg"), unreadable(folder)
    assert resrt.find_images([*bad, good]) == [*bad, good]
    records = list(resrt.classify(engine_file, [*bad, good]))
    assert [record.error is None for record in records] == [False] * len(bad) + [True]
    reasons = ["File name too long", "Not a directory", "Too many levels of symbolic links", "null"]
    for record, reason in zip(records, reasons, strict=False):
        assert reason in (record.error or "")
    assert run(engine_file, *bad, good) == 3
    out, error = capsys.readouterr()
    assert out.startswith(good)
    *lines, last = error.splitlines()
    assert [line[:16] for line in lines] == ["resrt: skipped: "] * len(bad)
    assert last == f"resrt: skipped {len(bad)} of {len(bad) + 1} images"


@pytest.fixture
def locked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A subfolder that may not be read, not even by root, for whom permissions do not count."""
    locked = folder / "locked"
    locked.mkdir()
    scandir, stat = os.scandir, Path.stat

    def refuse(path: str | Path) -> None:
        if locked in (Path(path).absolute(), *Path(path).absolute().parents):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    def checked_scandir(path: str) -> Any:
        refuse(path)
        return scandir(path)

    def checked_stat(path: Path, **options: bool) -> os.stat_result:
        refuse(path)
        return stat(path, **options)

    monkeypatch.setattr(os, "scandir", checked_scandir)
    monkeypatch.setattr(Path, "stat", checked_stat)
    return locked


def test_unreadable_folders_are_reported(
    engine_file: Path,
    folder: Path,
    locked: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = resrt.find_images([folder])
    assert len(files) == IMAGES + 1
    assert str(locked) in files
    (record,) = resrt.classify(engine_file, [locked])
    assert record.error == f"cannot read the image '{locked}': Permission denied"
    assert run(engine_file, folder / "deeper", locked) == 3
    assert f"resrt: skipped: {record.error}\n" in capsys.readouterr().err
    monkeypatch.chdir(folder)
    assert "locked" in resrt.find_images(["."])
    # Names that cannot be looked up are not patterns.
    assert resrt.find_images([locked, locked / "b[1].jpg"]) == [str(locked), f"{locked}/b[1].jpg"]


def test_folders_that_a_pattern_cannot_read_are_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = folder / "locked"
    (locked / "deeper").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    access = os.access

    def refuse(path: str | Path, mode: int) -> bool:
        return Path(path) not in (locked, folder / ".hidden") and access(path, mode)

    monkeypatch.setattr(os, "access", refuse)
    for pattern in ("**/*.jpg", "*/*.jpg", "*/deeper/*.jpg", "l*/x.jpg"):
        found = resrt.find_images([folder / pattern])
        assert str(locked) in found
        assert str(folder / ".hidden") not in found
        assert str(folder / "a.jpg") in found or pattern != "**/*.jpg"
    assert str(locked) not in resrt.find_images([folder / "*.jpg"])


def test_links_to_folders_are_not_followed(folder: Path) -> None:
    (folder / "deeper" / "again").symlink_to(folder)
    assert len(resrt.find_images([folder])) == IMAGES


def test_only_supported_formats_are_listed(folder: Path) -> None:
    for name in ("x.eps", "x.pdf", "x.psd", "x.tiff", "x.MPO", "x.gif", "x.pgm", "x.bmp", "x.jfif"):
        (folder / "deeper" / name).touch()
    listed = [Path(file).name for file in resrt.find_images([folder / "deeper"])]
    assert listed == ["B.PNG", "x.MPO", "x.bmp", "x.gif", "x.jfif", "x.pgm", "x.tiff"]


def test_limit_of_pixels(
    engine_file: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Only deep.png has fewer, and broken.jpg has no header.
    monkeypatch.setenv("RESRT_MAX_PIXELS", "5000")
    assert run(engine_file, folder) == 3
    out, error = capsys.readouterr()
    assert out.startswith(str(folder / "deep.png"))
    assert error.count("more than the limit of ") == IMAGES - 2
    assert error.count("; set RESRT_MAX_PIXELS to a higher limit") == IMAGES - 2
    monkeypatch.setenv("RESRT_MAX_PIXELS", "many")
    message = "RESRT_MAX_PIXELS must be a number of pixels, such as 500000000, not 'many'"
    with pytest.raises(resrt.InputError, match=message):
        resrt.classify(engine_file, [])
    assert run(engine_file, folder) == 1
    assert capsys.readouterr() == ("", f"resrt: {message}\n")


def test_json_of_logits_that_are_not_finite(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON has no number for the probabilities."""
    graph = resrt.build_graph(resrt.ResNet(depths=[1], width=8), classes=3, input_size=16)
    weights = resrt._core.random_weights(graph, 1)
    weights["fc.weight"][:] = 3e38
    resrt.build(graph, weights, precision="fp32").save(tmp_path / "x.engine")
    out = tmp_path / "out"
    arguments = [tmp_path / "x.engine", folder / "a.jpg", "--topk", "1", "--format", "json"]
    assert run(*arguments) == 0
    (prediction,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["predictions"]
    assert prediction["probability"] is None
    assert run(*arguments, "-o", out) == run(*arguments, "-o", out, "--resume") == 0
    assert out.read_text().count("\n") == 1


def test_files_are_read_only_a_little_ahead(engine_file: Path) -> None:
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield PHOTOS / "china.jpg"

    records = resrt.classify(engine_file, endless(), workers=2)
    for _ in range(3):
        assert next(records).error is None
    assert taken < 50
    records.close()  # type: ignore[attr-defined]


def test_arguments_are_checked_first(engine_file: Path) -> None:
    with pytest.raises(resrt.InputError, match="topk"):
        resrt.classify(engine_file, [], topk=0)
    with pytest.raises(resrt.InputError, match="workers"):
        resrt.classify(engine_file, [], workers=0)
    config = resrt.ResNet(depths=[1], width=8)
    odd = resrt.build(config, "random", input_size=16, in_channels=5, classes=3)
    with pytest.raises(resrt.InputError, match="5 input channels cannot classify photographs"):
        batches.infer_files(odd, [], lambda _, outputs: outputs)
    assert list(resrt.classify(engine_file, [])) == []


def test_find_images(folder: Path) -> None:
    (folder / ".hidden").mkdir()
    (folder / "deeper" / "b[1].jpg").write_bytes(b"")
    (folder / ".hidden" / "x.jpg").write_bytes(b"")

    def names(*paths: str) -> list[str]:
        return [Path(file).name for file in resrt.find_images(folder / path for path in paths)]

    assert names("deeper") == ["B.PNG", "b[1].jpg"]
    assert names("c*", "a.jpg", "missing.jpg") == ["c.webp", "cmyk.jpg", "a.jpg", "missing.jpg"]
    assert names("**/*.jpg") == ["a.jpg", "broken.jpg", "cmyk.jpg", "b[1].jpg"]
    assert names("deeper/b[1].jpg") == ["b[1].jpg"]  # not a pattern, as the file exists
    assert resrt.find_images([]) == []


def test_find_images_without_images(tmp_path: Path) -> None:
    with pytest.raises(resrt.FileError, match="and its subfolders contain no images"):
        resrt.find_images([tmp_path])
    with pytest.raises(resrt.FileError, match="no file matches"):
        resrt.find_images([str(tmp_path / "*.jpg")])


def test_command_prints_text(
    engine_file: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(engine_file, folder / "a.jpg", str(folder / "*.webp"), "-k", "2") == 0
    out, error = capsys.readouterr()
    assert error == ""
    lines = out.splitlines()
    assert [lines[0], lines[3]] == [str(folder / "a.jpg"), str(folder / "c.webp")]
    assert all("%" in line for line in lines[1:3] + lines[4:])
    assert len(lines) == 6


def test_command_reports_skipped_images(
    engine_file: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(engine_file, folder, "--format", "json", "--topk", "1") == 3
    out, error = capsys.readouterr()
    assert error.count("resrt: skipped: ") == 1
    assert "broken.jpg" in error
    records = [json.loads(line) for line in out.splitlines()]
    assert len(records) == IMAGES
    assert [r["image"] for r in records if "error" in r] == [str(folder / "broken.jpg")]
    (prediction,) = records[0]["predictions"]
    assert prediction.keys() == {"index", "label", "probability"}


@pytest.mark.parametrize("format_", ["json", "csv"])
def test_interrupted_run_is_resumed(
    engine_file: Path, folder: Path, tmp_path: Path, format_: str
) -> None:
    out = tmp_path / "out"
    options = ["--format", format_, "-o", out]
    assert run(engine_file, folder, *options) == 3
    whole = out.read_bytes()
    header = 1 if format_ == "csv" else 0
    assert whole.count(b"\n") == IMAGES + header
    for cut in (len(whole), len(whole) - 1, len(whole) // 2, 10, 0):
        out.write_bytes(whole[:cut])
        # Images that were skipped before are reported again.
        assert run(engine_file, folder, *options, "--resume") == 3
        assert out.read_bytes() == whole
    assert run(engine_file, folder / "a.jpg", *options[:2], "-o", tmp_path / "x", "--resume") == 0


def test_csv_columns(engine_file: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    run(engine_file, folder, "--format", "csv", "-o", out, "-k", "2")
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert list(rows[0])[:5] == ["image", "error", "index_1", "label_1", "probability_1"]
    assert len(rows) == IMAGES
    assert float(rows[0]["probability_1"]) >= float(rows[0]["probability_2"]) > 0
    broken = next(row for row in rows if row["error"])
    assert broken["label_1"] == ""


def test_existing_results_are_never_overwritten(
    engine_file: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.write_text("precious\n")
    for options, message in [
        (["--format", "csv"], "exists; resume it with --resume, or name another file"),
        (["--format", "csv", "--resume"], "its columns differ from this output format"),
        (["--format", "json", "--resume"], "record 1 does not match this output format"),
    ]:
        assert run(engine_file, folder, "-o", out, *options) == 1
        assert message in capsys.readouterr().err
        assert out.read_text() == "precious\n"
    assert run(engine_file, folder, "-o", tmp_path / "no" / "x", "--format", "csv") == 1
    assert "cannot write" in capsys.readouterr().err
    assert run(engine_file, folder, "-o", tmp_path / "x") == 2
    assert "-o requires --format json or csv" in capsys.readouterr().err
    for option in ("resume", "overwrite"):
        assert run(engine_file, folder, "--format", "csv", f"--{option}") == 2
        message = f"--{option} requires the file to {option}: name it with -o"
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("format_", ["json", "csv"])
def test_another_models_results_are_not_resumed(
    engine_file: Path,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    format_: str,
) -> None:
    other = tmp_path / "other.engine"
    config = resrt.ResNet(depths=[1, 1], width=8)
    weights = resrt._core.random_weights(resrt.build_graph(config), 1)
    resrt.build(config, weights, input_size=32, max_batch=2, precision="fp32").save(other)
    out = tmp_path / "out"
    monkeypatch.chdir(folder)
    options = ["--format", format_, "-o", out]
    assert run(engine_file, "a.jpg", *options) == 0
    whole = out.read_bytes()
    for arguments, difference in (
        ([other, "a.jpg", "c.webp"], "weights_sha256 "),
        ([engine_file, "a.jpg", "c.webp", "--exact"], "exact false, not with exact true; resume"),
        ([engine_file, folder / "c.webp"], f'folder "{folder}", not with folder null; resume it'),
    ):
        assert run(*arguments, *options, "--resume") == 1
        assert f"cannot resume '{out}': it was made with {difference}" in capsys.readouterr().err
        assert out.read_bytes() == whole
    # Neither are those of an image that was replaced.
    picture = (folder / "a.jpg").read_bytes()
    (folder / "a.jpg").write_bytes((folder / "c.webp").read_bytes())
    assert run(engine_file, "a.jpg", "c.webp", *options, "--resume") == 1
    error = capsys.readouterr().err
    assert f"cannot resume '{out}': 'a.jpg' was changed after it; name another file" in error
    (folder / "a.jpg").write_bytes(picture)
    os.utime(folder / "a.jpg", ns=(0, 0))  # as cp -p, with which another file may replace it
    assert run(engine_file, "a.jpg", "c.webp", *options, "--resume") == 1
    assert "'a.jpg' was changed after it" in capsys.readouterr().err
    os.utime(out)
    # The same name in another folder is another image.
    monkeypatch.chdir(tmp_path)
    assert run(engine_file, "a.jpg", *options, "--resume") == 1
    monkeypatch.chdir(folder)
    assert run(engine_file, "a.jpg", "c.webp", *options, "--resume", "--workers", "1") == 0
    assert out.read_bytes().startswith(whole)
    assert out.read_bytes().count(b"c.webp") == 1
    metadata = tmp_path / "out.meta.json"
    assert metadata.exists() == (format_ == "csv")
    if format_ == "csv":
        metadata.unlink()
        assert run(engine_file, "a.jpg", *options, "--resume") == 1
        assert f"as '{metadata}' is missing; name another file" in capsys.readouterr().err
        metadata.write_text("{")
        assert run(engine_file, "a.jpg", *options, "--resume") == 1
        assert f"'{metadata}' is damaged" in capsys.readouterr().err
    assert run(other, "a.jpg", *options, "--overwrite") == 0
    assert out.read_bytes().count(b"c.webp") == 0
    assert run(other, "c.webp", *options, "--resume") == 0


def test_missing_engine_leaves_no_results(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options in ([], ["-o", tmp_path / "out.csv"]):
        assert run(tmp_path / "none.engine", folder, "--format", "csv", *options) == 1
        out, error = capsys.readouterr()
        assert out == ""
        assert "none.engine" in error
    assert not (tmp_path / "out.csv").exists()


def test_names_of_any_bytes_from_standard_input(engine_file: Path, folder: Path) -> None:
    odd = os.fsencode(folder) + b'/caf\xe9\r\x1b, "x".jpg'
    os.rename(os.fsencode(folder / "a.jpg"), odd)  # noqa: PTH104 - of bytes
    names = []
    for format_ in ("text", "json", "csv"):
        result = subprocess.run(
            [sys.executable, "-m", "resrt", "classify", engine_file, "-", "--format", format_],
            input=odd + b"\n\n" + os.fsencode(folder / "c.webp") + b"\r\n",
            env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
            capture_output=True,
            check=False,
        )
        assert (result.returncode, result.stderr) == (0, b"")
        assert b"c.webp" in result.stdout
        if format_ == "text":
            names.append(os.fsdecode(result.stdout.split(b"\n")[0]))
        elif format_ == "json":
            names.append(json.loads(result.stdout.decode().splitlines()[0])["image"])
        else:
            row = list(csv.reader(io.StringIO(result.stdout.decode(), newline="")))[1]
            names.append(records.unescape(row[0]))
    assert names == [os.fsdecode(odd)] * 3


def test_resumed_files_recognise_odd_names(engine_file: Path, folder: Path, tmp_path: Path) -> None:
    odd = os.fsencode(folder) + b"/caf\xe9\r\n\\x41.jpg"
    os.rename(os.fsencode(folder / "a.jpg"), odd)  # noqa: PTH104 - of bytes
    for format_ in ("json", "csv"):
        out = tmp_path / format_
        options = ["--format", format_, "-o", out]
        assert run(engine_file, os.fsdecode(odd), *options) == 0
        whole = out.read_bytes()
        whole.decode()
        assert run(engine_file, os.fsdecode(odd), *options, "--resume") == 0
        assert out.read_bytes() == whole


def test_control_characters_do_not_reach_a_terminal(folder: Path, tmp_path: Path) -> None:
    config = resrt.ResNet(depths=[1], width=8)
    labels = ["cat\x1b]0;title\x07", "dog\x9b31m"]
    engine = resrt.build(config, "random", input_size=16, classes=2, labels=labels)
    engine.save(tmp_path / "x.engine")
    image = (folder / "a.jpg").rename(folder / "a\x1b[31m\nb.jpg")
    arguments = ["classify", str(tmp_path / "x.engine"), str(image)]
    shown = run_resrt(*arguments, stream="stdout")
    assert r"a\x1b[31m\x0ab.jpg" in shown
    assert r"cat\x1b]0;title\x07" in shown
    assert r"dog\x9b31m" in shown
    assert not {"\x1b", "\x07", "\x9b"} & set(shown)
    # In a file, names and labels are unchanged.
    result = subprocess.run([sys.executable, "-m", "resrt", *arguments], stdout=subprocess.PIPE)
    assert f"{image}\n".encode() in result.stdout
    shown = run_resrt("inspect", str(tmp_path / "x.engine"), stream="stdout")
    assert not {"\x1b", "\x07", "\x9b"} & set(shown)


def test_control_characters_are_not_in_messages(
    engine_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(engine_file, "\x1b]31m\r\nx\x9b.jpg", "\udc9b\udce9.jpg") == 3
    error = capsys.readouterr().err
    assert error.splitlines() == [
        rf"resrt: skipped: cannot read the image '\x1b]31m\x0d\x0ax\x9b.jpg': {MISSING}",
        rf"resrt: skipped: cannot read the image '\x9b\xe9.jpg': {MISSING}",
        "resrt: skipped 2 of 2 images",
    ]
    assert run("\x1b.engine", "x.jpg") == 1
    assert r"\x1b.engine" in capsys.readouterr().err


def test_memory_of_images_is_reused(engine_file: Path) -> None:
    list(resrt.classify(engine_file, [PHOTOS / "china.jpg"], workers=3))
    before = Image.core.get_stats()["allocated_blocks"]
    list(resrt.classify(engine_file, [PHOTOS / "china.jpg"] * 10, workers=3))
    assert Image.core.get_stats()["allocated_blocks"] <= before + 6


def test_several_labels_and_a_threshold(
    engine_file: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine, photo = resrt.load(engine_file), folder / "a.jpg"
    batch = resrt.preprocess(photo, engine.info.preprocessing)[None]
    logits = engine.logits(batch)[0].astype(float)
    order = np.argsort(-logits)
    (found,) = resrt.classify(engine, [photo], multilabel=True, topk=3, exact=True)
    assert [one.index for one in found.predictions] == list(order[:3])
    expected = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(
        [one.probability for one in found.predictions], expected[order[:3]], rtol=1e-5
    )
    assert engine.classify(photo, topk=3, multilabel=True) == [found.predictions]
    middle = float(expected[order[:2]].mean())
    (row,) = engine.classify(photo, multilabel=True, threshold=middle)
    assert row == found.predictions[:1]
    assert engine.classify(photo, threshold=1) == [[]]
    assert run(engine_file, photo, "--multilabel", "--threshold", str(middle), "--exact") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    arguments = ["--format", "csv", "--threshold", "1"]
    assert run(engine_file, photo, *arguments) == 0
    assert capsys.readouterr().out.splitlines()[1] == f"{photo}," + "," * 15
    for threshold in (-0.1, 1.5, "x", True):
        with pytest.raises(resrt.InputError, match="threshold must be a number from 0 to 1"):
            resrt.classify(engine, [], threshold=threshold)  # type: ignore[arg-type]
    with pytest.raises(SystemExit, match="2"):
        run(engine_file, photo, "--threshold", "2")


def test_sigmoids_of_extreme_logits() -> None:
    logits = np.array([[-1e30, 0, 1e30, np.nan]], np.float32)
    (row,) = resrt.images.top_k(logits, 4, [], multilabel=True)
    by_class = {one.index: one.probability for one in row}
    assert [by_class[i] for i in range(3)] == [0, 0.5, 1]
    assert np.isnan(by_class[3])
