"""The cache of built engines, through `resrt.build_file`."""

from __future__ import annotations

import concurrent.futures
import errno
import logging
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file

import resrt
from resrt import _core
from resrt.engine import cache as cache_module

CONFIG = resrt.ResNet(depths=[1, 1], width=8)
GRAPH = resrt.build_graph(CONFIG, input_size=32, name="ResNet")
STEPS = resrt.Preprocessing(
    resize=40, interpolation="bicubic", mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6]
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESRT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "engines"


def build(out: Path, weights: Any = "random", **changes: Any) -> resrt.BuiltFile:
    options = {"input_size": 32, "precision": "fp32", "max_batch": 2}
    return resrt.build_file(CONFIG, out, weights, **{**options, **changes})


def arrays(seed: int) -> dict[str, npt.NDArray[np.float32]]:
    found = _core.random_weights(GRAPH, seed)
    return {name: np.ascontiguousarray(array) for name, array in found.items()}


def test_same_engine_is_built_once(tmp_path: Path, cache: Path) -> None:
    first, second = tmp_path / "1.engine", tmp_path / "2.engine"
    built = build(first)
    again = build(second)
    assert (built.from_cache, again.from_cache) == (False, True)
    assert first.read_bytes() == second.read_bytes()
    assert again.size == second.stat().st_size
    assert (again.info.model, again.info.max_batch) == ("ResNet", 2)
    assert resrt.load(second).info.input_shape == (3, 32, 32)
    assert len(list(cache.iterdir())) == 1
    assert not build(first, cache=False).from_cache


def test_different_engines_have_different_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x.engine"
    given = arrays(1)
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(map(str, range(1000))))
    others: list[dict[str, Any]] = [
        {},
        {"max_batch": 3},
        {"input_size": 48},
        {"weights": given},
        {"weights": {**given, "fc.bias": given["fc.bias"] + 1}},
        {"labels": labels},
        {"preprocessing": STEPS},
    ]
    for other in others:
        assert not build(out, **other).from_cache
        assert build(out, **other).from_cache
    labels.write_text(labels.read_text().replace("7", "seven"))
    assert not build(out, labels=labels).from_cache
    monkeypatch.setattr(_core, "__version__", "99")
    assert not build(out).from_cache


def test_weights_are_identified_by_content(tmp_path: Path) -> None:
    file, out = tmp_path / "w.safetensors", tmp_path / "x.engine"
    save_file(arrays(1), file)
    before = build(out, file)
    assert build(out, str(file)).from_cache
    assert len(before.info.weights_sha256) == 64
    save_file(arrays(2), file)
    after = build(out, file)
    assert not after.from_cache
    assert after.info.weights_sha256 != before.info.weights_sha256


def test_layers_are_identified_by_all_of_their_fields(tmp_path: Path) -> None:
    """Even by those that their text omits and random weights do not reveal."""
    out = tmp_path / "x.engine"
    for bias in (False, True):
        config = resrt.ResNeSt(depths=[1], width=16, stem_channels=16, attention_bias=bias)
        graph = resrt.build_graph(config, classes=7, input_size=32, name="same")
        assert not resrt.build_file(graph, out, "random").from_cache
        assert resrt.build_file(graph, out, "random").from_cache


def test_progress_is_not_part_of_the_key(tmp_path: Path) -> None:
    steps: list[tuple[object, ...]] = []
    for _ in range(2):
        built = build(tmp_path / "x.engine", progress=lambda *step: steps.append(step))
    assert built.from_cache


def test_threads_that_share_an_output_cache_their_own_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What one thread has written to the output must not enter the cache as another's engine."""
    graphs = [
        resrt.build_graph(CONFIG, classes=classes, input_size=32, name=f"network{classes}")
        for classes in (2, 3, 4, 5)
    ]
    save, all_saved = resrt.Engine.save, threading.Barrier(len(graphs), timeout=60)

    def save_and_wait(engine: resrt.Engine, file: Path) -> None:
        save(engine, file)
        all_saved.wait()  # only the last thread's engine is still in the shared output

    def build(graph: resrt.Graph, out: Path) -> resrt.BuiltFile:
        return resrt.build_file(graph, out, "random", precision="fp32", max_batch=1)

    shared = tmp_path / "shared.engine"
    with monkeypatch.context() as patched, concurrent.futures.ThreadPoolExecutor(4) as pool:
        patched.setattr(resrt.Engine, "save", save_and_wait)
        built = list(pool.map(lambda graph: build(graph, shared), graphs))
    assert [found.info.model for found in built] == [graph.name for graph in graphs]

    images = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    for graph in graphs:
        out = tmp_path / f"{graph.name}.engine"
        again = build(graph, out)
        assert (again.from_cache, again.info.model) == (True, graph.name)
        expected = resrt.build(graph, "random", precision="fp32", max_batch=1).infer(images)
        np.testing.assert_array_equal(resrt.load(out).infer(images), expected)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("changes", "mismatch"),
    [
        ({"input_size": 48}, "layers"),
        ({"weights": arrays(1)}, "weights"),
        ({"labels": [str(i) for i in range(1000)]}, "labels"),
        ({"preprocessing": STEPS}, "preprocessing"),
        ({"max_batch": 3}, "max_batch"),
        ({"threads": 1}, "options"),
        ({"precision": "auto"}, ""),  # another precision, or else only other options
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_entry_that_is_another_engine_is_rebuilt(
    tmp_path: Path,
    cache: Path,
    changes: dict[str, Any],
    mismatch: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "x.engine"
    build(out, **changes)
    (other,) = cache.iterdir()
    build(out)
    (entry,) = set(cache.iterdir()) - {other}
    shutil.copyfile(other, entry)
    with caplog.at_level(logging.WARNING, "resrt"):
        built = build(out)
    assert (built.from_cache, built.info.max_batch) == (False, 2)
    assert f"removed '{entry}' from the engine cache: it is not the requested" in caplog.text
    assert f"(mismatch in {mismatch}" in caplog.text
    assert out.read_bytes() == entry.read_bytes()
    assert build(out).from_cache


def test_damaged_entry_is_rebuilt(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "x.engine"
    build(out)
    (entry,) = cache.iterdir()
    entry.write_bytes(entry.read_bytes()[:-9])
    with caplog.at_level(logging.WARNING, "resrt"):
        assert not build(out).from_cache
    assert f"removed '{entry}' from the engine cache" in caplog.text
    assert build(out).from_cache


def test_an_entry_of_a_wrong_size_is_not_copied(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could fill the disk."""
    out = tmp_path / "x.engine"
    build(out)
    (entry,) = cache.iterdir()
    with entry.open("r+b") as file:
        file.truncate(8 << 30)  # sparse
    copied = []
    monkeypatch.setattr(cache_module, "_chunks", lambda file: copied.append(file) or [])
    assert not build(out).from_cache
    assert not copied
    assert entry.stat().st_size < 1 << 30


def test_unwritable_cache_is_not_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RESRT_CACHE", str(tmp_path / "file"))
    assert not build(tmp_path / "x.engine").from_cache
    assert "the engine was built but could not be cached" in caplog.text
    assert resrt.load(tmp_path / "x.engine").info.model == "ResNet"


def test_full_cache_is_not_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save = resrt.Engine.save

    def save_unless_full(engine: resrt.Engine, file: Path) -> None:
        if "cache" in file.parts:
            raise resrt.FileError(f"cannot write '{file}': No space left on device")
        save(engine, file)

    monkeypatch.setattr(resrt.Engine, "save", save_unless_full)
    assert not build(tmp_path / "x.engine").from_cache
    assert "could not be cached: cannot write '" in caplog.text
    assert resrt.load(tmp_path / "x.engine").info.model == "ResNet"


def test_damaged_entry_in_a_read_only_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x.engine"
    build(out)
    (entry,) = cache.iterdir()
    entry.write_bytes(b"damaged")
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path == entry:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    assert not build(out).from_cache


def test_entry_that_cannot_be_read_is_rebuilt(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "x.engine"
    build(out)
    (entry,) = cache.iterdir()
    entry.unlink()
    entry.symlink_to("/proc/self/mem")  # reading its beginning fails
    assert not build(out).from_cache
    assert f"removed '{entry}' from the engine cache" in caplog.text
    assert build(out).from_cache


def test_user_without_a_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for variable in ("RESRT_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert not build(tmp_path / "x.engine").from_cache
    message = "there is no folder for the cache, because the user has no home folder; name one in"
    assert f"the engine was built but could not be cached: {message} RESRT_CACHE" in caplog.text
    with pytest.raises(resrt.FileError, match=message):
        resrt.fetch("ResNet18")
    assert message in (resrt.doctor().cache.problem or "")


def test_unwritable_output(tmp_path: Path) -> None:
    build(tmp_path / "x.engine")
    for _ in range(2):
        with pytest.raises(resrt.FileError, match="cannot write"):
            build(tmp_path / "none" / "x.engine")


def test_least_recently_used_entries_are_removed(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x.engine"
    for size in (32, 64, 96):
        built = build(out, input_size=size)
    for age, file in enumerate(sorted(cache.iterdir(), key=lambda file: file.stat().st_mtime_ns)):
        os.utime(file, (age, age))
    assert build(out, input_size=32).from_cache  # the oldest, and now the most recently used
    monkeypatch.setenv("RESRT_CACHE_GB", str(3.5 * built.size / 1e9))
    build(out, input_size=128)
    assert build(out, input_size=32).from_cache
    assert build(out, input_size=96).from_cache
    assert not build(out, input_size=64).from_cache


@pytest.mark.parametrize("limit", ["much", "-1", "nan"])
def test_invalid_size_limit_is_reported_before_building(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setenv("RESRT_CACHE_GB", limit)
    message = f"RESRT_CACHE_GB must be a number of gigabytes, such as 2.5, not '{limit}'"
    with pytest.raises(resrt.InputError, match=message):
        build(tmp_path / "x.engine")
    assert list(tmp_path.iterdir()) == []


def test_abandoned_temporary_files_are_removed(tmp_path: Path, cache: Path) -> None:
    cache.mkdir(parents=True)
    old, new = cache / ".old.engine.tmp", cache / ".new.engine.tmp"
    for file in (old, new):
        file.write_bytes(b"")
    os.utime(old, (0, 0))
    build(tmp_path / "x.engine")
    assert (old.exists(), new.exists()) == (False, True)


@pytest.mark.parametrize("kind", ["pipe", "device", "dangling link"])
def test_entries_that_are_no_files_are_replaced(
    kind: str, tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A pipe would wait for its writer, and a device may never end."""
    out = tmp_path / "x.engine"
    build(out)
    (entry,) = cache.iterdir()
    entry.unlink()
    if kind == "pipe":
        os.mkfifo(entry)
    else:
        entry.symlink_to("/dev/zero" if kind == "device" else "nowhere")
    assert not build(out).from_cache
    assert build(out).from_cache
    assert entry.is_file()
    assert not entry.is_symlink()
    assert caplog.text == ""


def test_a_dangling_link_does_not_prevent_trimming(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    build(tmp_path / "x.engine")
    (first,) = cache.iterdir()
    os.utime(first, (0, 0))
    (cache / "zzz.engine").symlink_to("nowhere")
    monkeypatch.setenv("RESRT_CACHE_GB", str(first.stat().st_size * 1.5e-9))
    build(tmp_path / "y.engine", arrays(1))
    assert not first.exists()
    assert "cached" not in caplog.text
