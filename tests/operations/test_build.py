"""`resrt.build_file`: an engine file from a network and its weights."""

from __future__ import annotations

from pathlib import Path

import pytest

import resrt


def test_built_file(
    small_graph: resrt.Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESRT_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "x.engine"
    labels = [f"class {i}" for i in range(7)]
    built = resrt.build_file(small_graph, file, "random", cache=False, labels=labels, max_batch=3)
    assert (built.path, built.size) == (str(file), file.stat().st_size)
    assert built.seconds > 0
    assert not built.from_cache
    info = resrt.load(file).info
    assert (info.model, info.max_batch, info.labels) == ("small", 3, labels)
    assert built.info.labels == labels
    assert not (tmp_path / "cache").exists()


def test_unknown_option(small_graph: resrt.Graph, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="max_bach"):
        resrt.build_file(small_graph, tmp_path / "x.engine", "random", cache=False, max_bach=3)
    assert list(tmp_path.iterdir()) == []
