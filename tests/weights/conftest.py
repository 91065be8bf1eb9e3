"""Fixtures for tests that download weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from resrt.weights import http
from support.weights_server import NAME, Server, serving


@pytest.fixture
def server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that is used instead of the publishers'."""
    with serving(Server()) as server:
        monkeypatch.setenv("RESRT_MIRROR", server.url)
        yield server


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The network's folder in an empty cache. Waits are short, and the environment is clean."""
    for name in ("RESRT_OFFLINE", "RESRT_MIRROR", "HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("RESRT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(http, "STALL_S", 0.3)
    monkeypatch.setattr(http, "BACKOFF_S", 0.001)
    return tmp_path / "cache" / NAME
