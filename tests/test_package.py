"""What the installed package carries, and what it asks for."""

from __future__ import annotations

import ast
import re
from importlib.metadata import requires
from pathlib import Path

import resrt
from resrt import _core

ROOT = Path(__file__).parent.parent
# Where the build installs; where the package is installed to be edited, not beside its sources.
PACKAGE = Path(_core.__file__).parent


def test_openvino_is_required_as_it_was_built_against() -> None:
    pins = re.findall(r"openvino==([0-9.]+)", (ROOT / "pyproject.toml").read_text())
    assert len(pins) == 2  # to build, and to run
    assert set(pins) == {resrt.backends()[0].version}
    assert f"openvino=={pins[0]}" in (requires("resrt") or [])


def test_it_is_typed() -> None:
    assert (Path(resrt.__file__).parent / "py.typed").exists()
    stub = ast.parse((PACKAGE / "_core.pyi").read_text())
    names = {node.name for node in stub.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    assert names >= {"Engine", "Graph", "build_graph", "ModelError"}


def test_public_names_are_documented() -> None:
    for name in resrt.__all__:
        value = getattr(resrt, name)
        if callable(value):
            assert value.__doc__, f"{name} has no docstring"


def test_errors_are_of_one_hierarchy() -> None:
    for name in dir(resrt.errors):
        error = getattr(resrt.errors, name)
        if isinstance(error, type):
            assert issubclass(error, resrt.Error)


def test_headers_are_installed() -> None:
    headers = {path.name for path in (PACKAGE / "include/resrt").iterdir()}
    assert headers >= {"graph.h", "models.h", "weights.h", "engine.h", "error.h"}
