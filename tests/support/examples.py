"""The programs in examples/."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from support.paths import ROOT

FOLDER = ROOT / "examples"


def example(name: str) -> tuple[str | Path, ...]:
    """Return the command that runs an example."""
    return sys.executable, path(name)


def path(name: str) -> Path:
    """Return the path of an example, or skip the test where there is no checkout."""
    if not FOLDER.exists():
        pytest.skip("there is no folder of examples")
    return FOLDER / name


def module(name: str) -> ModuleType:
    """Import an example."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, path(name))
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found
