"""The contents and requirements of the installed package."""

from __future__ import annotations

import ast
import re
from importlib.metadata import requires
from pathlib import Path

import resrt
from resrt import _core

ROOT = Path(__file__).parent.parent
# The folder of the compiled files, which an editable installation keeps apart from the sources.
PACKAGE = Path(_core.__file__).parent


def test_required_openvino_is_the_one_of_the_build() -> None:
    pins = re.findall(r"openvino==([0-9.]+)", (ROOT / "pyproject.toml").read_text())
    assert len(pins) == 2  # for the build and at run time
    assert set(pins) == {resrt.backends()[0].version}
    assert f"openvino=={pins[0]}" in (requires("resrt") or [])


def test_package_is_typed() -> None:
    assert (Path(resrt.__file__).parent / "py.typed").exists()
    stub = ast.parse((PACKAGE / "_core.pyi").read_text())
    names = {node.name for node in stub.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    assert names >= {"Engine", "Graph", "build_graph", "ModelError"}


def test_public_names_are_documented() -> None:
    for name in resrt.__all__:
        value = getattr(resrt, name)
        if callable(value):
            assert value.__doc__, f"{name} has no docstring"


def test_errors_have_a_common_base() -> None:
    for name in dir(resrt.errors):
        error = getattr(resrt.errors, name)
        if isinstance(error, type):
            assert issubclass(error, resrt.Error)


def test_headers_are_installed() -> None:
    headers = {path.name for path in (PACKAGE / "include/resrt").iterdir()}
    assert headers >= {"graph.h", "models.h", "weights.h", "engine.h", "error.h"}
