"""The page of the report: fills `page.html` with plots and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from resrt.catalog.models import model_info
from resrt.measuring.rounds import Spread
from resrt.operations.report import plots
from resrt.operations.report.entries import Entry
from resrt.operations.report.measurements import Measurements

# The published columns and their headings.
_PUBLISHED = {"v100_fp32": "V100 fp32", "t4_fp32": "T4 fp32", "t4_fp16": "T4 fp16"}
# The two networks whose ratio of latencies differs most from that of their arithmetic.
_PAIR = ("ResNeSt50", "ResNet50")
# The kinds of layers that a table has a column for.
_MOST_KINDS = 8


@dataclass(frozen=True)
class RatioRow:
    """A cost of the first network of _PAIR relative to the second, at each batch size."""

    what: str
    values: Sequence[Spread | float | None]


@dataclass(frozen=True)
class KindsTable:
    """The time of all layers of each kind, of each entry that has it in a precision."""

    precision: str
    kinds: Sequence[str]
    rows: Mapping[str, Mapping[str, float]]


def render(measurements: Measurements) -> str:
    """Return the page for complete measurements.

    Raises ModelError if a network is not in the catalog.
    """
    settings = measurements.settings
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_resource("page.html")).render(
        style=Markup(_resource("style.css")),
        measurements=measurements,
        settings=settings,
        title=_title(measurements),
        data=None if settings.data is None else Path(settings.data).name or settings.data,
        warnings=_warnings(measurements),
        machine=measurements.machine,
        days=sorted({date[:10] for date in measurements.dates()}),
        entries=settings.entries,
        engines=[entry for entry in settings.entries if entry.engine is not None],
        networks=[entry for entry in settings.entries if entry.engine is None],
        columns=_PUBLISHED,
        published_ms=_published_ms,
        accuracy_plots=[
            *plots.measured_accuracy(measurements),
            *plots.published_accuracy(measurements),
        ],
        batch_plots=list(plots.batch_sizes(measurements)),
        kinds_plots=list(plots.kinds_of_layers(measurements)),
        kinds_tables=_kinds_tables(measurements),
        pair=_PAIR,
        ratios=_ratios(measurements),
        spreads=_spreads(measurements),
        twins=_twins(settings.entries),
    )


def _title(measurements: Measurements) -> str:
    """Return the heading, such as "Accuracy and latency of 2 engines and 1 network"."""
    entries = measurements.settings.entries
    engines = sum(entry.engine is not None for entry in entries)
    counts = {"engine": engines, "network": len(entries) - engines}
    parts = [f"{n} {what}{'s' if n > 1 else ''}" for what, n in counts.items() if n]
    has_accuracies = measurements.evaluated or engines < len(entries)
    what = "Accuracy and latency" if has_accuracies else "Latency"
    return f"{what} of {' and '.join(parts)}"


def _warnings(measurements: Measurements) -> list[str]:
    """Return what limits the trust in these measurements."""
    warnings = []
    if measurements.settings.is_quick:
        warnings.append(
            "This page is a first look: each latency was measured in a single round. Do not quote "
            "its figures."
        )
    for name, found in measurements.evaluated.items():
        if found.skipped and any(entry.name == name for entry in measurements.settings.entries):
            warnings.append(
                f"{found.skipped} of the images that {name} was evaluated on could not be read."
            )
    if busy := measurements.busy():
        warnings.append(f"{busy[0].upper()}{busy[1:]}. Its figures mean little.")
    return warnings


def _resource(name: str) -> str:
    return resources.files("resrt.operations.report").joinpath(name).read_text("utf-8")


def _published_ms(entry: Entry, column: str, batch: int) -> float | None:
    """Return a published latency in milliseconds, or None if there is none."""
    published = entry.published
    return published.latency_ms.get(f"{column}_bs{batch}") if published else None


def _kinds_tables(measurements: Measurements) -> list[KindsTable]:
    """Return the times of the kinds of layers, a table for each precision."""
    tables = []
    for precision in measurements.settings.precisions:
        times = {
            entry.name: kinds
            for entry in measurements.settings.entries
            if (kinds := measurements.kinds(entry, precision))
        }
        names = plots.main_kinds(list(times.values()), _MOST_KINDS)
        rows = {name: plots.grouped(found, names) for name, found in times.items()}
        if rows:
            tables.append(KindsTable(precision, names, rows))
    return tables


def _ratios(measurements: Measurements) -> list[RatioRow]:
    """Compare the networks of _PAIR, if both were measured."""
    settings = measurements.settings
    by_name = {entry.name: entry for entry in settings.entries if entry.engine is None}
    if not all(name in by_name for name in _PAIR):
        return []
    one, other = (by_name[name] for name in _PAIR)
    of_arithmetic = one.gflops / other.gflops if one.gflops and other.gflops else None
    rows = [RatioRow("arithmetic", [of_arithmetic] * len(settings.batch_sizes))]
    for precision in one.precisions:
        ratios = [measurements.ratio(*_PAIR, precision, batch) for batch in settings.batch_sizes]
        rows.append(RatioRow(f"latency here, {precision}", ratios))
    for column, heading in _PUBLISHED.items():
        pairs = [
            (_published_ms(one, column, batch), _published_ms(other, column, batch))
            for batch in settings.batch_sizes
        ]
        rows.append(
            RatioRow(f"published, {heading}", [a / b if a and b else None for a, b in pairs])
        )
    return rows


def _spreads(measurements: Measurements) -> Spread | None:
    """Return the spread of relative interquartile ranges of the latencies; None for one round."""
    settings = measurements.settings
    if settings.rounds == 1:
        return None
    latencies = [
        measurements.latency(entry, precision, batch)
        for entry in settings.entries
        for precision in entry.precisions
        for batch in settings.batch_sizes
    ]
    return Spread.of(
        [(found.high - found.low) / found.median for found in latencies if found is not None]
    )


def _twins(entries: Sequence[Entry]) -> list[str]:
    """Return the largest group of networks that differ only in their weights."""
    groups: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for entry in entries:
        if entry.engine is None:
            key = (repr(model_info(entry.network).config), entry.input_size)
            groups.setdefault(key, []).append(entry.name)
    largest = max(groups.values(), key=len, default=[])
    return largest if len(largest) > 1 else []
