"""How Sphinx builds the documentation: the pages of docs/, and a reference from the docstrings.

    pip install '.[docs]'
    sphinx-build --fail-on-warning --keep-going --nitpicky docs build/docs

The reference is of the package as it is installed. Nothing is downloaded during the build.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

import numpy as np
import numpy.typing as npt
from sphinx.application import Sphinx
from sphinx.ext.autodoc import (
    AttributeDocumenter,
    ClassDocumenter,
    Documenter,
    FunctionDocumenter,
    MethodDocumenter,
    PropertyDocumenter,
)
from sphinx.util.typing import stringify_annotation

import resrt

project = "resrt"
version = release = resrt.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"resrt {version}"
html_copy_source = False
html_show_copyright = False
maximum_signature_line_length = 88
myst_heading_anchors = 3  # as GitHub links to headings

# Single backticks in a docstring enclose a name. A public one becomes a link.
default_role = "py:obj"
autodoc_default_options = {"members": True, "undoc-members": True, "member-order": "bysource"}
autodoc_mock_imports = ["torch"]
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # or a field would be described twice

# With -n every reference into resrt must resolve. References to other libraries are not checked.
# Neither are the types of public fields and arguments that have no public name themselves.
_WITHOUT_PUBLIC_NAME = (
    "Backend",
    "Cache",
    "Feature",
    "Gpus",
    "Limits",
    "Machine",
    "Measurements",
    "OnDevice",
    "Package",
    "Settings",
    "TorchModule",
)
nitpick_ignore_regex = [
    ("py:.*", r"(?!resrt\.).*"),
    ("py:class", rf"resrt\.(\w+\.)+({'|'.join(_WITHOUT_PUBLIC_NAME)})"),
]

# Patterns of how pybind11 writes types and how NumPy's aliases are expanded, and what a reader
# would write.
_READABLE = {
    r"\bself: [\w.]+(, )?": "",
    r"(?<!~)\bresrt\._core\.": "",
    r"(?<!~)\bcollections\.abc\.": "",
    r"\btyping\.SupportsInt \| typing\.SupportsIndex": "int",
    r"\btyping\.SupportsFloat \| typing\.SupportsIndex": "float",
    re.escape(stringify_annotation(npt.ArrayLike, "smart")): "ArrayLike",
} | {
    re.escape(stringify_annotation(npt.NDArray[dtype], "smart")): f"NDArray[{dtype.__name__}]"
    for dtype in (np.generic, np.float32, np.uint8)
}


def _readable(text: str) -> str:
    for pattern, replacement in _READABLE.items():
        text = re.sub(pattern, replacement, text)
    return text


class _ReadableTypes(Documenter):
    """Writes types as in _READABLE, in signatures and in the types of fields."""

    def add_line(self, line: str, source: str, *lineno: int) -> None:
        super().add_line(_readable(line), source, *lineno)


class _Class(_ReadableTypes, ClassDocumenter):
    pass


class _Function(_ReadableTypes, FunctionDocumenter):
    pass


class _Method(_ReadableTypes, MethodDocumenter):
    pass


class _Attribute(_ReadableTypes, AttributeDocumenter):
    pass


class _Property(_ReadableTypes, PropertyDocumenter):
    def add_directive_header(self, sig: str) -> None:
        """Add the type of a property of the core, which is in its getter's docstring."""
        super().add_directive_header(sig)
        getter = getattr(self.object, "fget", None)  # which a cached property does not have
        if returned := re.fullmatch(r"\(.*\) -> (.*)\n", getattr(getter, "__doc__", None) or ""):
            self.add_line(f"   :type: {returned[1]}", self.get_sourcename())


def _process_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, result: str
) -> tuple[str, str] | None:
    if what != "class":
        return None
    if dataclasses.is_dataclass(obj) or obj is resrt.Engine:
        return "", ""  # it is resrt that makes these objects
    if signature:
        return None
    # pybind11 writes the signature of a constructor into its docstring.
    found = re.match(r"__init__(\(.*\)) -> None", obj.__init__.__doc__ or "")
    return (found[1], "") if found else None


def _process_docstring(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Undo what napoleon does to properties: it takes the words before a colon for a type."""
    if what == "property":
        lines[:] = [*(inspect.getdoc(obj) or "").splitlines(), ""]


def _resolve_public_name(app: Sphinx, env: Any, node: Any, content: Any) -> Any:
    """Resolve the name that a class has in its module as its public name, `resrt.NAME`."""
    module, _, name = node.get("reftarget", "").rpartition(".")
    if node.get("refdomain") != "py" or not module.startswith("resrt.") or name not in dir(resrt):
        return None
    return env.get_domain("py").resolve_xref(
        env, node["refdoc"], app.builder, "obj", f"resrt.{name}", node, content
    )


def setup(app: Sphinx) -> None:
    """Register what is above."""
    for documenter in (_Class, _Function, _Method, _Attribute, _Property):
        app.add_autodocumenter(documenter, override=True)
    app.connect("autodoc-process-signature", _process_signature)
    app.connect("autodoc-process-docstring", _process_docstring, priority=600)  # after napoleon
    app.connect("missing-reference", _resolve_public_name)
