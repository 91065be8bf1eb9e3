"""The page of the report: fills `page.html` with plots and tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import jinja2
from markupsafe import Markup

from resrt.catalog.models import ModelInfo, model_info
from resrt.measuring.rounds import Spread
from resrt.operations.report import figures
from resrt.operations.report.figures import Panel, Point, Series
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
# The networks in the plot of latency over batch size; the lines of others would overlap these.
_OVER_BATCH_SIZE = (
    "ResNet18",
    "ResNet34",
    "ResNet50",
    "RegNetX_4GF",
    "ResNeSt50",
    "ResNet101",
    "ResNet152",
    "ResNet200_vd",
)
_MAX_LINES = 8

_SERIES = ("ResNet", "ResNet vd", "ResNet vd, distilled (SSLD)", "ResNeSt", "RegNet")
# The networks that differ only in depth, which the line of their series connects.
_PLAIN = re.compile(r"ResNet\d+(_vd)?(_ssld)?")
# The published columns and their headings.
_PUBLISHED = {"v100_fp32": "V100 fp32", "t4_fp32": "T4 fp32", "t4_fp16": "T4 fp16"}
# The two networks whose ratio of latencies differs most from that of their arithmetic.
_PAIR = ("ResNeSt50", "ResNet50")


@dataclass(frozen=True)
class Plot:
    """A plot with its heading and caption, drawn in all sizes, by name."""

    heading: str
    caption: str
    drawn: dict[str, Markup]


@dataclass(frozen=True)
class RatioRow:
    """A cost of the first network of _PAIR relative to the second, at each batch size."""

    what: str
    values: Sequence[Spread | float | None]


def render(measurements: Measurements) -> str:
    """Return the page for complete measurements.

    Raises ModelError if a network is not in the catalog.
    """
    settings = measurements.settings
    networks = [model_info(name) for name in settings.networks]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_resource("page.html")).render(
        style=Markup(_resource("style.css")),
        measurements=measurements,
        settings=settings,
        warnings=_warnings(measurements),
        machine=measurements.machine,
        days=sorted({date[:10] for date in measurements.dates()}),
        networks=networks,
        columns=_PUBLISHED,
        published_ms=_published_ms,
        accuracy_plots=list(_accuracy_plots(networks, measurements)),
        batch_plot=_batch_plot(networks, measurements) if len(settings.batch_sizes) > 1 else None,
        pair=_PAIR,
        ratios=_ratios(networks, measurements),
        spreads=_spreads(measurements),
        twins=_twins(networks),
    )


def _warnings(measurements: Measurements) -> list[str]:
    """Return what limits the trust in these measurements."""
    warnings = []
    if measurements.settings.is_quick:
        warnings.append(
            "This page is a first look: each latency was measured in a single round. Do not quote "
            "its figures."
        )
    if busy := measurements.busy():
        warnings.append(f"{busy[0].upper()}{busy[1:]}. Its figures mean little.")
    return warnings


def _resource(name: str) -> str:
    return resources.files("resrt.operations.report").joinpath(name).read_text("utf-8")


def _accuracy_plots(networks: Sequence[ModelInfo], measurements: Measurements) -> Iterator[Plot]:
    if not any(network.published for network in networks):
        return
    yield _accuracy_over(
        networks,
        {network.name: network.gflops for network in networks},
        name="gflops",
        heading="Accuracy over arithmetic",
        x_label="GFLOPs per image",
        unit="GFLOPs",
        caption="Twice the multiply-adds of convolutions and linear layers, counted by resrt.",
    )
    yield _accuracy_over(
        networks,
        {network.name: network.parameters / 1e6 for network in networks},
        name="parameters",
        heading="Accuracy over size",
        x_label="parameters (millions)",
        unit="million parameters",
        caption="Trainable parameters, counted by resrt.",
    )
    batch = measurements.settings.batch_sizes[0]
    for precision in measurements.settings.precisions:
        yield _accuracy_over(
            networks,
            {
                network.name: measurements.latency(network.name, precision, batch).median
                for network in networks
            },
            name=f"latency-{precision}",
            heading=f"Accuracy over latency, {precision}",
            x_label=f"latency at batch {batch}, {precision} (ms)",
            unit="ms",
            caption=f"Spread at batch {batch} in {precision}, measured here.",
        )


def _accuracy_over(
    networks: Sequence[ModelInfo],
    costs: Mapping[str, float],
    *,
    name: str,
    heading: str,
    x_label: str,
    unit: str,
    caption: str,
) -> Plot:
    """Draw the published top-1 accuracies over a cost of the networks."""
    series: dict[int, list[Point]] = {}
    # A line always goes from shallow to deep networks, whatever was measured.
    for network in sorted(networks, key=lambda network: network.gflops):
        if published := network.published:
            x, y = costs[network.name], 100 * published.top1
            tip = f"{network.name}: {y:.2f}% top-1, {x:.3g} {unit}"
            point = Point(network.name, x, y, tip, bool(_PLAIN.fullmatch(network.name)))
            series.setdefault(_series(network), []).append(point)
    points = [point for some in series.values() for point in some]
    least, most = (choose(points, key=lambda p: p.x) for choose in (min, max))
    best = max(points, key=lambda p: p.y)
    drawn = figures.scatter(
        [Series(_SERIES[style], style, some) for style, some in sorted(series.items())],
        _NOTABLE,
        name=name,
        x_label=x_label,
        y_label="top-1 accuracy (%)",
        label=f"Plot of published top-1 accuracy over {x_label} for {len(points)} networks. "
        f"Lowest cost: {least.tip}. Highest cost: {most.tip}. Most accurate: {best.tip}. "
        "The tables below have all values.",
    )
    return Plot(heading, caption, drawn)


def _batch_plot(networks: Sequence[ModelInfo], measurements: Measurements) -> Plot:
    """Draw latency over batch size, with a panel for each precision."""
    settings = measurements.settings
    chosen = [n for n in networks if n.name in _OVER_BATCH_SIZE] or networks[:_MAX_LINES]

    def line(network: ModelInfo, precision: str) -> Series:
        points = []
        for batch in settings.batch_sizes:
            y = measurements.latency(network.name, precision, batch).median
            tip = f"{network.name}, {precision}, batch {batch}: {y:.1f} ms"
            points.append(Point(network.name, batch, y, tip))
        return Series(network.name, _series(network), points)

    drawn = figures.panels(
        [Panel(p, [line(network, p) for network in chosen]) for p in settings.precisions],
        name="batch",
        x_label="batch size",
        y_label="latency per batch (ms)",
        label=f"Plot of measured latency over batch size in {' and '.join(settings.precisions)} "
        f"for {', '.join(network.name for network in chosen)}. The tables below have all values.",
    )
    return Plot("Spread over batch size", "Both axes are logarithmic.", drawn)


def _series(network: ModelInfo) -> int:
    """Return the index of a network's series in _SERIES."""
    for number, family in ((3, "ResNeSt"), (4, "RegNet")):
        if network.family.startswith(family):
            return number
    return 2 if "ssld" in network.name else 1 if "_vd" in network.name else 0


def _published_ms(network: ModelInfo, column: str, batch: int) -> float | None:
    """Return a published latency in milliseconds, or None if there is none."""
    published = network.published
    return published.latency_ms.get(f"{column}_bs{batch}") if published else None


def _ratios(networks: Sequence[ModelInfo], measurements: Measurements) -> list[RatioRow]:
    """Compare the networks of _PAIR, if both were measured."""
    by_name = {network.name: network for network in networks}
    if not all(name in by_name for name in _PAIR):
        return []
    settings = measurements.settings
    one, other = (by_name[name] for name in _PAIR)
    rows = [RatioRow("arithmetic", [one.gflops / other.gflops] * len(settings.batch_sizes))]
    for precision in settings.precisions:
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
        measurements.latency(network, precision, batch)
        for network in settings.networks
        for precision in settings.precisions
        for batch in settings.batch_sizes
    ]
    return Spread.of([(latency.high - latency.low) / latency.median for latency in latencies])


def _twins(networks: Sequence[ModelInfo]) -> list[str]:
    """Return the largest group of networks that differ only in their weights."""
    groups: dict[tuple[str, int], list[str]] = {}
    for network in networks:
        key = (repr(network.config), network.input_size)
        groups.setdefault(key, []).append(network.name)
    largest = max(groups.values(), key=len)
    return largest if len(largest) > 1 else []
