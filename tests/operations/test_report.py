"""`resrt.report`: the measurements, their file, and the page, also in a browser."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import playwright.sync_api
import pytest

import resrt
from resrt import cli
from resrt.measuring.rounds import Spread
from resrt.measuring.timing import Timing
from resrt.operations import demo
from resrt.operations import eval as evaluation
from resrt.operations.report import entries, figures, measurements, page, plots
from resrt.operations.report.entries import EngineFile, Entry
from resrt.operations.report.measurements import Evaluated, Key, Measurements, Run, Settings
from resrt.system import machine
from support.digits import write_digits
from support.terminal import run_resrt

NETWORKS = tuple(model.name for model in resrt.list_models() if model.published)
DATE = "2026-05-04T03:02:01+00:00"


KINDS = {"Conv2d": 5.0, "SplitAttention": 1.0, "(Reorder)": 0.25}


def settings(
    networks: tuple[str, ...] = ("ResNet18", "ResNet50"),
    precisions: tuple[str, ...] = ("fp32", "bf16"),
    engines: tuple[Entry, ...] = (),
    **changes: Any,
) -> Settings:
    found = tuple(entries.of_network(resrt.model_info(name), precisions) for name in networks)
    small = Settings((*engines, *found), (1, 4), 2, 3, None)
    return dataclasses.replace(small, **changes)


def engine_entry(name: str, network: str = "resnest26d", precision: str = "bf16") -> Entry:
    file = EngineFile(f"/engines/{name}", "0" * 64, "openvino 2026.4.1", "mine.safetensors")
    return Entry(name, network, (precision,), (96, 128), 17_070_000, 3.6, file)


def entry_of(found: Measurements, name: str) -> Entry:
    return next(entry for entry in found.settings.entries if entry.name == name)


def latency(found: Measurements, name: str, precision: str, batch: int) -> Spread:
    spread = found.latency(entry_of(found, name), precision, batch)
    assert spread is not None
    return spread


def timings(milliseconds: float, batch_sizes: tuple[int, ...]) -> dict[int, Timing]:
    return {
        n: Timing(n, 2, *[n * milliseconds] * 4, seconds=0.002 * n * milliseconds)
        for n in batch_sizes
    }


def measured(wanted: Settings, precisions: dict[str, float] | None = None) -> Measurements:
    """Return latencies that are proportional to the arithmetic, in rounds that are 2% apart."""
    factors = precisions or {"fp32": 5.0, "bf16": 2.5, "fp16": 2.4}
    found = Measurements(machine.describe(["openvino"]), wanted)
    for key in found.missing():
        gflops = entry_of(found, key.entry).gflops or 0
        milliseconds = gflops * factors[key.precision] * (1 + 0.02 * key.round)
        kinds = {kind: ms * milliseconds / 6.25 for kind, ms in KINDS.items()}
        found.runs[key] = Run(DATE, timings(milliseconds, wanted.batch_sizes), kinds)
    return found


class FakeEngine:
    """A fake engine that takes no time; `built` lists those that were built."""

    built: list[tuple[str, str]]
    interrupt_after: int | None

    def __init__(self, network: str, weights: str, *, precision: str, **_: Any) -> None:
        assert weights == "random"
        if FakeEngine.interrupt_after == len(FakeEngine.built):
            raise KeyboardInterrupt
        FakeEngine.built.append((network, precision))

    def time(self, batch_sizes: tuple[int, ...], *, repeats: int) -> list[Timing]:
        return list(timings(10.0, batch_sizes).values())


@pytest.fixture
def fake_engines(monkeypatch: pytest.MonkeyPatch) -> type[FakeEngine]:
    FakeEngine.built, FakeEngine.interrupt_after = [], None
    monkeypatch.setattr(measurements, "build", FakeEngine)
    monkeypatch.setattr(measurements, "_times_of_kinds", lambda *_: dict(KINDS))
    return FakeEngine


# The measurements


def test_command_measures_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, kept = tmp_path / "page.html", tmp_path / "kept.json"
    arguments = ["report", "--networks", "ResNet18", "--batch", "1", "2", "--quick"]
    arguments += ["--precisions", "fp32", "-o", str(output)]
    assert cli.main([*arguments, "--save-measurements", str(kept)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{output}: 1 network in fp32 on ")
    assert captured.err == ""  # no progress bar without a terminal

    found = measurements.read(kept)
    network = entries.of_network(resrt.model_info("ResNet18"), ("fp32",))
    assert found.settings == Settings((network,), (1, 2), 3, 1, None)
    assert not found.missing()
    assert latency(found, "ResNet18", "fp32", 1).median > 0
    assert f"{latency(found, 'ResNet18', 'fp32', 2).median:.1f}" in output.read_text()
    kinds = found.kinds(network, "fp32")
    assert max(kinds, key=kinds.__getitem__) == "Conv2d"
    assert {"MaxPool2d", "GlobalAvgPool2d", "Linear"} <= kinds.keys()
    assert f"<td>{kinds['Conv2d']:.2f}</td>" in output.read_text()

    drawn_again = tmp_path / "again.html"
    assert cli.main(["report", "--measurements", str(kept), "-o", str(drawn_again), "--quiet"]) == 0
    assert drawn_again.read_bytes() == output.read_bytes()
    assert capsys.readouterr().out == ""


def test_progress_on_a_terminal(tmp_path: Path) -> None:
    arguments = ["--networks", "ResNet18", "--batch", "1", "--precisions", "fp32", "--quick"]
    shown = run_resrt("report", *arguments, "-o", str(tmp_path / "page.html"), stream="stderr")
    plain = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", shown)
    assert re.search(r"ResNet18, fp32 ━+ 0/1", plain)
    assert re.search(r"━+ 1/1", plain)


def test_every_second_round_is_reversed(tmp_path: Path, fake_engines: type[FakeEngine]) -> None:
    steps: list[tuple[int, int, str]] = []
    resrt.report(
        tmp_path / "page.html",
        networks=["ResNet18", "ResNet50"],
        precisions=["bf16", "fp32"],
        rounds=2,
        progress=lambda *step: steps.append(step),
    )
    first = list(itertools.product(["ResNet18", "ResNet50"], ["fp32", "bf16"]))
    assert fake_engines.built == [*first, *reversed(first)]
    assert steps == [
        *[(i, 8, ", ".join(engine)) for i, engine in enumerate(fake_engines.built)],
        (8, 8, ""),
    ]


def test_default_is_all_published_networks(tmp_path: Path, fake_engines: type[FakeEngine]) -> None:
    resrt.report(tmp_path / "page.html", precisions=["fp32"], rounds=1)
    assert tuple(name for name, _ in fake_engines.built) == NETWORKS
    assert len(NETWORKS) == 21
    fake_engines.built.clear()
    resrt.report(tmp_path / "page.html", networks=["*152*", "resnet18"], rounds=1)
    native = set(resrt.backends()[0].precisions) - {"int8"}
    assert {name for name, _ in fake_engines.built} == {"ResNet152", "ResNet152_vd", "resnet18"}
    assert {precision for _, precision in fake_engines.built} == native


def test_interrupted_measurement_is_resumed(
    tmp_path: Path, fake_engines: type[FakeEngine], capsys: pytest.CaptureFixture[str]
) -> None:
    output, kept = tmp_path / "page.html", tmp_path / "kept.json"
    arguments = ["report", "--networks", "ResNet18", "ResNet34", "--rounds", "2"]
    arguments += ["--precisions", "fp32", "-o", str(output)]
    fake_engines.interrupt_after = 3
    assert cli.main([*arguments, "--save-measurements", str(kept)]) == 130
    assert capsys.readouterr().err == (f"resrt: resume with: resrt report --measurements {kept}\n")
    assert not output.exists()
    assert measurements.read(kept).missing() == [Key(1, "ResNet18", "fp32")]
    assert [file.name for file in tmp_path.iterdir()] == ["kept.json"]

    fake_engines.interrupt_after = None
    assert cli.main(["report", "--measurements", str(kept), "-o", str(output)]) == 0
    assert fake_engines.built[3:] == [("ResNet18", "fp32")]
    assert not measurements.read(kept).missing()
    assert output.exists()


def test_interruption_before_anything_was_saved(
    tmp_path: Path, fake_engines: type[FakeEngine], capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept of today.json"
    arguments = ["report", "--networks", "ResNet18", "--precisions", "fp32"]
    arguments += ["-o", str(tmp_path / "page.html"), "--save-measurements", str(kept)]
    fake_engines.interrupt_after = 0
    assert cli.main(arguments) == 130
    assert capsys.readouterr().err == "resrt: no measurements were saved yet\n"
    fake_engines.interrupt_after = 1
    assert cli.main(arguments) == 130
    error = capsys.readouterr().err
    assert error == f"resrt: resume with: resrt report --measurements '{kept}'\n"


@pytest.mark.parametrize(("load", "is_busy"), [(0.0, False), (1000.0, True)])
@pytest.mark.parametrize("rounds", [1, 2])
def test_warnings(
    tmp_path: Path,
    fake_engines: type[FakeEngine],
    load: float,
    is_busy: bool,
    rounds: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A page says if it is a first look, and if the machine was busy, also when drawn again."""
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    kept, output = tmp_path / "kept.json", tmp_path / "page.html"
    arguments = ["report", "--networks", "ResNet18", "--precisions", "fp32", "-o", str(output)]
    arguments += ["--rounds", str(rounds), "--save-measurements", str(kept)]
    assert cli.main(arguments) == 0
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    again = ["report", "--measurements", str(kept), "-o", str(output), "--overwrite"]
    for drawn in ([], again):
        if drawn:
            assert cli.main(drawn) == 0
        assert ("the machine was busy: 1000.0" in capsys.readouterr().out) is is_busy
        page = output.read_text()
        assert ("The machine was busy: 1000.0 runnable processes" in page) is is_busy
        assert ("This page is a first look" in page) is (rounds == 1)


@pytest.mark.parametrize("of_kinds", [False, True])
def test_measurements_that_are_not_finite_are_never_written(of_kinds: bool, tmp_path: Path) -> None:
    found = measured(settings())
    nan = float("nan")
    if of_kinds:
        run = Run(DATE, timings(1.0, (1, 4)), {"Conv2d": nan})
    else:
        run = Run(DATE, timings(nan, (1, 4)))
    found.runs[Key(0, "ResNet18", "fp32")] = run
    with pytest.raises(ValueError, match="not JSON compliant"):
        measurements.write(found, tmp_path / "kept.json")
    assert list(tmp_path.iterdir()) == []


def test_measurements_of_another_machine_are_drawn_but_not_resumed(
    tmp_path: Path, fake_engines: type[FakeEngine]
) -> None:
    found = measured(settings())
    elsewhere = dataclasses.replace(found.machine, processor="Z80")
    found = dataclasses.replace(found, machine=elsewhere)
    kept, output = tmp_path / "kept.json", tmp_path / "page.html"
    measurements.write(found, kept)
    resrt.report(output, measurements=kept)
    assert "Z80" in output.read_text()

    del found.runs[Key(1, "ResNet50", "bf16")]
    measurements.write(found, kept)
    with pytest.raises(resrt.InputError, match="processor was Z80 and is"):
        resrt.report(output, measurements=kept)
    resrt.report(output, networks=["ResNet18"], measurements=kept)  # none of these are missing
    assert fake_engines.built == []


def test_subset_of_the_measurements_is_drawn(tmp_path: Path) -> None:
    kept, output = tmp_path / "kept.json", tmp_path / "page.html"
    found = measured(settings())
    measurements.write(found, kept)
    drawn = resrt.report(output, networks=["ResNet50"], batch_sizes=[4], measurements=kept)
    assert drawn.settings == settings(networks=("ResNet50",), batch_sizes=(4,))
    assert "ResNet18" not in output.read_text()
    assert measurements.read(kept) == found


def test_latency_is_the_median_of_the_rounds() -> None:
    found = measured(settings())
    for number, milliseconds in enumerate([30.0, 10.0, 20.0]):
        found.runs[Key(number, "ResNet50", "fp32")] = Run(DATE, timings(milliseconds, (1, 4)))
        found.runs[Key(number, "ResNet18", "fp32")] = Run(DATE, timings(5.0, (1, 4)))
    assert latency(found, "ResNet50", "fp32", 4) == Spread(80.0, 60.0, 100.0)
    assert found.ratio("ResNet50", "ResNet18", "fp32", 1) == Spread(4.0, 3.0, 5.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"networks": ["ResNet51"]}, "ResNet50"),
        ({"networks": ["Inception*"]}, "matches 'Inception\\*'"),
        ({"networks": []}, "at least one"),
        ({"networks": "ResNet50"}, "a sequence"),
        ({"engines": []}, "engines must be a sequence with at least one"),
        ({"engines": ["missing.engine"]}, "missing.engine"),
        ({"engines": ["kept.json"]}, "not a resrt engine file"),
        ({"engines": ["kept.json"], "precisions": ["fp32"]}, "an engine has its own precision"),
        ({"data": "images"}, "data is only for engine files"),
        ({"limit": 3}, "limit is only for data"),
        ({"limit": 0}, "limit must be"),
        ({"measurements": "kept.json", "data": "images"}, "with data=None, not"),
        ({"measurements": "kept.json", "engines": ["a.engine"]}, "not include the engine file"),
        ({"precisions": ["int8"]}, "fp32.*not 'int8'"),
        ({"precisions": ["auto"]}, "not 'auto'"),
        ({"batch_sizes": [0]}, "not 0"),
        ({"repeats": 0}, "repeats must be"),
        ({"rounds": 1.5}, "rounds must be"),
        ({"threads": 0}, "threads must be"),
        ({"output": "nowhere/page.html"}, "its folder does not exist; create it first"),
        ({"output": "."}, "is a folder"),
        ({"output": "a" * 300}, "cannot write 'a{300}': File name too long"),
        ({"save_measurements": "kept.json/x"}, "cannot write 'kept.json/x': Not a directory"),
        ({"save_measurements": "kept.json"}, "exists"),
        ({"save_measurements": "/dev/null"}, "'/dev/null': it is not a regular file"),
        ({"save_measurements": "nowhere/kept.json"}, "its folder does not exist; create it first"),
        ({"save_measurements": "new.json", "measurements": "kept.json"}, "not both"),
        ({"measurements": "missing.json"}, "cannot read"),
        ({"measurements": "kept.json", "repeats": 7}, "with repeats=2, not 7"),
        ({"measurements": "kept.json", "threads": 1}, "with threads=None, not 1"),
        ({"measurements": "kept.json", "networks": ["ResNet34"]}, "the name ResNet34, only"),
        ({"measurements": "kept.json", "precisions": ["fp16"]}, "the precision fp16, only fp32,"),
        ({"measurements": "kept.json", "batch_sizes": [8]}, "the batch size 8, only 1, 4;"),
    ],
)
def test_invalid_arguments_are_reported_before_anything_is_measured(
    options: dict[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fake_engines: type[FakeEngine],
) -> None:
    monkeypatch.chdir(tmp_path)
    measurements.write(measured(settings()), Path("kept.json"))
    before = Path("kept.json").read_bytes()
    with pytest.raises(resrt.Error, match=message):
        resrt.report(**{"output": "page.html", **options})
    assert fake_engines.built == []
    assert [file.name for file in Path().iterdir()] == ["kept.json"]
    assert Path("kept.json").read_bytes() == before


_ACCURACY = {"value": 0.5, "low": 0.4, "high": 0.6}
EVALUATED = {"images": 9, "skipped": 0, "top1": _ACCURACY, "top5": _ACCURACY}


def _without(*path: str | int) -> Any:
    def spoil(document: Any) -> None:
        *holders, last = path
        for name in holders:
            document = document[name]
        del document[last]

    return spoil


def _with(value: Any, *path: str | int) -> Any:
    def spoil(document: Any) -> None:
        *holders, last = path
        for name in holders:
            document = document[name]
        document[last] = value

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_with("something else", "format"), 'its "format" is not "resrt measurements"'),
        (_with(1, "version"), "its version is 1, not 2"),
        (_without("machine"), "'machine' is missing"),
        (_with("Z80", "machine"), "string indices must be integers.*"),
        (_with(None, "machine", "processor"), "None is not a string"),
        (_with([], "machine", "libraries"), "'list' object has no attribute 'items'"),
        (_with({"numpy": 2}, "machine", "libraries"), "2 is not a string"),
        (_with(True, "machine", "cores"), "cores must be an integer of at least 1, not True"),
        (_without("settings", "entries"), "'entries' is missing"),
        (_with([], "settings", "entries"), "it has no entries, precisions or batch sizes"),
        (_with([1], "settings", "entries", 0, "precisions"), "1 is not a string"),
        (
            _with("ResNet50", "settings", "entries", 0, "name"),
            "two of its entries have the same .*",
        ),
        (_with("ResNet50", "settings", "entries"), "'ResNet50' is not a list"),
        (_with("ResNet50", "settings", "entries", 0), "string indices must be integers.*"),
        (_with(3, "settings", "entries", 0, "engine"), "'int' object is not subscriptable"),
        (_with("x", "settings", "entries", 0, "gflops"), "'x' is not a positive number"),
        (_with([1, 0], "settings", "batch_sizes"), "batch_sizes must be an integer .*, not 0"),
        (_with(0, "settings", "rounds"), "rounds must be an integer of at least 1, not 0"),
        (_with("2", "settings", "threads"), "threads must be an integer .*, not '2'"),
        (_with({}, "runs"), "{} is not a list"),
        (_with([3], "runs"), "'int' object is not subscriptable"),
        (_with("yesterday", "runs", 0, "date"), "Invalid isoformat string: 'yesterday'"),
        (_with([], "runs", 0, "timings"), "a run of ResNet18 has other batch sizes than the .*"),
        (_with(-1.0, "runs", 0, "timings", 0, "median_ms"), "-1.0 is not a positive number"),
        (_with(float("nan"), "runs", 0, "timings", 0, "median_ms"), "nan is not a positive .*"),
        (_with("1", "runs", 0, "timings", 0, "median_ms"), "'1' is not a positive number"),
        (_with(10**400, "runs", 0, "timings", 0, "median_ms"), "int too large to convert to float"),
        (_with(float("inf"), "runs", 0, "round"), "round must be an integer .* 0, not inf"),
        (_with(float("nan"), "machine", "memory_gib"), "nan is not a positive number"),
        (_with(float("inf"), "settings", "repeats"), "repeats must be an integer .*, not inf"),
        (_without("runs", 0, "timings", 0, "p99_ms"), "'p99_ms' is missing"),
        (_without("runs", 0, "kinds"), "'kinds' is missing"),
        (_with([], "runs", 0, "kinds"), "'list' object has no attribute 'items'"),
        (_with(-1, "runs", 0, "kinds", "Conv2d"), "the time of Conv2d is -1, not a number .*"),
        (_with(True, "runs", 0, "load"), "the load is True, not a number of at least 0"),
        (_with([], "evaluated"), "\\[\\] is not an object"),
        (_with({"a": {}}, "evaluated"), "'images' is missing"),
        (_with({"a": dict(EVALUATED, images=0)}, "evaluated"), "images must be an integer .*"),
        (_with({"a": dict(EVALUATED, top1=2)}, "evaluated"), "'int' object is not subscriptable"),
        (
            _with({"a": dict(EVALUATED, top5={"value": 0.5, "low": 0.6, "high": 1})}, "evaluated"),
            "top5 is not a fraction within its confidence interval",
        ),
    ],
)
def test_invalid_measurements(spoil: Any, message: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    measurements.write(measured(settings()), kept)
    document = json.loads(kept.read_text())
    spoil(document)
    kept.write_text(json.dumps(document))
    start = f"'{kept}' is not a measurements file of this version of resrt: "
    with pytest.raises(resrt.InputError, match=f"^{start}{message}; start a new measurement$"):
        measurements.read(kept)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_files_that_are_not_json_objects(content: bytes, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    kept.write_bytes(content)
    with pytest.raises(resrt.InputError, match="is not a measurements file of this version"):
        measurements.read(kept)


def test_missing_package_is_named(tmp_path: Path) -> None:
    """In a process of its own in which matplotlib cannot be imported."""
    script = (
        "import sys; sys.modules['matplotlib'] = None\n"
        f"import resrt; resrt.report({str(tmp_path / 'page.html')!r})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "PackageError: drawing the report requires 'matplotlib', which is not" in done.stderr
    assert "pip install 'resrt[report]'" in done.stderr


# The page


class Page(HTMLParser):
    """The text, elements and references of a page; asserts that its markup is valid."""

    VOID = frozenset({"meta", "link", "br", "wbr", "img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice"
        self.elements.append((tag, dict(attrs)))
        for name, value in attrs:
            assert ":" not in name, f"{name} is not an attribute of HTML"
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "srcset", "data", "action", "poster"):
                self.references.append(value or "")
            self.references += re.findall(r"url\(([^)]*)\)", value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def whole() -> Measurements:
    return measured(settings((*NETWORKS, "resnet18"), batch_sizes=(1, 4, 8)))


LONG = "a_$network_of_mine$_with_a_very_long_name_that_says_everything.engine"


@pytest.fixture(scope="module")
def with_engines() -> Measurements:
    """Two engines with measured accuracies, beside networks of the catalog."""
    names = ("first.engine", LONG)
    engines = (engine_entry(names[0]), engine_entry(names[1], "my own", "fp16"))
    wanted = settings(
        ("ResNet18", "ResNet50", "ResNeSt50", "RegNetX_4GF"),
        engines=engines,
        data="/data/imagenet <val>",
    )
    found = measured(wanted)
    for number, name in enumerate(names):
        top1 = evaluation.Accuracy(0.75 + 0.01 * number, 0.7, 0.8)
        found.evaluated[name] = Evaluated(500, number, top1, evaluation.Accuracy(0.9, 0.8, 1.0))
    return found


@pytest.fixture(scope="module")
def text(whole: Measurements) -> str:
    return page.render(whole)


def test_page_is_self_contained(text: str) -> None:
    parsed = Page(text)
    assert len(parsed.ids) == len(set(parsed.ids))
    internal = {reference for reference in parsed.references if reference != "data:,"}
    assert internal == {f"#{name}" for name in parsed.ids}
    assert not {"script", "img", "iframe", "object"} & {tag for tag, _ in parsed.elements}
    assert not re.search(r"@import|@font-face|https?://", text)


def test_page_is_accessible(text: str) -> None:
    parsed = Page(text)
    plots = [attributes for tag, attributes in parsed.elements if tag == "svg"]
    assert len(plots) == 2 * 7
    for attributes in plots:
        assert attributes["role"] == "img"
        assert "networks" in (attributes["aria-label"] or "") or "ResNet50" in str(attributes)
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert ("html", {"lang": "en"}) in parsed.elements
    for tag, attributes in parsed.elements:
        assert tag != "th" or attributes["scope"] in ("row", "col", "colgroup")


def test_page_describes_its_figures(text: str, whole: Measurements) -> None:
    said = " ".join(Page(text).text.split())
    assert "Accuracy is not measured here. It is what PaddleClas published" in said
    assert "Latency is measured here, on this machine, on random weights" in said
    assert whole.machine.processor in said
    assert DATE[:10] in said
    assert "ResNeSt50 does 1.31 times the arithmetic of ResNet50" in said
    assert re.search(r"published, V100 fp32 2\.90 2\.14 1\.87", said)
    assert re.search(r"latency here, bf16 1\.31 1\.31 to 1\.31", said)
    assert (
        "ResNet50_vd, ResNet50_vd_v2, ResNet50_vd_ssld and ResNet50_vd_ssld_v2 are the same" in said
    )
    assert "spans 2% of it in the median case, and at most 2% in three quarters" in said
    # Latencies in two precisions, and the published V100 fp32, T4 fp32 and T4 fp16.
    ours = [f"{latency(whole, 'ResNet50', p, 1).median:.1f}" for p in ("fp32", "bf16")]
    assert f"ResNet50 {' '.join(ours)} 2.54 3.48 2.64" in said
    # Nothing is published for timm's networks.
    assert re.search(r"resnet18 [\d.]+ [\d.]+ – – –", said)


def test_plots_show_every_network_with_its_values(text: str, whole: Measurements) -> None:
    tips = re.findall(r"<title>([^<]*)</title>", text)
    milliseconds = latency(whole, "ResNet152", "bf16", 1).median
    assert tips.count(f"ResNet152: 78.30% top-1, {milliseconds:.3g} ms") == len(figures.SIZES)
    for name in NETWORKS:
        of_accuracy = [tip for tip in tips if tip.startswith(f"{name}: ") and "top-1" in tip]
        assert len(of_accuracy) == 4 * len(figures.SIZES)
    milliseconds *= KINDS["SplitAttention"] / 6.25
    tip = f"ResNet152: SplitAttention {milliseconds:.2f} ms (16%)"
    assert tips.count(tip) == len(figures.SIZES)


@pytest.mark.parametrize(
    "wanted",
    [
        settings(("ResNet18",), ("fp32",), batch_sizes=(3,), rounds=1),
        settings(("resnet18", "regnetx_002"), batch_sizes=(1, 16)),
        settings(("ResNeSt50", "ResNet50"), ("fp32", "bf16", "fp16")),
        settings(threads=1, repeats=1),
        settings((), engines=(engine_entry("one.engine"),)),
        settings(("ResNet18",), ("fp32",), (engine_entry(LONG), engine_entry("b", "resnet9"))),
    ],
    ids=["one of each", "nothing published", "precisions", "one thread", "one engine", "engines"],
)
def test_other_selections_are_drawn(wanted: Settings) -> None:
    parsed = Page(page.render(measured(wanted)))
    assert all(entry.name in parsed.text for entry in wanted.entries)
    assert len(parsed.ids) == len(set(parsed.ids))
    published = [entry for entry in wanted.entries if entry.published]
    over_latency = {precision for entry in published for precision in entry.precisions}
    several = len(wanted.batch_sizes) > 1
    plots = 2 * bool(published) + len(over_latency) + several + len(wanted.precisions)
    assert sum(tag == "figure" for tag, _ in parsed.elements) == plots


def test_markup_in_values_is_escaped() -> None:
    found = measured(settings())
    evil = dataclasses.replace(found.machine, processor="<script>alert(1)</script>")
    text = page.render(dataclasses.replace(found, machine=evil))
    assert "<script" not in text
    assert "<script>alert(1)</script>" in Page(text).text


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([], []),
        ([0, 20], [0, 20]),
        ([0, 0], [-5, 5]),
        ([0, 1, 2], [-9, 1, 11]),
        ([0, 9, 30, 31], [-0.5, 9.5, 25.5, 35.5]),
        ([0, 10, 11], [-3, 7, 17]),
    ],
)
def test_names_at_the_ends_of_lines_are_spread(heights: list[float], expected: list[float]) -> None:
    assert figures._spread(heights, 10) == expected


def test_engines_are_described_on_the_page(with_engines: Measurements) -> None:
    text = page.render(with_engines)
    said = " ".join(Page(text).text.split())
    assert "Accuracy and latency of 2 engines and 4 networks" in said
    assert "accuracy of the engines is measured here, on the labelled images of imagenet <val>" in (
        said
    )
    assert "The accuracy of networks of the catalog is not measured here." in said
    assert (
        "first.engine 75.00 70.00 to 80.00 90.00 80.00 to 100.00 500 resnest26d bf16 96×128 17.07 "
        "3.60 openvino 2026.4.1 mine.safetensors"
    ) in said
    assert f"1 of the images that {LONG} was evaluated on could not be read." in said
    # An engine has a latency only in its own precision, and no published figures.
    milliseconds = latency(with_engines, "first.engine", "bf16", 1).median
    assert re.search(rf"first\.engine – {milliseconds:.1f} – – – –", said)
    tips = re.findall(r"<title>([^<]*)</title>", text)
    tip = f"first.engine: 75.00% top-1, {milliseconds:.3g} ms"
    assert tips.count(tip) == len(figures.SIZES)
    kinds = [f"{ms * milliseconds / 6.25:.2f}" for ms in KINDS.values()]
    assert f"first.engine {' '.join(kinds)} {milliseconds:.2f}" in said


def test_kinds_beyond_the_most_frequent_are_summed() -> None:
    times = [{"a": 5.0, "b": 1.0, "c": 2.0}, {"a": 1.0, "d": 0.5}]
    assert plots.main_kinds(times, 4) == ["a", "c", "b", "d"]
    assert plots.main_kinds(times, 3) == ["a", "c", plots.OTHERS]
    assert plots.grouped(times[0], ["a", "c", plots.OTHERS]) == {"a": 5, "c": 2, plots.OTHERS: 1}
    assert plots.grouped(times[1], ["a", "c", plots.OTHERS]) == {"a": 1, "c": 0, plots.OTHERS: 0.5}


def test_hostile_text_in_measurements_does_no_harm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept.json"
    found = measured(settings())
    evil = dataclasses.replace(found.machine, processor="\x1b[31m\udce9")
    measurements.write(dataclasses.replace(found, machine=evil), kept)
    arguments = ["report", "--measurements", str(kept), "-o", str(tmp_path / "page.html")]
    assert cli.main(arguments) == 0
    assert "\x1b" not in capsys.readouterr().out
    assert "\\udce9" in (tmp_path / "page.html").read_text()


# Engine files


@pytest.fixture(scope="module")
def engine_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engines") / "digits.engine"
    demo.build_engine("fp32").save(path)
    return path


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"))


def test_engine_files_are_timed_and_evaluated(
    engine_file: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, kept = tmp_path / "page.html", tmp_path / "kept.json"
    arguments = ["report", str(engine_file), "--quick", "-o", str(output), "--limit", "50"]
    arguments += ["--eval", str(digits), "--save-measurements", str(kept)]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.startswith(f"{output}: 1 engine in fp32 on ")
    found = measurements.read(kept)
    (entry,) = found.settings.entries
    assert (entry.name, entry.network) == ("digits.engine", demo.NAME)
    assert entry.input_size == (demo.INPUT_SIZE, demo.INPUT_SIZE)
    cost = demo.graph().cost
    assert entry.parameters == pytest.approx(cost.parameters, rel=0.05)
    assert entry.gflops == pytest.approx(2e-9 * cost.multiply_adds, abs=0.001)
    expected = resrt.eval(engine_file, digits, limit=50)
    assert found.evaluated[entry.name] == Evaluated(50, 0, expected.top1, expected.top5)
    assert "SplitAttention" in found.kinds(entry, "fp32")
    page = output.read_text()
    assert f"<strong>{100 * expected.top1.value:.2f}</strong>" in page
    assert "This page is a first look" in page


def test_files_of_the_same_name_are_told_apart(engine_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "digits.engine"
    shutil.copy(engine_file, other)
    network = tmp_path / "ResNet18"
    shutil.copy(engine_file, network)
    strange = tmp_path / "a\n\udce9.engine"
    shutil.copy(engine_file, strange)
    found = entries.of_files([engine_file, other, network, other, strange], ["ResNet18"])
    assert [entry.name for entry in found] == [
        *map(str, [engine_file, other, network]),
        "a\\n\\udce9.engine",
    ]


def test_names_that_are_not_utf8_can_be_saved_and_drawn(engine_file: Path, tmp_path: Path) -> None:
    strange, kept = tmp_path / "a\udce9.engine", tmp_path / "kept.json"
    shutil.copy(engine_file, strange)
    options: dict[str, Any] = {"batch_sizes": [1], "repeats": 1, "rounds": 1}
    resrt.report(tmp_path / "a.html", engines=[strange], save_measurements=kept, **options)
    drawn = resrt.report(tmp_path / "b.html", engines=[strange], measurements=kept)
    assert drawn.settings.entries[0].engine is not None
    assert drawn.settings.entries[0].engine.path == str(strange)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_changed_engine_file_is_not_resumed(engine_file: Path, tmp_path: Path) -> None:
    kept, file = tmp_path / "kept.json", tmp_path / "mine.engine"
    shutil.copy(engine_file, file)
    (entry,) = entries.of_files([file], [])
    wanted = settings((), engines=(entry,), rounds=1, batch_sizes=(1,))
    measurements.write(Measurements(machine.describe(["openvino"]), wanted), kept)
    resrt.build("cifar_resnet20", "random", precision="fp32").save(file)
    with pytest.raises(resrt.InputError, match="mine.engine' has changed since"):
        resrt.report(tmp_path / "page.html", measurements=kept)
    shutil.copy(engine_file, file)
    resrt.report(tmp_path / "page.html", measurements=kept)
    assert not measurements.read(kept).missing()


def test_wrong_data_is_reported_before_anything_is_measured(
    engine_file: Path, digits: Path, tmp_path: Path, fake_engines: type[FakeEngine]
) -> None:
    (tmp_path / "data" / "cat").mkdir(parents=True)
    options: dict[str, Any] = {"engines": [engine_file], "networks": ["ResNet18"]}
    with pytest.raises(resrt.InputError, match="has 1 subfolders, such as 'cat'"):
        resrt.report(tmp_path / "page.html", data=tmp_path / "data", **options)
    assert fake_engines.built == []


# The page in a browser

# Every text on the page with its position, size and contrast. Containers of tables may scroll.
TEXTS = """(() => {
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const luminance = colour => channels(colour).slice(0, 3)
    .map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + [0.2126, 0.7152, 0.0722][i] * c, 0);
  const background = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (channels(colour)[3] !== 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  return [...document.querySelectorAll("body *")].filter(element => element.checkVisibility()
    && element.tagName !== "title"
    && [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())
  ).map(element => {
    const style = getComputedStyle(element), box = element.getBoundingClientRect();
    const plot = element.closest("svg");
    const [a, b] = [luminance(plot ? style.fill : style.color), luminance(background(element))];
    return {
      text: element.textContent.trim(), plot: plot && plot.getAttribute("aria-label"),
      left: box.left, right: box.right, top: box.top, bottom: box.bottom,
      pixels: plot ? box.height : parseFloat(style.fontSize),
      secondary: Boolean(element.closest(".range")), scrolls: Boolean(element.closest(".scroll")),
      contrast: (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05),
    };
  });
})()"""


class Browser(NamedTuple):
    """The page in Chromium, with its requests and the messages on its console."""

    page: playwright.sync_api.Page
    requested: list[str]
    complaints: list[str]

    def show(self, *, width: int, scheme: Any = "light", media: Any = "screen") -> None:
        """Lay the page out for a width in pixels, a colour scheme, and screen or print."""
        self.page.set_viewport_size({"width": width, "height": 800})
        self.page.emulate_media(media=media, color_scheme=scheme)

    def evaluate(self, expression: str) -> Any:
        return self.page.evaluate(expression)


@pytest.fixture(scope="module")
def browser(text: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The system's Chromium, because Playwright's own would have to be downloaded."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("this test requires Chromium: apt-get install chromium")
    file = tmp_path_factory.mktemp("report") / "page.html"
    file.write_text(text, "utf-8")
    with (
        playwright.sync_api.sync_playwright() as driver,
        driver.chromium.launch(executable_path=program, chromium_sandbox=False) as chromium,
    ):
        opened = Browser(chromium.new_page(), [], [])
        opened.page.set_default_timeout(60_000)  # for a machine that is busy
        opened.page.on("request", lambda request: opened.requested.append(request.url))
        opened.page.on("console", lambda message: opened.complaints.append(message.text))
        opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.show(width=1280)
        opened.page.goto(file.as_uri())
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 360, 390, 704, 1280])
def test_page_fits_and_is_legible(browser: Browser, width: int, scheme: str) -> None:
    browser.show(width=width, scheme=scheme)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    texts = browser.evaluate(TEXTS)
    assert any("Accuracy is not measured here" in text["text"] for text in texts)
    check_legible(texts, width)
    background = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    is_dark = sum(map(int, re.findall(r"\d+", background)[:3])) < 3 * 128
    assert is_dark == (scheme == "dark")


def check_legible(texts: list[dict[str, Any]], width: int) -> None:
    for text in texts:
        assert text["contrast"] >= 4.5, text
        if not text["scrolls"]:
            assert text["left"] >= 0, text
            assert text["right"] <= width, text
        assert text["pixels"] >= (10 if text["plot"] else 14 if text["secondary"] else 16), text


@pytest.mark.parametrize("width", [360, 1280])
def test_names_in_plots_do_not_overlap(browser: Browser, width: int) -> None:
    browser.show(width=width)
    shown = plots_of(browser.evaluate(TEXTS))
    assert len(shown) == 7  # one of the two drawings of each is visible
    for texts in shown.values():
        assert {"ResNet18", "ResNet50", "ResNeSt50", "RegNetX_4GF"} <= {t["text"] for t in texts}
    check_no_overlap(shown)


def plots_of(texts: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for text in texts:
        if text["plot"]:
            found.setdefault(text["plot"], []).append(text)
    return found


def check_no_overlap(shown: dict[str, list[dict[str, Any]]]) -> None:
    for texts in shown.values():
        for a, b in itertools.combinations(texts, 2):
            across = min(a["right"], b["right"]) - max(a["left"], b["left"])
            down = min(a["bottom"], b["bottom"]) - max(a["top"], b["top"])
            # Boxes include room for accents, so they may touch.
            assert across <= 1 or down <= 4, (a["text"], b["text"])


@pytest.mark.parametrize("width", [320, 704, 1280])
def test_page_of_engines_with_long_names_fits(
    browser: Browser, with_engines: Measurements, width: int, tmp_path: Path
) -> None:
    file = tmp_path / "engines.html"
    file.write_text(page.render(with_engines), "utf-8")
    chromium = browser.page.context.browser
    assert chromium is not None
    opened = chromium.new_page()
    try:
        opened.set_viewport_size({"width": width, "height": 800})
        opened.goto(file.as_uri())
        assert opened.evaluate("document.documentElement.scrollWidth") <= width
        texts = opened.evaluate(TEXTS)
    finally:
        opened.close()
    check_legible(texts, width)
    shown = plots_of(texts)
    assert len(shown) == 1 + 4 + 1 + 3  # measured, published, batch sizes, kinds
    check_no_overlap(shown)


def test_printed_page_is_light_and_not_cut_off(browser: Browser) -> None:
    width = 680  # A4 without margins
    browser.show(width=width, scheme="dark", media="print")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    texts = browser.evaluate(TEXTS)
    assert all(text["right"] <= width and text["contrast"] >= 4.5 for text in texts)
    ink = browser.evaluate("getComputedStyle(document.body).color")
    assert max(map(int, re.findall(r"\d+", ink)[:3])) < 128


def test_page_makes_no_requests_and_logs_nothing(browser: Browser) -> None:
    """Even after everything that the other tests did with it."""
    browser.show(width=360)
    browser.evaluate("1")
    requested = browser.requested
    assert [url for url in requested if not url.startswith("data:")] == requested[:1]
    assert requested[0].startswith("file:")
    assert browser.complaints == []
