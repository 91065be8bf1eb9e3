"""`resrt.eval(..., multilabel=True)` and `resrt eval --multilabel`: images with several labels."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import resrt
from resrt import _core, cli
from resrt.operations.eval import multilabel

CLASSES = 4
STEPS = resrt.Preprocessing(resize=16, interpolation="bilinear", mean=[0.5] * 3, std=[0.25] * 3)


@pytest.fixture(scope="module")
def engine_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = resrt.ResNet(depths=[1], width=8)
    graph = resrt.build_graph(config, classes=CLASSES, input_size=16)
    arrays = dict(_core.random_weights(graph, 1))
    engine = resrt.build(
        config, arrays, input_size=16, precision="fp32", preprocessing=STEPS, tune=0
    )
    path = tmp_path_factory.mktemp("engines") / "x.engine"
    engine.save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for i in range(9):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / f"a {i}.png")
    lines = ["0 2", "1", "", "3 0 3", "2", "1 2", "0", "", "3 1"]
    (tmp_path / "list.txt").write_text(
        "".join(f"a {i}.png\t{line}\n" for i, line in enumerate(lines))
    )
    return tmp_path


def naive_average_precision(scores: list[float], is_shown: list[bool]) -> float:
    """The sum over thresholds of the precision there times what the recall grows by."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        found = [shown for score, shown in zip(scores, is_shown, strict=True) if score >= threshold]
        recall = sum(found) / sum(is_shown)
        total += sum(found) / len(found) * (recall - before)
        before = recall
    return total


def test_average_precision() -> None:
    rng = np.random.default_rng(0)
    for count in (1, 2, 7, 50):
        for levels in (2, 5, 1000):  # few levels make scores that are the same
            scores = rng.integers(0, levels, count) / levels
            is_shown = rng.random(count) < 0.4
            is_shown[0] = True
            expected = naive_average_precision(scores.tolist(), is_shown.tolist())
            assert multilabel.average_precision(scores, is_shown) == pytest.approx(expected)
    best = multilabel.average_precision(np.array([0.9, 0.8, 0.1]), np.array([True, True, False]))
    assert best == 1


def test_metrics(engine_file: Path, folder: Path) -> None:
    engine = resrt.load(engine_file)
    listed = resrt.multilabelled_images(folder / "list.txt", engine)
    assert [image.labels for image in listed[:4]] == [(0, 2), (1,), (), (0, 3)]
    assert listed[0].image == str(folder / "a 0.png")
    each: list[resrt.Scores] = []
    found = resrt.eval(engine, listed, multilabel=True, threshold=0.4, each=each.append)
    batch = np.stack([resrt.preprocess(one.image, engine.info.preprocessing) for one in listed])
    probabilities = 1 / (1 + np.exp(-engine.infer(batch).astype(np.float64)))
    np.testing.assert_allclose([one.probabilities for one in each], probabilities, atol=1e-6)
    shown = np.array([[c in image.labels for c in range(CLASSES)] for image in listed])
    precisions = [
        naive_average_precision(probabilities[:, c].tolist(), shown[:, c].tolist())
        for c in range(CLASSES)
    ]
    assert found.mean_average_precision == pytest.approx(np.mean(precisions))
    said = probabilities >= 0.4
    assert (found.total, found.classes, found.threshold) == (9, 4, 0.4)
    assert found.precision == pytest.approx((said & shown).sum() / said.sum())
    assert found.recall == pytest.approx((said & shown).sum() / shown.sum())
    assert found.f1 == pytest.approx(2 * (said & shown).sum() / (said.sum() + shown.sum()))
    few = resrt.eval(engine, folder / "list.txt", multilabel=True, limit=2)
    assert few.total == 2
    nothing = resrt.eval(engine, listed, multilabel=True, threshold=1)
    assert math.isnan(nothing.precision)
    assert (nothing.recall, nothing.f1) == (0, 0)


def test_lines_of_other_forms(engine_file: Path, tmp_path: Path) -> None:
    engine = resrt.load(engine_file)
    path = tmp_path / "list.txt"
    path.write_bytes(
        b"a.png 3 1\nmy  photo.png 0\r\nb.png\t0,1,0,1\nc.png 1,0,0,0\n\n2.png\t\ncaf\xe9.png 2\n"
    )
    found = [
        (Path(image.image).name, image.labels)
        for image in resrt.multilabelled_images(path, engine, root=tmp_path / "photos")
    ]
    assert found == [
        ("a.png", (1, 3)),
        ("my  photo.png", (0,)),
        ("b.png", (1, 3)),
        ("c.png", (0,)),
        ("2.png", ()),
        ("caf\udce9.png", (2,)),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.png\t4", "line 1 of .* has the class 4, but ResNet has classes 0 to 3"),
        ("a.png\tcat", "must be a path, a tab and class numbers"),
        ("a.png\t-1", "must be a path, a tab and class numbers"),
        ("a.png\t0,1", "must have a 0 or 1 for each of the 4 classes"),
        ("a.png\t0,1,2,0", "must have a 0 or 1 for each of the 4 classes"),
        ("\t1", "must be a path, a tab and class numbers"),
        ("", "is empty"),
    ],
)
def test_invalid_lists(engine_file: Path, tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "list.txt").write_text(line)
    with pytest.raises(resrt.InputError, match=message):
        resrt.multilabelled_images(tmp_path / "list.txt", resrt.load(engine_file))


def test_folders_and_missing_lists(engine_file: Path, folder: Path) -> None:
    engine = resrt.load(engine_file)
    with pytest.raises(resrt.FileError, match="is a folder, whose subfolders give each image one"):
        resrt.eval(engine, folder, multilabel=True)
    with pytest.raises(resrt.FileError, match="cannot read the list"):
        resrt.eval(engine, folder / "none.txt", multilabel=True)
    with pytest.raises(resrt.InputError, match="threshold must be a number from 0 to 1"):
        resrt.eval(engine, folder / "list.txt", multilabel=True, threshold=2)
    with pytest.raises(resrt.InputError, match="none of the 1 images has a class"):
        resrt.eval(
            engine,
            [resrt.MultilabelledImage(str(folder / "a 0.png"), ())],
            multilabel=True,
        )


def test_command(engine_file: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (folder / "list.txt").open("a") as file:
        file.write("missing.png\t1\n")
    out = folder / "scores.jsonl"
    arguments = ["eval", str(engine_file), str(folder / "list.txt"), "--multilabel"]
    assert cli.main([*arguments, "-o", str(out)]) == 3
    first = capsys.readouterr()
    assert first.out.startswith("ResNet on 9 images of 4 classes:\n  mean average precision  ")
    assert "missing.png" in first.err
    whole = out.read_text()
    assert whole.count("\n") == 10
    out.write_text(whole[: len(whole) // 2])
    assert cli.main([*arguments, "-o", str(out), "--resume"]) == 3
    assert out.read_text() == whole
    assert capsys.readouterr() == first
    assert cli.main([*arguments, "--format", "json", "--threshold", "0.25"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert (document["total"], document["threshold"], len(document["skipped"])) == (9, 0.25, 1)
    # Ranks and scores are not resumed as one another.
    assert cli.main([*arguments[:-1], "-o", str(out), "--resume"]) == 1
    capsys.readouterr()
    for options in (["--threshold", "0.5"], ["--multilabel", "--ray", "local"]):
        assert cli.main([*arguments[:3], *options]) == 2
    assert "--ray does not support --multilabel" in capsys.readouterr().err


def test_scores_that_are_not_finite(engine_file: Path, tmp_path: Path) -> None:
    scores = [
        resrt.Scores("a.png", (0,), (math.nan,) * 4),
        resrt.Scores("b.png", (0, 1), (0.9, 0.1, 0.2, 0.3)),
    ]
    path = tmp_path / "x.jsonl"
    with resrt.records.RecordFile(path, resrt.records.JsonScores()) as file:
        for one in scores:
            file.write(one)
    with resrt.records.RecordFile(path, resrt.records.JsonScores(), resume=True) as file:
        assert repr(file.known) == repr(scores)
    found = multilabel._summary("x", scores, 0.5)
    assert (found.mean_average_precision, found.recall) == (1.0, pytest.approx(1 / 3))
