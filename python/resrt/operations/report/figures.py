"""The plots of the report, each drawn for a phone and for a wider page.

A plot that is only scaled down is unreadable, so the page has both and shows the one that fits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.path import Path
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Bbox

from resrt.operations.report import svg
from resrt.operations.report.svg import COLOURS


@dataclass(frozen=True)
class Point:
    """A network in a plot: its cost `x` and its quality `y`.

    `tip` is the text of its tooltip. `on_line` is whether the line of its series includes it.
    """

    network: str
    x: float
    y: float
    tip: str
    on_line: bool = True


@dataclass(frozen=True)
class Series:
    """Related points, in the order of the line through them.

    `style`, counted from 0, selects the colour and the marker in all plots.
    """

    name: str
    style: int
    points: Sequence[Point]


@dataclass(frozen=True)
class Panel:
    """One of several plots with the same axes."""

    title: str
    series: Sequence[Series]


@dataclass(frozen=True)
class Segment:
    """A part of a bar; `style`, counted from 0, selects the colour."""

    style: int
    length: float
    tip: str


@dataclass(frozen=True)
class Bar:
    """A bar of consecutive segments."""

    name: str
    segments: Sequence[Segment]


@dataclass(frozen=True)
class Size:
    """The size of a drawing. Lengths are in pixels of the page."""

    name: str
    width: int
    height: int
    font: float
    labels_all: bool


NARROW = Size("narrow", 340, 380, 12, labels_all=False)
WIDE = Size("wide", 820, 480, 13, labels_all=True)
SIZES = (NARROW, WIDE)

_STYLES = svg.SERIES
MOST_SEGMENTS = svg.SERIES
"""The number of segments that a bar can have, each in its own colour."""
# Longer names are shortened in plots, to so many characters of about this width, relative to their
# height.
_LONGEST = 24
_CHARACTER = 0.65
# The largest share of a panel's width that the names at the ends of its lines may take.
_NAMES = 0.5
# The height of a bar with the space to the next, in the height of the text.
_BAR = 2.0
# The marker of each style, and the scale at which all look equally large.
_MARKS = (("o", 1.0), ("s", 0.9), ("D", 0.85), ("^", 1.15), ("v", 1.15))
# The possible positions of a label relative to its point, in order of preference.
_PLACES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
_ALIGNMENTS = {1: ("left", "bottom"), 0: ("center", "center"), -1: ("right", "top")}


def scatter(
    series: Sequence[Series],
    notable: Sequence[str],
    *,
    name: str,
    x_label: str,
    y_label: str,
    label: str,
) -> dict[str, Markup]:
    """Draw points and the lines through them, with labels where there is room.

    `notable` networks are labelled first; a narrow plot labels no others. Returns an <svg> element
    for each of SIZES, by name.
    """

    def draw(size: Size) -> Figure:
        figure, (axes,) = _figure(size, rows=1, columns=1, height=size.height)
        for one in series:
            _line(axes, one, linewidth=1.2)
        axes.set_xlim(left=0)
        axes.margins(y=0.08)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        legend = axes.legend(loc="lower right", handlelength=1.6)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        points = [point for one in series for point in one.points]
        _label_points(axes, _ranked(points, notable, size), points, legend.get_window_extent())
        return figure

    return _in_all_sizes(draw, name, label)


def panels(
    plots: Sequence[Panel], *, name: str, x_label: str, y_label: str, label: str
) -> dict[str, Markup]:
    """Draw lines with labelled ends, in panels with the same logarithmic axes.

    Panels are side by side, or below each other on a phone. Returns the same as `scatter`.
    """

    def draw(size: Size) -> Figure:
        rows, columns = (len(plots), 1) if size is NARROW else (1, len(plots))
        figure, all_axes = _figure(size, rows=rows, columns=columns, height=size.height * rows)
        for axes, panel in zip(all_axes, plots, strict=True):
            axes.set_title(panel.title, loc="left")
            for one in panel.series:
                _line(axes, one, linewidth=1.6)
            axes.set_xlabel(x_label)
        ends = [one.points[-1].network for panel in plots for one in panel.series]
        room = _NAMES * all_axes[0].get_window_extent().width / (_CHARACTER * size.font)
        longest = min(round(room), max(map(len, ends)), _LONGEST)
        _log_axes(all_axes[0], [one for panel in plots for one in panel.series], longest)
        for axes in all_axes if columns == 1 else all_axes[:1]:
            axes.set_ylabel(y_label)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for axes, panel in zip(all_axes, plots, strict=True):
            _label_ends(axes, panel.series, longest)
        return figure

    return _in_all_sizes(draw, name, label)


def bars(
    rows: Sequence[Bar], segments: Sequence[str], *, name: str, x_label: str, label: str
) -> dict[str, Markup]:
    """Draw horizontal bars, the first at the top, with a legend of their segments below.

    `segments` has the name of each style. Returns the same as `scatter`.
    """

    def draw(size: Size) -> Figure:
        legend_rows = len(segments) if size is NARROW else 1
        height = size.font * (_BAR * len(rows) + 1.6 * legend_rows + 5)
        figure, (axes,) = _figure(size, rows=1, columns=1, height=round(height))
        for place, bar in enumerate(rows):
            start = 0.0
            for segment in bar.segments:
                _segment(axes, segment, place, start)
                start += segment.length
        axes.set_yticks(range(len(rows)), [_shortened(bar.name) for bar in rows])
        axes.tick_params(axis="y", labelcolor=COLOURS["ink"])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(x_label)
        patches = [
            Patch(color=COLOURS[f"series-{number + 1}"], label=segment)
            for number, segment in enumerate(segments)
        ]
        figure.legend(
            handles=patches,
            loc="outside lower left",
            ncols=1 if size is NARROW else len(segments),
            handlelength=1.0,
            columnspacing=1.2,
        )
        figure.draw_without_rendering()
        return figure

    return _in_all_sizes(draw, name, label)


def _segment(axes: Axes, segment: Segment, place: int, start: float) -> None:
    axes.barh(
        [place],
        [segment.length],
        left=start,
        height=0.7,
        color=COLOURS[f"series-{segment.style % _STYLES + 1}"],
        edgecolor=COLOURS["paper"],
        linewidth=0.8,
    )[0].set_gid(svg.TIP + segment.tip)


def _shortened(name: str, longest: int = _LONGEST) -> str:
    """Return a name without its middle if it is long: ends tell files apart."""
    if len(name) <= longest:
        return name
    half = (longest - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


def _in_all_sizes(draw: Callable[[Size], Figure], name: str, label: str) -> dict[str, Markup]:
    drawn = {}
    for size in SIZES:
        with mpl.rc_context(_parameters(size)):
            drawn[size.name] = svg.inline(draw(size), prefix=f"{name}-{size.name}", label=label)
    return drawn


def _parameters(size: Size) -> dict[Any, Any]:
    return {
        # Names may have dollar signs.
        "text.parse_math": False,
        "font.size": size.font,
        "axes.titlesize": size.font,
        "text.color": COLOURS["ink"],
        "axes.labelcolor": COLOURS["ink"],
        "xtick.color": COLOURS["muted"],
        "ytick.color": COLOURS["muted"],
        "axes.edgecolor": COLOURS["muted"],
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": COLOURS["rule"],
        "grid.linewidth": 0.8,
        "legend.frameon": False,
        "lines.markersize": 6.5 if size is NARROW else 7.5,
    }


def _figure(size: Size, *, rows: int, columns: int, height: int) -> tuple[Figure, list[Axes]]:
    """Return a figure with one pixel per point, and its axes, which have the same limits."""
    figure = Figure((size.width / 72, height / 72), dpi=72, layout="constrained")
    FigureCanvasAgg(figure)  # measures text
    axes = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for one in axes:
        one.tick_params(length=0, pad=5, labelbottom=True)
    return figure, axes


def _line(axes: Axes, series: Series, linewidth: float) -> None:
    """Draw a series as a line, and over it the marker of each point with its tooltip."""
    style = series.style % _STYLES
    mark, scale = _MARKS[style]
    look = {
        "color": COLOURS[f"series-{style + 1}"],
        "marker": mark,
        "markersize": scale * mpl.rcParams["lines.markersize"],
        "markeredgecolor": COLOURS["paper"],
        "markeredgewidth": 1.0,
        "clip_on": False,
    }
    xs = [point.x for point in series.points if point.on_line]
    ys = [point.y for point in series.points if point.on_line]
    shape = "solid" if len(xs) > 1 else "none"
    axes.plot(xs, ys, linestyle=shape, linewidth=linewidth, label=series.name, **look)
    for point in series.points:
        axes.plot([point.x], [point.y], linestyle="none", gid=svg.TIP + point.tip, **look)
    for drawn in axes.get_lines():
        drawn.set_in_layout(False)  # markers may cross the edge of the axes


def _ranked(points: Iterable[Point], notable: Sequence[str], size: Size) -> list[Point]:
    """Return the points to label, the notable ones first."""
    rank = {network: place for place, network in enumerate(notable)}
    chosen = [point for point in points if size.labels_all or point.network in rank]
    return sorted(chosen, key=lambda point: rank.get(point.network, len(rank)))


def _label_points(
    axes: Axes, chosen: Iterable[Point], points: Iterable[Point], legend: Bbox
) -> None:
    """Label points where the label covers no marker, label or legend, and preferably no line.

    A point without such a position gets no label.
    """
    taken = [legend, *(_marker(axes, point) for point in points)]
    lines = [line.get_path().transformed(line.get_transform()) for line in axes.get_lines()]
    for point in chosen:
        free = [
            (_crossings(box, lines), place, box)
            for place in range(len(_PLACES))
            if _inside(box := _try(axes, point, place), axes) and not box.count_overlaps(taken)
        ]
        if free:
            _, place, box = min(free, key=lambda option: option[:2])
            _label(axes, point, *_PLACES[place])
            taken.append(box)


def _try(axes: Axes, point: Point, place: int) -> Bbox:
    """Return the area that the label of a point would cover."""
    text = _label(axes, point, *_PLACES[place])
    box = text.get_window_extent()
    text.remove()
    return box


def _crossings(box: Bbox, lines: Iterable[Path]) -> int:
    return sum(line.intersects_bbox(box, filled=False) for line in lines)


def _marker(axes: Axes, point: Point) -> Bbox:
    x, y = axes.transData.transform((point.x, point.y))
    reach = mpl.rcParams["lines.markersize"] / 2 + 1
    return Bbox([[x - reach, y - reach], [x + reach, y + reach]])


def _label(axes: Axes, point: Point, across: int, up: int) -> Annotation:
    reach = mpl.rcParams["lines.markersize"] / 2 + (1 if across and up else 4)
    return axes.annotate(
        _shortened(point.network),
        (point.x, point.y),
        (across * reach, up * reach),
        textcoords="offset points",
        ha=_ALIGNMENTS[across][0],
        va=_ALIGNMENTS[up][1],
    )


def _inside(box: Bbox, axes: Axes) -> bool:
    around, edge = axes.get_window_extent(), axes.figure.bbox.x1
    is_within = around.x0 + 3 <= box.x0 and box.x1 <= edge
    return bool(is_within and around.y0 <= box.y0 and box.y1 <= around.y1)


def _log_axes(axes: Axes, series: Sequence[Series], longest: int) -> None:
    """Make axes logarithmic, with room for labels of so many characters at the lines' ends."""
    ticks = sorted({point.x for one in series for point in one.points})
    share = longest * _CHARACTER * mpl.rcParams["font.size"] / axes.get_window_extent().width
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(ticks[0] * 0.9, ticks[-1] * (ticks[-1] / ticks[0]) ** (share / (1 - share)))
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.spines["bottom"].set_visible(False)


def _label_ends(axes: Axes, series: Collection[Series], longest: int) -> None:
    """Label lines at their right ends, moving labels that would overlap."""
    ends = [(one, one.points[-1]) for one in series if one.points]
    ends.sort(key=lambda end: end[1].y)
    heights = [axes.transData.transform((end.x, end.y))[1] for _, end in ends]
    gap = 1.15 * mpl.rcParams["font.size"]
    for (_, end), height, place in zip(ends, heights, _spread(heights, gap), strict=True):
        axes.annotate(
            _shortened(end.network, longest),
            (end.x, end.y),
            (mpl.rcParams["lines.markersize"] / 2 + 5, place - height),
            textcoords="offset points",
            va="center",
            annotation_clip=False,
        )


def _spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move ascending heights so that they are `gap` apart: each group around its mean."""
    groups: list[list[float]] = []
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _lowest(groups[-1], gap) - _highest(groups[-2], gap) < gap:
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_lowest(group, gap) + i * gap for group in groups for i in range(len(group))]


def _lowest(group: Sequence[float], gap: float) -> float:
    return sum(group) / len(group) - gap * (len(group) - 1) / 2


def _highest(group: Sequence[float], gap: float) -> float:
    return sum(group) / len(group) + gap * (len(group) - 1) / 2
