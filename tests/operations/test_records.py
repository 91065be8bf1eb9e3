"""`resrt.records`: append-only result files that a later run can resume."""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

import resrt
from resrt.operations import records as module
from resrt.operations.records import (
    CsvClassifications,
    Format,
    JsonClassifications,
    JsonRanks,
    RecordFile,
    unescape,
)

ODD = "a\r\n\t\x1b[31m\x00\x7f\x85\x9b\\x41\\\udce9é\u3042.jpg"
CLASSIFICATIONS = [
    resrt.Classification("a.jpg", [resrt.Prediction(3, "cat, tabby", 0.75)]),
    resrt.Classification('b "1".jpg', [resrt.Prediction(0, "größe", 0.5)]),
    resrt.Classification("caf\udce9.jpg", error="cannot read 'caf\udce9.jpg'"),
    resrt.Classification(ODD, [resrt.Prediction(1, "cat\nor dog \\ \x1b", 0.25)]),
    resrt.Classification(ODD, error=f"cannot read '{ODD}'"),
]
RANKS = [
    resrt.Rank("a.jpg", 3, 0),
    resrt.Rank("caf\udce9.jpg", 65, None, "cannot read it"),
    resrt.Rank(ODD, 65, None, f"cannot read '{ODD}'"),
]
FORMATS: list[tuple[Format, list[Any]]] = [
    (JsonClassifications(), CLASSIFICATIONS),
    (CsvClassifications(1), CLASSIFICATIONS),
    (CsvClassifications(2), CLASSIFICATIONS),  # with room for another prediction
    (JsonRanks(), RANKS),
]
each_format = pytest.mark.parametrize(("form", "records"), FORMATS, ids=lambda _: "")


def write(path: Path, form: Format, records: list[Any], *, resume: bool = False) -> list[Any]:
    """Append records, and return those that the file already contained."""
    file = RecordFile(path, form, resume=resume)
    for record in records:
        file.write(record)
    file.close()
    return file.known


@each_format
def test_lines_are_read_back(form: Format, records: list[Any]) -> None:
    for record in records:
        line = form.line(record)
        assert line.splitlines(keepends=True) == [line]
        assert line.endswith("\n")
        assert line.encode()  # it is Unicode
        assert form.read(line.rstrip("\n")) == record


@each_format
def test_every_interruption_can_be_resumed(
    tmp_path: Path, form: Format, records: list[Any]
) -> None:
    path = tmp_path / "records"
    write(path, form, records)
    whole = path.read_bytes()
    assert whole.startswith(form.header.encode())
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        count = whole[:cut].removeprefix(form.header.encode()).count(b"\n")
        count = count if cut >= len(form.header) else 0
        assert write(path, form, records[count:], resume=True) == records[:count]
        assert path.read_bytes() == whole


def test_records_reach_the_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "records"
    file = RecordFile(path, JsonRanks(), resume=False)
    for count, record in enumerate(RANKS, 1):
        file.write(record)
        assert path.read_bytes().count(b"\n") == count
    file.close()


def test_json_and_csv_are_for_other_programs(tmp_path: Path) -> None:
    paths = [tmp_path / "x.jsonl", tmp_path / "x.csv"]
    write(paths[0], JsonClassifications(), CLASSIFICATIONS)
    write(paths[1], CsvClassifications(2), CLASSIFICATIONS)
    documents = [json.loads(line) for line in paths[0].read_text().splitlines()]
    cat = {"index": 3, "label": "cat, tabby", "probability": 0.75}
    assert documents[0] == {"image": "a.jpg", "predictions": [cat]}
    assert documents[2] == {"image": "caf\udce9.jpg", "error": "cannot read 'caf\udce9.jpg'"}
    with paths[1].open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    predictions = ["index_1", "label_1", "probability_1", "index_2", "label_2", "probability_2"]
    assert rows[0] == ["image", "error", *predictions]
    assert rows[1] == ["a.jpg", "", "3", "cat, tabby", "0.75", "", "", ""]
    assert rows[3] == [r"caf\xe9.jpg", r"cannot read 'caf\xe9.jpg'", *[""] * 6]
    assert rows[4][0].startswith(r"a\x0d\x0a\x09\x1b[31m\x00\x7f\xc2\x85\xc2\x9b\\x41\\\xe9é")
    images = [record.image for record in CLASSIFICATIONS]
    assert [unescape(row[0]) for row in rows[1:]] == images
    assert [document["image"] for document in documents] == images


CSV_HEADERS = {topk: CsvClassifications(topk).header for topk in (1, 2)}


@pytest.mark.parametrize(
    ("content", "form", "message"),
    [
        ("precious\n", JsonRanks(), "record 1 does not match this output format"),
        (JsonRanks().line(RANKS[0]) + "3\n", JsonRanks(), "record 2 does not match"),
        (JsonRanks().line(RANKS[0]), JsonClassifications(), "record 1 does not match"),
        (JsonClassifications().line(CLASSIFICATIONS[0]), JsonRanks(), "record 1 does not match"),
        (JsonRanks().line(RANKS[0]), CsvClassifications(1), "its columns differ from this output"),
        (CSV_HEADERS[2], CsvClassifications(1), "its columns differ from this output format"),
        (CSV_HEADERS[1] + "a,b\n", CsvClassifications(1), "record 1 does not match"),
        (CSV_HEADERS[1] + "a,,x,cat,0.5\n", CsvClassifications(1), "record 1 does not match"),
    ],
)
def test_other_files_are_never_overwritten(
    tmp_path: Path, content: str, form: Format, message: str
) -> None:
    path = tmp_path / "records"
    path.write_text(content)
    with pytest.raises(resrt.FileError, match="exists; resume it with --resume, or name another"):
        RecordFile(path, form, resume=False)
    with pytest.raises(resrt.InputError, match=f"cannot resume '{path}': {message}"):
        RecordFile(path, form, resume=True)
    assert path.read_text() == content


def test_missing_file_is_created_when_resuming(tmp_path: Path) -> None:
    assert write(tmp_path / "records", JsonRanks(), RANKS, resume=True) == []
    assert write(tmp_path / "records", JsonRanks(), [], resume=True) == RANKS


def test_unwritable_files(tmp_path: Path) -> None:
    with pytest.raises(resrt.FileError, match="cannot write '.*none/x': No such file"):
        RecordFile(tmp_path / "none" / "x", JsonRanks(), resume=False)
    for resume in (False, True):
        with pytest.raises(resrt.FileError, match="cannot write '.*': File name too long"):
            RecordFile(tmp_path / ("x" * 300), JsonRanks(), resume=resume)
    file = RecordFile(tmp_path / "records", JsonRanks(), resume=False)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(resrt.FileError, match="cannot write '.*records': File too large"):
            file.write(RANKS[0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    file.close()
    # What was cut off is discarded.
    assert write(tmp_path / "records", JsonRanks(), RANKS, resume=True) == []


@each_format
@pytest.mark.parametrize("content", [b"my only copy", b"\0" * 1000, b'{"images"'])
def test_a_file_of_somebody_else_is_not_resumed(
    form: Format, records: list[Any], content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "out"
    path.write_bytes(content)
    with pytest.raises(resrt.InputError, match="does not contain results in this output format"):
        RecordFile(path, form, resume=True)
    assert path.read_bytes() == content


@each_format
def test_two_runs_do_not_write_the_same_file(
    form: Format, records: list[Any], tmp_path: Path
) -> None:
    path = tmp_path / "out"
    with RecordFile(path, form) as first:
        first.write(records[0])
        for options in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(resrt.FileError, match="another process is writing it"):
                RecordFile(path, form, **options)
        first.write(records[1])
    with RecordFile(path, form, resume=True) as second:
        assert second.known == records[:2]


def test_a_link_to_a_file_that_does_not_exist_yet(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "new")
    write(tmp_path / "link", JsonRanks(), RANKS)
    assert write(tmp_path / "new", JsonRanks(), [], resume=True) == RANKS
    assert (tmp_path / "link").is_symlink()


def test_a_file_in_the_place_of_the_metadata_is_not_replaced(tmp_path: Path) -> None:
    path, metadata = tmp_path / "out.csv", tmp_path / "out.csv.meta.json"
    metadata.write_text("mine")
    form = CsvClassifications(1)
    with pytest.raises(resrt.FileError, match=r"out\.csv\.meta\.json' exists"):
        RecordFile(path, form, made_by={"x": 1})
    assert not path.exists()
    assert metadata.read_text() == "mine"
    RecordFile(path, form, overwrite=True, made_by={"x": 1}).close()
    path.unlink()
    RecordFile(path, form, made_by={"x": 2}).close()  # replaces what resrt wrote


def test_metadata_that_cannot_be_written_leave_no_file(tmp_path: Path) -> None:
    path = tmp_path / f"{'a' * 250}.csv"
    with pytest.raises(resrt.FileError, match="File name too long"):
        RecordFile(path, CsvClassifications(1), made_by={"x": 1})
    assert list(tmp_path.iterdir()) == []


def test_the_option_that_differs_is_named_before_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with RecordFile(path, CsvClassifications(1), made_by={"topk": 1}) as file:
        file.write(CLASSIFICATIONS[0])
    with pytest.raises(resrt.InputError, match="it was made with topk 1, not with topk 2"):
        RecordFile(path, CsvClassifications(2), resume=True, made_by={"topk": 2})


def test_a_kill_while_a_file_is_replaced_never_leaves_old_records_as_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each call that changes a file, a run that replaces the results of another is killed."""
    path, form = tmp_path / "out.csv", CsvClassifications(1)

    class Killed(BaseException):
        pass

    def kill(*_: object, **__: object) -> None:
        raise Killed

    for owner, name in ((os, "fsync"), (Path, "replace"), (module, "writing_whole")):
        with RecordFile(path, form, overwrite=True, made_by={"x": 1}) as file:
            file.write(CLASSIFICATIONS[0])
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, kill)
            with pytest.raises(Killed):
                RecordFile(path, form, overwrite=True, made_by={"x": 2})
        try:
            with RecordFile(path, form, resume=True, made_by={"x": 2}) as file:
                assert file.known == []
        except resrt.InputError as error:
            assert "it was made with x 1, not with x 2" in str(error)  # noqa: PT017 - either


def test_a_line_without_an_end_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "out"
    write(path, JsonRanks(), RANKS)
    with path.open("r+b") as file:
        file.truncate(8 << 30)  # sparse
    tracemalloc.start()
    try:
        with pytest.raises(resrt.InputError, match="does not contain results"):
            RecordFile(path, JsonRanks(), resume=True)
        assert tracemalloc.get_traced_memory()[1] < 400 << 20
    finally:
        tracemalloc.stop()
    assert path.stat().st_size == 8 << 30


def test_nested_json_is_no_record(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text('{"image": "a", "error": ' + "[" * 200_000 + "\n")
    with pytest.raises(resrt.InputError, match="record 1 does not match"):
        RecordFile(path, JsonRanks(), resume=True)
