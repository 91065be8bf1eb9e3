"""Matplotlib's figures as parts of a page: its fonts, its colours, no identifiers but its own.

Figures are drawn in the stand-in colours of `COLOURS`, for which the page's custom properties of
those names are put in, so that one drawing serves light, dark and paper. Text stays text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.figure import Figure

SERIES = 5
"""The colours that tell series apart are named series-1 to series-5."""

COLOURS: Mapping[str, str] = {
    name: f"#0102{number:02x}"
    for number, name in enumerate(
        ["paper", "ink", "muted", "rule", *(f"series-{i}" for i in range(1, SERIES + 1))]
    )
}

TIP = "tip:"
"""An artist whose gid begins so is shown with the rest of it as a tip, by browsers that can."""

_NAMES = {value: name for name, value in COLOURS.items()}
# What a figure takes over from the page, and what it says of its making.
_DROPPED = {"metadata", "style"}


def inline(figure: Figure, *, prefix: str, label: str) -> str:
    """Return a figure as an <svg> element of an HTML page.

    Args:
        figure: drawn in COLOURS; a point of its size becomes a pixel, or scales with the element.
        prefix: what makes its identifiers differ from those of the page's other figures.
        label: what it says, for those who cannot see it.
    """
    out = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(out.getvalue())
    _drop(root)
    linked = set(re.findall(r"#([\w-]+)", " ".join(_links(root))))
    for element in root.iter():
        _adapt(element, linked, prefix)
    _, _, width, height = root.attrib["viewBox"].split()
    root.attrib = {
        "viewBox": f"0 0 {width} {height}",
        "role": "img",
        "aria-label": label,
    }
    return ElementTree.tostring(root, encoding="unicode")


def _drop(element: ElementTree.Element) -> None:
    for child in list(element):
        if _local(child.tag) in _DROPPED:
            element.remove(child)
        else:
            _drop(child)


def _links(root: ElementTree.Element) -> list[str]:
    return [
        value
        for element in root.iter()
        for name, value in element.items()
        if _local(name) == "href" or "url(#" in value
    ]


def _adapt(element: ElementTree.Element, linked: set[str], prefix: str) -> None:
    """Take off namespaces, which HTML does without, and identifiers that nothing refers to."""
    element.tag = _local(element.tag)
    attributes = {_local(name): value for name, value in element.items()}
    name = attributes.pop("id", "")
    if name in linked:
        attributes["id"] = f"{prefix}-{name}"
    elif name.startswith(TIP):
        title = ElementTree.Element("title")
        title.text = name.removeprefix(TIP)
        element.insert(0, title)
    if "href" in attributes:
        attributes["href"] = attributes["href"].replace("#", f"#{prefix}-")
    if "clip-path" in attributes:
        attributes["clip-path"] = attributes["clip-path"].replace("#", f"#{prefix}-")
    if "style" in attributes:
        attributes["style"] = _style(attributes["style"])
    element.attrib = attributes


def _style(declarations: str) -> str:
    """Put the page's colours and font into a style."""
    declarations = re.sub(r"#[0-9a-f]{6}\b", _colour, declarations)
    return re.sub(r"\bfont: [^;]*?([\d.]+px)[^;]*", r"font-size: \1", declarations)


def _colour(match: re.Match[str]) -> str:
    """Return the custom property of a stand-in; matplotlib writes no other colours but black."""
    name = _NAMES.get(match[0])
    return match[0] if name is None else f"var(--{name})"


def _local(name: str) -> str:
    return name.rpartition("}")[2]
