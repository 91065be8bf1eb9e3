"""`resrt.eval` and `resrt eval`: accuracy on folders and lists, also across interruptions."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import resrt
from resrt import cli
from resrt.operations import demo, records
from resrt.operations import eval as evaluation
from support.digits import write_digits


@pytest.fixture(scope="module")
def engine_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engines") / "digits.engine"
    demo.build_engine("fp32").save(path)
    return path


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"))


def test_the_demos_accuracy_is_reproduced(engine_file: Path, digits: Path) -> None:
    """From folders and from a list of the same files, as the demo computes it from arrays."""
    scans, labels = demo.held_out()
    best = [row[0].index for row in demo.build_engine("fp32").classify(list(scans), topk=1)]
    expected = np.mean(np.array(best) == labels)
    for data in (digits, digits / "list.txt"):
        found = resrt.eval(engine_file, data)
        assert found.total == len(labels)
        assert found.top1.value == expected
        assert found.top1.low < found.top1.value <= found.top5.value <= found.top5.high <= 1
        assert (found.published_top1, found.skipped) == (None, [])


def test_wrong_labels(engine_file: Path, digits: Path) -> None:
    engine = resrt.load(engine_file)
    right = evaluation.labelled_images(digits, engine)
    wrong = [evaluation.LabelledImage(image.image, (image.label + 1) % 10) for image in right]
    assert resrt.eval(engine, wrong).top1.value < 0.05
    # A rank is the position among the most probable classes.
    ranks: list[evaluation.Rank] = []
    resrt.eval(engine, wrong[:20], each=ranks.append)
    for rank in ranks:
        (row,) = engine.classify(rank.image, topk=10)
        assert row[rank.rank or 0].index == rank.label


@pytest.mark.parametrize("bias", [3e38, -3e38])
def test_images_whose_logits_overflow_count_as_wrong(digits: Path, bias: float) -> None:
    parameters = dict(resrt.weights.read(demo.weights_path()).arrays)
    parameters["fc.weight"] = np.full_like(parameters["fc.weight"], bias)
    parameters["fc.bias"] = np.full_like(parameters["fc.bias"], bias)
    engine = resrt.build(
        demo.graph(), parameters, precision="fp32", preprocessing=demo.PREPROCESSING
    )
    ranks: list[evaluation.Rank] = []
    found = resrt.eval(engine, digits, limit=20, each=ranks.append)
    assert (found.total, found.top1.value, found.top5.value) == (20, 0, 0)
    assert {rank.rank for rank in ranks} == {10}


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    # R's binom::binom.wilson.
    [(10, 10, 0.7224672, 1.0), (0, 10, 0.0, 0.2775328), (80, 100, 0.7111708, 0.8666331)],
)
def test_interval(correct: int, total: int, low: float, high: float) -> None:
    accuracy = evaluation._accuracy(correct, total)
    assert (accuracy.value, accuracy.low, accuracy.high) == pytest.approx(
        (correct / total, low, high), abs=1e-6
    )


def test_limit_samples_evenly(digits: Path, engine_file: Path) -> None:
    engine = resrt.load(engine_file)
    listed = resrt.labelled_images(digits, engine)
    some = resrt.labelled_images(digits, engine, limit=30)
    assert len(some) == 30
    assert {image.label for image in some} == set(range(10))
    assert resrt.labelled_images(digits, engine, limit=10**6) == listed
    ranks: list[resrt.Rank] = []
    assert resrt.eval(engine, listed, limit=30, each=ranks.append).total == 30
    assert [rank.image for rank in ranks] == [image.image for image in some]
    message = "limit must be an integer of at least 1, not 0"
    with pytest.raises(resrt.InputError, match=message):
        resrt.labelled_images(digits, engine, limit=0)
    with pytest.raises(resrt.InputError, match=message):
        resrt.eval(engine, digits, limit=0)


def folders(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
        Image.new("L", (8, 8)).save(root / name / "x.png")
    return root


def test_root_is_only_for_a_list(engine_file: Path, digits: Path) -> None:
    engine = resrt.load(engine_file)
    listed = resrt.labelled_images(digits / "list.txt", engine, root=digits)
    for data in (digits, listed):
        with pytest.raises(resrt.InputError, match="root is only for a list file"):
            resrt.eval(engine, data, root=digits)


def test_names_of_folders(tmp_path: Path) -> None:
    def numbers(root: Path, engine: resrt.Engine) -> list[int]:
        return [image.label for image in evaluation.labelled_images(root, engine)]

    config = resrt.ResNet(depths=[1], width=8)
    of_animals = resrt.build(
        config, "random", input_size=16, classes=3, in_channels=1, labels=["cat", "dog", "ant"]
    )
    assert numbers(folders(tmp_path / "labels", "ant", "cat"), of_animals) == [2, 0]
    assert numbers(folders(tmp_path / "numbers", "1", "2"), of_animals) == [1, 2]
    assert numbers(folders(tmp_path / "sorted", "x", "y", "z"), of_animals) == [0, 1, 2]
    message = "'.*few' has 2 subfolders, such as 'x', but ResNet has 3 classes"
    with pytest.raises(resrt.InputError, match=message):
        numbers(folders(tmp_path / "few", "x", "y"), of_animals)
    with pytest.raises(resrt.FileError, match="has no subfolders; expected one per class"):
        numbers(tmp_path / "few" / "x", of_animals)

    imagenet = resrt.build(config, "random", input_size=16, in_channels=1)
    assert numbers(folders(tmp_path / "wordnet", "n01443537", "n15075141"), imagenet) == [1, 999]
    assert imagenet.info.labels[1].startswith("goldfish")
    # Two classes are called crane, so that name stands for neither of them.
    assert imagenet.info.labels.count("crane") == 2
    with pytest.raises(resrt.InputError, match="'crane'"):
        numbers(folders(tmp_path / "crane", "crane"), imagenet)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("a.png\n", "line 1 of .*must be a path and a class number, such as"),
        ("a.png 1\nb.png one\n", "line 2 of"),
        ("a.png 10\n", "labelled as class 10, but ResNeSt14_digits has classes 0 to 9"),
        ("missing.png 1\n", "none of the 1 images could be read; the first: .*missing.png"),
    ],
)
def test_invalid_lists(engine_file: Path, tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "list.txt"
    path.write_text(content)
    with pytest.raises(resrt.InputError, match=message):
        resrt.eval(engine_file, path)
    with pytest.raises(resrt.FileError, match="no folder or list file"):
        resrt.eval(engine_file, tmp_path / "none")


def test_unreadable_images_are_skipped(
    engine_file: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = (digits / "list.txt").read_text().splitlines()[0]
    path = tmp_path / "list.txt"
    path.write_text(f"{good}\n{'a' * 300}.png 1\nlist.txt/x.png 2\n", newline="\r\n")
    assert run(engine_file, path, "--root", digits) == 3
    error = capsys.readouterr().err
    *lines, last = error.splitlines()
    assert [line[:16] for line in lines] == ["resrt: skipped: "] * 2
    assert last == "resrt: skipped 2 of 3 images"
    for reason in ("File name too long", "Not a directory"):
        assert reason in error


def test_unreadable_folder_of_a_class_is_skipped(
    engine_file: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if Path(path) == digits / "3":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = resrt.eval(engine_file, digits)
    assert [(rank.image, rank.label) for rank in found.skipped] == [(str(digits / "3"), 3)]
    assert found.total > 300


def test_folders_of_classes_that_cannot_be_reached_are_skipped(
    engine_file: Path, digits: Path, tmp_path: Path
) -> None:
    for name in ("0", "1"):
        (tmp_path / name).symlink_to(digits / name)
    (tmp_path / "2").symlink_to(tmp_path / "2")
    (tmp_path / "3").symlink_to(tmp_path / "nowhere")
    found = resrt.eval(engine_file, tmp_path)
    assert [(Path(rank.image).name, rank.label) for rank in found.skipped] == [("2", 2), ("3", 3)]
    assert "Too many levels of symbolic links" in (found.skipped[0].error or "")
    assert run(engine_file, tmp_path) == 3


@pytest.mark.parametrize("name", ["a" * 300, "list.txt/x"])
def test_unreadable_data(engine_file: Path, digits: Path, name: str) -> None:
    with pytest.raises(resrt.FileError, match=f"cannot read the list '{digits / name}': "):
        resrt.eval(engine_file, digits / name)


def test_data_folder_that_may_not_be_read(
    engine_file: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(resrt.FileError, match=f"cannot read the folder '{digits}': Permission"):
        resrt.eval(engine_file, digits)


def test_limit_of_pixels(engine_file: Path, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESRT_MAX_PIXELS", "20")
    with pytest.raises(resrt.InputError, match="none of .* more than the limit of 20;"):
        resrt.eval(engine_file, digits, limit=3)
    monkeypatch.setenv("RESRT_MAX_PIXELS", "-1")
    with pytest.raises(resrt.InputError, match="RESRT_MAX_PIXELS must be a number of pixels"):
        resrt.eval(engine_file, digits, limit=3)


def run(*arguments: str | Path) -> int:
    return cli.main(["eval", *map(str, arguments)])


def test_command(engine_file: Path, digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(engine_file, digits) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        "ResNeSt14_digits on 359 images, with 95% confidence intervals:\n  top-1 "
    )
    assert run(engine_file, digits / "list.txt", "--limit", "20", "--format", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["total"] == 20
    assert document["top1"]["low"] < document["top1"]["value"]


def test_interrupted_run_is_resumed(
    engine_file: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / "list.txt"
    lines = (digits / "list.txt").read_text().splitlines()[:12]
    listed.write_text("\n".join([*lines, "missing.png 3"]))
    out = tmp_path / "ranks.jsonl"
    arguments = [engine_file, listed, "--root", digits, "-o", out]
    assert run(*arguments) == 3  # one was skipped
    whole = out.read_text()
    first = capsys.readouterr()
    assert "missing.png" in first.err
    assert whole.count("\n") == 13
    out.write_text(whole[: len(whole) // 2])
    assert run(*arguments, "--resume") == 3
    assert out.read_text() == whole
    assert capsys.readouterr() == first
    assert run(*arguments) == 1
    assert "exists" in capsys.readouterr().err
    assert run(engine_file, listed, "--resume") == 2
    # Known ranks are read from the file, not computed again.
    out.write_text(whole.replace('"rank": 0', '"rank": 7'))
    assert run(*arguments, "--resume") == 3
    assert "top-5  0.00%" in capsys.readouterr().out


@pytest.fixture(scope="module")
def other_engine_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's network with other weights."""
    parameters = dict(resrt.weights.read(demo.weights_path()).arrays)
    parameters["fc.bias"] = parameters["fc.bias"][::-1].copy()
    engine = resrt.build(
        demo.graph(), parameters, precision="fp32", preprocessing=demo.PREPROCESSING
    )
    path = tmp_path_factory.mktemp("engines") / "other.engine"
    engine.save(path)
    return path


def test_another_models_results_are_not_resumed(
    engine_file: Path,
    other_engine_file: Path,
    digits: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "ranks.jsonl"
    assert run(engine_file, digits, "--limit", "20", "-o", out) == 0
    whole = out.read_bytes()
    capsys.readouterr()
    for arguments, difference in (
        ([other_engine_file, digits, "--limit", "20"], "was made with weights_sha256 "),
        ([engine_file, digits, "--limit", "10"], "was made with limit 20, images 20, images_sha"),
        ([engine_file, digits], "was made with limit 20, images 20, "),
        ([engine_file, digits / "list.txt", "--limit", "20"], f'was made with data "{digits}", '),
    ):
        assert run(*arguments, "-o", out, "--resume") == 1
        shown, error = capsys.readouterr()
        assert (shown, error.count("\n")) == ("", 1)
        assert f"cannot resume '{out}': it {difference}" in error
        assert out.read_bytes() == whole
    # Neither are those of another version of the library, nor of an image that was replaced.
    with monkeypatch.context() as patched:
        patched.setattr(records.backends, "version", lambda _: "0.1")
        assert run(engine_file, digits, "--limit", "20", "-o", out, "--resume") == 1
        assert 'with backend "openvino 0.1"; resume' in capsys.readouterr().err
    images = [json.loads(line)["image"] for line in whole.splitlines()]
    content, times = Path(images[0]).read_bytes(), Path(images[0]).stat()
    Path(images[0]).write_bytes(Path(images[-1]).read_bytes())
    assert run(engine_file, digits, "--limit", "20", "-o", out, "--resume") == 1
    assert "was made with images_sha256 " in capsys.readouterr().err
    Path(images[0]).write_bytes(content)
    os.utime(images[0], ns=(times.st_atime_ns, times.st_mtime_ns))
    assert run(engine_file, digits, "--limit", "20", "-o", out, "--resume") == 1
    assert f"'{images[0]}' was changed after it" in capsys.readouterr().err
    os.utime(out)
    # The number of workers and the name of the engine file make no difference.
    same = tmp_path / "same.engine"
    same.write_bytes(engine_file.read_bytes())
    assert run(same, digits, "--limit", "20", "-o", out, "--resume", "--workers", "1") == 0
    assert out.read_bytes() == whole
    assert run(other_engine_file, digits, "--limit", "20", "-o", out, "--overwrite") == 0
    assert out.read_bytes().count(b"\n") == 20
    assert out.read_bytes() != whole


def test_published_accuracies() -> None:
    summary = evaluation._summary("ResNet50_vd", [evaluation.Rank("a.png", 1, 0)])
    assert (summary.published_top1, summary.published_top5) == (0.791, 0.944)
