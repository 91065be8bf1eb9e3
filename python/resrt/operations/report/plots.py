"""The plots of the report: which of the measurements they show, and how they are described."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from resrt.operations.report import figures
from resrt.operations.report.entries import Entry
from resrt.operations.report.figures import Bar, Panel, Point, Segment, Series
from resrt.operations.report.measurements import Measurements

# The networks that a reader is most likely to compare, the most important first.
_NOTABLE = (
    "ResNet50",
    "ResNeSt50",
    "RegNetX_4GF",
    "ResNet18",
    "ResNet200_vd",
    "Fix_ResNet50_vd_ssld_v2",
    "ResNet101_vd_ssld",
    "ResNet152",
    "ResNet50_vd_ssld_v2",
    "ResNet50_vd",
    "ResNet34_vd_ssld",
    "ResNeSt50_fast_1s1x64d",
    "ResNet101",
)
# The networks in the plots of latency over batch size and of the kinds of layers; the lines of
# others would overlap these.
_SHOWN = (
    "ResNet18",
    "ResNet34",
    "ResNet50",
    "RegNetX_4GF",
    "ResNeSt50",
    "ResNet101",
    "ResNet152",
    "ResNet200_vd",
)
_MOST_SHOWN = 8

_SERIES = ("ResNet", "ResNet vd", "ResNet vd, distilled (SSLD)", "ResNeSt", "RegNet")
# The networks that differ only in depth, which the line of their series connects.
_PLAIN = re.compile(r"ResNet\d+(_vd)?(_ssld)?")

OTHERS = "others"
"""The kinds of layers that take the least time, together."""


@dataclass(frozen=True)
class Plot:
    """A plot with its heading and caption, drawn in all sizes, by name."""

    heading: str
    caption: str
    drawn: dict[str, Markup]


@dataclass(frozen=True)
class _Cost:
    """A cost over which accuracies are plotted.

    `of` returns it, or None for an entry without it; `unit` is for tooltips.
    """

    of: Callable[[Entry], float | None]
    x_label: str
    unit: str


def published_accuracy(measurements: Measurements) -> Iterator[Plot]:
    """Draw the published accuracies over each cost of the networks."""
    entries = measurements.settings.entries
    top1 = {entry.name: entry.published.top1 for entry in entries if entry.published}

    def plot(name: str, heading: str, caption: str, cost: _Cost) -> Iterator[Plot]:
        drawn = _accuracy_over(entries, top1, cost, name=name, what="published top-1 accuracy")
        if drawn:
            yield Plot(heading, caption, drawn)

    yield from plot(
        "gflops",
        "Accuracy over arithmetic",
        "Twice the multiply-adds of convolutions and linear layers, counted by resrt.",
        _Cost(lambda entry: entry.gflops, "GFLOPs per image", "GFLOPs"),
    )
    yield from plot(
        "parameters",
        "Accuracy over size",
        "Trainable parameters, counted by resrt.",
        _Cost(_millions, "parameters (millions)", "million parameters"),
    )
    batch = measurements.settings.batch_sizes[0]
    for precision in measurements.settings.precisions:
        yield from plot(
            f"latency-{precision}",
            f"Accuracy over latency, {precision}",
            f"Latency at batch {batch} in {precision}, measured here.",
            _Cost(
                lambda entry, precision=precision: _latency(  # type: ignore[misc]
                    measurements, entry, precision, batch
                ),
                f"latency at batch {batch}, {precision} (ms)",
                "ms",
            ),
        )


def measured_accuracy(measurements: Measurements) -> Iterator[Plot]:
    """Draw the measured accuracies of the engines over their latencies, if there are any."""
    batch = measurements.settings.batch_sizes[0]
    drawn = _accuracy_over(
        measurements.settings.entries,
        {name: found.top1.value for name, found in measurements.evaluated.items()},
        _Cost(
            lambda entry: _latency(measurements, entry, entry.precisions[0], batch),
            f"latency at batch {batch} (ms)",
            "ms",
        ),
        name="measured",
        what="measured top-1 accuracy",
    )
    if drawn:
        caption = f"Both measured here, each engine in its own precision; latency at batch {batch}."
        yield Plot("Measured accuracy over latency", caption, drawn)


def batch_sizes(measurements: Measurements) -> Iterator[Plot]:
    """Draw latency over batch size, with a panel for each precision."""
    settings = measurements.settings
    if len(settings.batch_sizes) == 1:
        return
    shown = _shown(settings.entries)

    def line(entry: Entry, precision: str) -> Series:
        points = []
        for batch in settings.batch_sizes:
            y = _latency(measurements, entry, precision, batch) or 0.0
            tip = f"{entry.name}, {precision}, batch {batch}: {y:.1f} ms"
            points.append(Point(entry.name, batch, y, tip))
        return Series(entry.name, _series(entry), points)

    panels = [
        Panel(precision, [line(entry, precision) for entry in shown if _has(entry, precision)])
        for precision in settings.precisions
    ]
    panels = [panel for panel in panels if panel.series]
    drawn = figures.panels(
        panels,
        name="batch",
        x_label="batch size",
        y_label="latency per batch (ms)",
        label=f"Plot of measured latency over batch size in "
        f"{' and '.join(panel.title for panel in panels)} for "
        f"{', '.join(entry.name for entry in shown)}. The tables below have all values.",
    )
    yield Plot("Latency over batch size", "Both axes are logarithmic.", drawn)


def kinds_of_layers(measurements: Measurements) -> Iterator[Plot]:
    """Draw the time of all layers of each kind, a plot for each precision."""
    batch = measurements.settings.batch_sizes[0]
    shown = _shown(measurements.settings.entries)
    for precision in measurements.settings.precisions:
        times = {
            entry.name: kinds for entry in shown if (kinds := measurements.kinds(entry, precision))
        }
        if not times:
            continue
        names = main_kinds(list(times.values()), figures.MOST_SEGMENTS)
        bars = [
            Bar(
                name,
                [
                    Segment(
                        number, ms, f"{name}: {kind} {ms:.2f} ms ({ms / sum(kinds.values()):.0%})"
                    )
                    for number, (kind, ms) in enumerate(grouped(kinds, names).items())
                ],
            )
            for name, kinds in times.items()
        ]
        drawn = figures.bars(
            bars,
            names,
            name=f"kinds-{precision}",
            x_label=f"time at batch {batch}, {precision} (ms)",
            label=f"Plot of the time of all layers of each kind, {', '.join(names)}, in "
            f"{precision} for {', '.join(times)}. The table below has all values.",
        )
        yield Plot(
            f"Time by kind of layer, {precision}",
            "By the backend's own counters. Kinds joined by + are computed together, and those in "
            "parentheses are steps of the backend that belong to no layer.",
            drawn,
        )


def main_kinds(times: Sequence[Mapping[str, float]], most: int) -> list[str]:
    """Return the kinds that take the most time, at most `most`, of which the last may be OTHERS."""
    totals: Counter[str] = Counter()
    for kinds in times:
        totals.update(kinds)
    names = [name for name, _ in totals.most_common()]
    return names if len(names) <= most else [*names[: most - 1], OTHERS]


def grouped(kinds: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """Return the time of each of the main kinds, and of the others together."""
    found = {name: kinds.get(name, 0.0) for name in names if name != OTHERS}
    if OTHERS in names:
        found[OTHERS] = sum(ms for name, ms in kinds.items() if name not in found)
    return found


def _accuracy_over(
    entries: Sequence[Entry], top1: Mapping[str, float], cost: _Cost, *, name: str, what: str
) -> dict[str, Markup]:
    """Draw accuracies, by the name of the entry, over a cost; nothing if there are none."""
    series: dict[int, list[Point]] = {}
    # A line always goes from shallow to deep networks, whatever was measured.
    for entry in sorted(entries, key=lambda entry: entry.gflops or 0.0):
        x = cost.of(entry)
        if entry.name in top1 and x is not None:
            y = 100 * top1[entry.name]
            tip = f"{entry.name}: {y:.2f}% top-1, {x:.3g} {cost.unit}"
            on_line = entry.engine is None and bool(_PLAIN.fullmatch(entry.name))
            series.setdefault(_series(entry), []).append(Point(entry.name, x, y, tip, on_line))
    points = [point for some in series.values() for point in some]
    if not points:
        return {}
    least, most = (choose(points, key=lambda p: p.x) for choose in (min, max))
    best = max(points, key=lambda p: p.y)
    return figures.scatter(
        [Series(_SERIES[style], style, some) for style, some in sorted(series.items())],
        _NOTABLE,
        name=name,
        x_label=cost.x_label,
        y_label="top-1 accuracy (%)",
        label=f"Plot of {what} over {cost.x_label} for {len(points)} networks. "
        f"Lowest cost: {least.tip}. Highest cost: {most.tip}. Most accurate: {best.tip}. "
        "The tables below have all values.",
    )


def _latency(measurements: Measurements, entry: Entry, precision: str, batch: int) -> float | None:
    latency = measurements.latency(entry, precision, batch)
    return None if latency is None else latency.median


def _millions(entry: Entry) -> float | None:
    return None if entry.parameters is None else entry.parameters / 1e6


def _has(entry: Entry, precision: str) -> bool:
    return precision in entry.precisions


def _shown(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries for plots that have no room for all: engines, then chosen networks."""
    engines = [entry for entry in entries if entry.engine is not None]
    chosen = [entry for entry in entries if entry.engine is None and entry.name in _SHOWN]
    return ([*engines, *chosen] or list(entries))[:_MOST_SHOWN]


def _series(entry: Entry) -> int:
    """Return the index of an entry's series in _SERIES."""
    network = entry.network
    for number, family in ((3, "resnest"), (4, "regnet")):
        if family in network.lower():
            return number
    if entry.engine is None and "ssld" in network:
        return 2
    return 1 if "_vd" in network else 0
