"""The reference documents every public name, and every name that is mentioned anywhere exists."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import resrt
from resrt import _core
from support.paths import ROOT

REFERENCE = sorted((ROOT / "docs" / "api").glob("*.rst"))
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), *REFERENCE]
SOURCES = [
    *sorted(Path(resrt.__file__).parent.rglob("*.py")),
    Path(_core.__file__).with_name("_core.pyi"),
]
# A placeholder for every verb, and the loggers of the backends' messages.
NOT_ATTRIBUTES = {"resrt.VERB", *(f"resrt.{name}" for name in resrt.BACKENDS)}


def documented() -> Counter[str]:
    """How many entries each name has in the reference."""
    entries = re.compile(r"^\.\. [\w:]+:: (resrt(?:\.\w+)+)", re.MULTILINE)
    return Counter(name for page in REFERENCE for name in entries.findall(page.read_text()))


def mentioned(text: str) -> Iterator[str]:
    """The dotted names that begin with the package's; `resrt::` is C++, and paths have slashes."""
    yield from re.findall(r"(?<![\w./:-])resrt(?:\.[A-Za-z_]\w*)+", text)


def strings(source: Path) -> str:
    """The docstrings and messages of a module."""
    tree = ast.parse(source.read_text())
    constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return "\n".join(value for value in constants if isinstance(value, str))


def exists(name: str) -> bool:
    """Whether a dotted name is an attribute, a field of a dataclass, or a module."""
    package, *parts = name.split(".")
    path, found = package, importlib.import_module(package)
    try:
        for part in parts:
            path = f"{path}.{part}"
            if dataclasses.is_dataclass(found) and part in found.__dataclass_fields__:
                return path == name
            found = getattr(found, part) if hasattr(found, part) else importlib.import_module(path)
    except ModuleNotFoundError as error:
        return error.name == "torch"  # an optional dependency, without which nothing can be said
    return True


def test_reference_has_every_public_name_once() -> None:
    entries = documented()
    assert set(resrt.__all__) - {name.removeprefix("resrt.") for name in entries} == set()
    assert [name for name, count in entries.items() if count > 1] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_in_the_documents_exist(page: Path) -> None:
    names = set(mentioned(page.read_text())) - NOT_ATTRIBUTES
    assert sorted(name for name in names if not exists(name)) == []


def test_names_in_docstrings_and_messages_exist() -> None:
    names = {
        (source.name, name)
        for source in SOURCES
        for name in set(mentioned(strings(source))) - NOT_ATTRIBUTES
    }
    assert len(names) > 20
    assert sorted(found for found in names if not exists(found[1])) == []
