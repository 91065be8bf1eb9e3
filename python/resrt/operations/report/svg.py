"""Embedding of Matplotlib figures in an HTML page, with the fonts and colours of the page.

Figures use the placeholder colours of `COLOURS`, which are replaced by the page's custom properties
of the same names, so one drawing serves the light, dark and print styles. Text remains text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from xml.etree import ElementTree

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

SERIES = 5
"""The number of colours for series, which are named series-1 to series-5."""

COLOURS: Mapping[str, str] = {
    name: f"#0102{number:02x}"
    for number, name in enumerate(
        ["paper", "ink", "muted", "rule", *(f"series-{i}" for i in range(1, SERIES + 1))]
    )
}

TIP = "tip:"
"""A browser shows the rest of a gid that starts with this as the tooltip of its artist."""

_NAMES = {value: name for name, value in COLOURS.items()}
# The page has its own styles, and needs no metadata about the creation of a figure.
_DROPPED = {"metadata", "style"}


def inline(figure: Figure, *, prefix: str, label: str) -> Markup:
    """Return a figure as an <svg> element of an HTML page.

    Args:
        figure: a figure in COLOURS. One point of its size is one pixel, unless the page scales it.
        prefix: a prefix for identifiers that no other figure of the page has.
        label: a description for screen readers.
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
    root.attrib = {"viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": label}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


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
    """Remove namespaces, which HTML does not use, and identifiers without references."""
    element.tag = _local(element.tag)
    attributes = {_local(name): value for name, value in element.items()}
    name = attributes.pop("id", "")
    if name in linked:
        attributes["id"] = f"{prefix}-{name}"
    elif name.startswith(TIP):
        title = ElementTree.Element("title")
        title.text = name.removeprefix(TIP)
        element.insert(0, title)
    for link in attributes.keys() & {"href", "clip-path"}:
        attributes[link] = attributes[link].replace("#", f"#{prefix}-")
    if "style" in attributes:
        attributes["style"] = _style(attributes["style"])
    element.attrib = attributes


def _style(declarations: str) -> str:
    """Replace colours by those of the page, and the font by its size."""
    declarations = re.sub(r"#[0-9a-f]{6}\b", _colour, declarations)
    return re.sub(r"\bfont: [^;]*?([\d.]+px)[^;]*", r"font-size: \1", declarations)


def _colour(match: re.Match[str]) -> str:
    """Return the custom property of a placeholder. Matplotlib's only other colour is black."""
    name = _NAMES.get(match[0])
    return match[0] if name is None else f"var(--{name})"


def _local(name: str) -> str:
    return name.rpartition("}")[2]
