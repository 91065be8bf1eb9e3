"""`resrt models`, and the tables that commands print."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import pytest

import resrt
from resrt import cli
from resrt.cli import tables
from resrt.cli.tables import Column
from support.paths import ROOT
from support.terminal import run_resrt


def _models(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["models", *arguments]) == 0
    return capsys.readouterr().out


def _names(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    return [row["name"] for row in json.loads(_models(capsys, *arguments, "--format", "json"))]


def test_table_has_every_network_in_aligned_columns(capsys: pytest.CaptureFixture[str]) -> None:
    heading, *lines = _models(capsys).splitlines()
    assert [line.split()[0] for line in lines] == [model.name for model in resrt.list_models()]
    assert all("  " in line and line == line.rstrip() for line in lines)
    end = heading.index("GFLOPs") + len("GFLOPs")
    assert {line[end] for line in lines} == {" "}
    assert all(line[end - 3] == "." for line in lines)  # two decimals, aligned to the right
    [row] = [line for line in lines if line.startswith("ResNeSt50 ")]
    assert row.split()[:4] == ["ResNeSt50", "ResNeSt", "PaddleClas", "224"]
    assert row.split()[4:] == ["27.48", "10.74", "80.83", "95.42", "1"]


def test_json_and_csv_have_exact_values(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(_models(capsys, "--format", "json"))
    lines = list(csv.DictReader(io.StringIO(_models(capsys, "--format", "csv"))))
    assert len(rows) == len(lines) == len(resrt.list_models())
    for row, line, model in zip(rows, lines, resrt.list_models(), strict=True):
        assert row["parameters"] == int(line["parameters"]) == model.parameters
        assert row["gflops"] == float(line["gflops"]) == model.gflops
        assert tuple(row["pretrained"]) == tuple(line["pretrained"].split()) == model.pretrained
        published = None if model.published is None else model.published.top1
        assert row["top1"] == published
        assert line["top1"] == ("" if published is None else str(published))


def test_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    lines = _models(capsys, "resnet50", "--format", "markdown").splitlines()
    assert {line.count("|") for line in lines} == {10}
    assert lines[1] == "|---|---|---|---|---|---|---|---|---|"
    assert lines[2].startswith("| ResNet50 | ResNet | PaddleClas |")


def test_filters(capsys: pytest.CaptureFixture[str]) -> None:
    assert _names(capsys, "resnest50") == ["ResNeSt50"]
    torchvision = _names(capsys, "--source", "torchvision", "--family", "RegNetX")
    assert len(torchvision) == 7
    assert all(name.startswith("regnet_x_") for name in torchvision)
    assert len(_names(capsys, "--published")) == 21
    pretrained = {entry.model for entry in resrt.list_pretrained()}
    assert set(_names(capsys, "--pretrained")) == pretrained
    small = _names(capsys, "--max-params", "11.7", "--max-gflops", "4", "resnet18*")
    assert small == ["ResNet18", "resnet18"]


def test_sorting(capsys: pytest.CaptureFixture[str]) -> None:
    by_size = _names(capsys, "--sort", "parameters")
    sizes = [resrt.model_info(name).parameters for name in by_size]
    assert sizes == sorted(sizes)
    best = _names(capsys, "--sort", "top1", "--descending")
    assert best[:2] == ["Fix_ResNet50_vd_ssld_v2", "ResNet101_vd_ssld"]
    # Those without published figures come last either way.
    for names in (best, _names(capsys, "--sort", "top1")):
        is_published = [resrt.model_info(name).published is not None for name in names]
        assert is_published == [True] * 21 + [False] * (len(names) - 21)
    most = _names(capsys, "--sort", "pretrained", "--descending")[0]
    assert len(resrt.model_info(most).pretrained) == max(
        len(model.pretrained) for model in resrt.list_models()
    )


def test_no_match(capsys: pytest.CaptureFixture[str]) -> None:
    assert resrt.list_models("resnet*", max_gflops=0.001) == []
    assert cli.main(["models", "resnet*", "--max-gflops", "0.001"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "resrt: no network of the catalog matches; `resrt models` lists all of them\n"
    )


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"source": "paddle"}, "unknown source 'paddle'.*PaddleClas, timm, torchvision"),
        ({"family": "VGG"}, "unknown family 'VGG'.*ResNet, ResNeSt, RegNetX, RegNetY"),
        ({"pattern": 50}, "a pattern must be a str, not 50"),
    ],
)
def test_invalid_conditions(conditions, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(resrt.InputError, match=message):
        resrt.list_models(**conditions)


def test_lines_are_cut_on_a_narrow_terminal() -> None:
    shown = run_resrt("models", "resnet50", stream="stdout", columns=40)
    lines = shown.splitlines()
    assert len(lines) == 3
    assert all(len(line) == 40 and line.endswith("…") for line in lines)
    wide = run_resrt("models", "resnet50", stream="stdout", columns=200).splitlines()
    assert [line[:39] for line in wide] == [line[:39] for line in lines]
    assert wide[0].endswith("pretrained")


def test_tables_with_special_characters_and_missing_values() -> None:
    columns: list[Column[tuple[str, float | None]]] = [
        Column("text", "the text", lambda row: row[0]),
        Column("number", "number (ms)", lambda row: row[1], "{:.1f}".format),
    ]
    rows = [('a|b, "c"', 1.25), ("ü", None)]
    assert tables.render(rows, columns, "table").splitlines() == [
        "the text  number (ms)",
        'a|b, "c"          1.2',
        "ü                   –",
    ]
    assert r"| a\|b" in tables.render(rows, columns, "markdown")
    assert tables.render(rows, columns, "csv") == 'text,number\n"a|b, ""c""",1.25\nü,'
    assert json.loads(tables.render(rows, columns, "json")) == [
        {"text": 'a|b, "c"', "number": 1.25},
        {"text": "ü", "number": None},
    ]
    assert tables.render([], columns, "table") == "the text  number (ms)"
    assert tables.render([], columns, "json") == "[]"


def test_readme_contains_the_table_of_the_tool() -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / "tools/model_table.py")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(result.stdout.splitlines()) == 23
    assert result.stdout in (ROOT / "README.md").read_text()


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_json({"a": [float("nan"), float("inf"), 1.5], "b": resrt.Accuracy(1, -1e400, 1)})
    document = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert document == {"a": [None, None, 1.5], "b": {"value": 1, "low": None, "high": 1}}
