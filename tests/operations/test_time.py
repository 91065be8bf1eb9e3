"""`resrt.time`: how long an engine takes to load, to preprocess a photograph, and to infer."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

import resrt


@pytest.fixture(scope="module")
def engine_file(small_engine: resrt.Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("time") / "small.engine"
    small_engine.save(file)
    return file


def test_engine_file(engine_file: Path) -> None:
    steps: list[str] = []
    found = resrt.time(
        engine_file, batch_sizes=(1, 6), repeats=4, duration=0, threads=1, progress=steps.append
    )
    assert steps == ["load", "preprocessing", "batch 1", "batch 6"]
    assert (found.model, found.precision, found.input_shape) == ("small", "fp32", (3, 32, 32))
    assert (found.backend, found.max_batch) == ("openvino", 4)
    assert found.load_ms is not None
    assert found.first_ms is not None
    assert found.load_ms > found.first_ms > 0
    assert [(one.batch, one.repeats) for one in found.timings] == [(1, 4), (6, 4)]
    assert found.preprocessing is not None
    assert (found.preprocessing.batch, found.preprocessing.repeats) == (1, 4)
    assert found.settings.threads == 1
    assert found.published == {}
    assert found.machine.libraries["openvino"] == found.backend_version


def test_loaded_engine(small_engine: resrt.Engine) -> None:
    found = resrt.time(small_engine, batch_sizes=[2], repeats=1, duration=0, concurrency=2)
    assert (found.load_ms, found.first_ms) == (None, None)
    assert [(one.repeats, one.concurrency) for one in found.timings] == [(2, 2)]
    for settings in ({"threads": 1}, {"device": "cuda:1"}, {"compile_for": [1]}):
        with pytest.raises(resrt.InputError, match="already has its threads, its device and its"):
            resrt.time(small_engine, **settings)


def test_sizes_to_compile_for(engine_file: Path) -> None:
    found = resrt.time(
        engine_file, batch_sizes=[2], repeats=1, duration=0, compile_for=[2], profile=True
    )
    assert found.document()["settings"]["compile_for"] == [2]
    with pytest.raises(resrt.InputError, match="batch sizes from 1 to 4"):
        resrt.time(engine_file, compile_for=[99])


def test_engine_that_cannot_classify_photographs() -> None:
    graph = resrt.build_graph(
        resrt.ResNet(depths=[1], width=8), classes=2, input_size=32, in_channels=4
    )
    found = resrt.time(resrt.build(graph, "random"), batch_sizes=[1], repeats=1, duration=0)
    assert found.preprocessing is None
    assert json.dumps(found.document())


def test_profile(engine_file: Path, small_engine: resrt.Engine) -> None:
    steps: list[str] = []
    settings = {"batch_sizes": [2, 1], "repeats": 3, "duration": 0}
    found = resrt.time(engine_file, profile=True, progress=steps.append, **settings)
    assert steps == ["load", "layers", "preprocessing", "batch 2", "batch 1"]
    assert found.profile is not None
    assert (found.profile.batch, found.profile.repeats) == (2, 3)
    assert "SplitAttention" in [kind.kind for kind in found.profile.kinds]
    document = found.document()
    assert document["profile"] == found.profile.document()
    assert json.loads(json.dumps(document))["profile"]["steps"][0]["name"]
    loaded = resrt.load(engine_file, profile=True)
    assert resrt.time(loaded, profile=True, **settings).profile is not None
    assert resrt.time(loaded, **settings).profile is None


@pytest.mark.parametrize(
    ("batch_sizes", "message"),
    [
        ([1], "loaded without counters"),
        ([5, 1], r"splits 5 images and begins with 4"),
        ([], "profile requires a batch size"),
    ],
)
def test_profile_that_is_impossible(
    engine_file: Path, small_engine: resrt.Engine, batch_sizes: list[int], message: str
) -> None:
    engine = small_engine if batch_sizes == [1] else engine_file
    steps: list[str] = []
    with pytest.raises(resrt.InputError, match=message):
        resrt.time(engine, batch_sizes=batch_sizes, profile=True, progress=steps.append)
    assert "preprocessing" not in steps  # before the measurement


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_sizes": [0]}, "a batch size must be an integer of at least 1, not 0"),
        ({"repeats": 0}, "repeats must be an integer of at least 1, not 0"),
        ({"duration": -1}, "duration must be a number of seconds of at least 0, not -1"),
        ({"duration": float("inf")}, "duration must be"),
        ({"duration": "1"}, "duration must be"),
        ({"warm_up": -1}, "warm_up must be an integer of at least 0, not -1"),
        ({"concurrency": 0}, "concurrency must be"),
    ],
)
def test_invalid_settings(small_engine, settings, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(resrt.InputError, match=message):
        resrt.time(small_engine, **settings)
    with pytest.raises(resrt.InputError, match=message):
        small_engine.time(**settings)


def test_document(small_engine: resrt.Engine) -> None:
    found = resrt.time(small_engine, batch_sizes=[1], repeats=2, duration=0, warm_up=0)
    document = found.document()
    assert document.keys() == {field.name for field in dataclasses.fields(found)}
    assert document["settings"] == dataclasses.asdict(found.settings)
    assert document["settings"]["warm_up"] == 0
    for name in ("model", "backend", "backend_version", "precision", "input_shape", "max_batch"):
        assert document[name] == getattr(small_engine.info, name)
    assert document["timings"][0]["images_per_second"] == found.timings[0].images_per_second


def test_output(small_engine: resrt.Engine, tmp_path: Path) -> None:
    output = tmp_path / "times.json"
    output.write_text("of the last measurement")
    settings = {"repeats": 1, "duration": 0}
    with pytest.raises(resrt.InputError, match="a batch size must be"):
        resrt.time(small_engine, batch_sizes=[1, 0], output=output, **settings)
    assert output.read_text() == "of the last measurement"
    found = resrt.time(small_engine, batch_sizes=[1], output=output, **settings)
    assert json.loads(output.read_text()) == json.loads(json.dumps(found.document()))
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize("output", ["none/times.json", "."])
def test_unwritable_output_is_reported_before_the_measurement(
    small_engine: resrt.Engine, tmp_path: Path, output: str
) -> None:
    steps: list[str] = []
    path = tmp_path / output
    with pytest.raises(resrt.FileError, match=f"cannot write '{path}'"):
        resrt.time(small_engine, batch_sizes=[1], output=path, progress=steps.append)
    assert steps == []


def test_published_latencies_are_for_the_same_input_size() -> None:
    engine = resrt.build("ResNet18", "random", max_batch=1)
    found = resrt.time(engine, batch_sizes=[1], repeats=1, duration=0)
    published = resrt.model_info("ResNet18").published
    assert published is not None
    assert found.published == published.latency_ms
    smaller = resrt.build("ResNet18", "random", max_batch=1, input_size=64)
    assert resrt.time(smaller, batch_sizes=[1], repeats=1, duration=0).published == {}
