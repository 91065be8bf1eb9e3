"""The report's page: what its plots and tables show, put into `page.html`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import jinja2
from markupsafe import Markup

from resrt.catalog.models import ModelInfo, build_graph, model_info
from resrt.measuring.rounds import Spread
from resrt.operations.report import figures
from resrt.operations.report.figures import Panel, Point, Series
from resrt.operations.report.measurements import Measurements

# Networks that differ in what a reader compares, the most telling first.
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
# Those whose latency over the batch size is drawn: further ones would lie on these.
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
_MOST_LINES = 8

_SERIES = ("ResNet", "ResNet vd", "ResNet vd, distilled (SSLD)", "ResNeSt", "RegNet")
# Networks of a series that differ in depth alone, through which its line leads.
_PLAIN = re.compile(r"ResNet\d+(_vd)?(_ssld)?")
# The published columns, as PaddleClas's pages head them.
_PUBLISHED = {"v100_fp32": "V100 fp32", "t4_fp32": "T4 fp32", "t4_fp16": "T4 fp16"}
# The pair whose latency is furthest from what its arithmetic says.
_PAIR = ("ResNeSt50", "ResNet50")


@dataclass(frozen=True)
class Network:
    """A measured network, with our counts: `gflops` is twice its multiply-adds of an image."""

    info: ModelInfo
    gflops: float
    mparams: float

    @classmethod
    def of(cls, name: str) -> Network:
        """Return a network of the catalog. Raises ModelError."""
        cost = build_graph(name).cost
        return cls(model_info(name), 2e-9 * cost.multiply_adds, 1e-6 * cost.parameters)

    @property
    def name(self) -> str:
        """Its name in the catalog."""
        return self.info.name

    @property
    def series(self) -> int:
        """Which of _SERIES it belongs to."""
        for number, family in ((3, "ResNeSt"), (4, "RegNet")):
            if self.info.family.startswith(family):
                return number
        return 2 if "ssld" in self.name else 1 if "_vd" in self.name else 0

    def published_ms(self, column: str, batch: int) -> float | None:
        """Return a published latency, or None where there is none."""
        published = self.info.published
        return published.latency_ms.get(f"{column}_bs{batch}") if published else None


@dataclass(frozen=True)
class Plot:
    """A plot in all its sizes, by their names, and what stands around it."""

    heading: str
    caption: str
    drawn: dict[str, Markup]


@dataclass(frozen=True)
class RatioRow:
    """How many times as much of something the first of _PAIR takes, at each batch size."""

    what: str
    values: Sequence[Spread | float | None]


def render(measurements: Measurements) -> str:
    """Return the page of measurements that lack none of what their settings ask for.

    Raises ModelError where a network is not in the catalog.
    """
    settings = measurements.settings
    networks = [Network.of(name) for name in settings.networks]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_resource("page.html")).render(
        style=Markup(_resource("style.css")),
        measurements=measurements,
        settings=settings,
        machine=measurements.machine,
        days=sorted({date[:10] for date in measurements.dates()}),
        networks=networks,
        columns=_PUBLISHED,
        accuracy_plots=list(_accuracy_plots(networks, measurements)),
        batch_plot=_batch_plot(networks, measurements) if len(settings.batch_sizes) > 1 else None,
        pair=_PAIR,
        ratios=_ratios(networks, measurements),
        spreads=_spreads(measurements),
        twins=_twins(networks),
    )


def _resource(name: str) -> str:
    return resources.files("resrt.operations.report").joinpath(name).read_text("utf-8")


def _accuracy_plots(networks: Sequence[Network], measurements: Measurements) -> Iterator[Plot]:
    if not any(network.info.published for network in networks):
        return
    yield _accuracy_over(
        networks,
        {network.name: network.gflops for network in networks},
        name="gflops",
        heading="Accuracy over arithmetic",
        x_label="GFLOPs for an image",
        unit="GFLOPs",
        caption="Twice the multiply-adds of convolutions and linear layers, counted by resrt.",
    )
    yield _accuracy_over(
        networks,
        {network.name: network.mparams for network in networks},
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
    networks: Sequence[Network],
    costs: Mapping[str, float],
    *,
    name: str,
    heading: str,
    x_label: str,
    unit: str,
    caption: str,
) -> Plot:
    """Draw the published top-1 accuracies over what the networks cost."""
    series: dict[int, list[Point]] = {}
    # A line leads from a shallow network to a deep one, whatever was measured.
    for network in sorted(networks, key=lambda network: network.gflops):
        if published := network.info.published:
            x, y = costs[network.name], 100 * published.top1
            tip = f"{network.name}: {y:.2f}% top-1, {x:.3g} {unit}"
            point = Point(network.name, x, y, tip, bool(_PLAIN.fullmatch(network.name)))
            series.setdefault(network.series, []).append(point)
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
    return Plot(heading, caption, _marked(drawn))


def _batch_plot(networks: Sequence[Network], measurements: Measurements) -> Plot:
    """Draw latency over batch size, a panel for each precision."""
    settings = measurements.settings
    chosen = [n for n in networks if n.name in _OVER_BATCH_SIZE] or networks[:_MOST_LINES]

    def line(network: Network, precision: str) -> Series:
        points = []
        for batch in settings.batch_sizes:
            y = measurements.latency(network.name, precision, batch).median
            tip = f"{network.name}, {precision}, batch {batch}: {y:.1f} ms"
            points.append(Point(network.name, batch, y, tip))
        return Series(network.name, network.series, points)

    drawn = figures.panels(
        [Panel(p, [line(network, p) for network in chosen]) for p in settings.precisions],
        name="batch",
        x_label="images in a batch",
        y_label="latency of the batch (ms)",
        label=f"Plot of measured latency over batch size in {' and '.join(settings.precisions)} "
        f"for {', '.join(network.name for network in chosen)}. The tables below have all values.",
    )
    return Plot("Spread over batch size", "Both axes are logarithmic.", _marked(drawn))


def _marked(drawn: dict[str, str]) -> dict[str, Markup]:
    return {size: Markup(element) for size, element in drawn.items()}


def _ratios(networks: Sequence[Network], measurements: Measurements) -> list[RatioRow]:
    """Compare _PAIR; nothing where one of them was not measured."""
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
            (one.published_ms(column, batch), other.published_ms(column, batch))
            for batch in settings.batch_sizes
        ]
        rows.append(
            RatioRow(f"published, {heading}", [a / b if a and b else None for a, b in pairs])
        )
    return rows


def _spreads(measurements: Measurements) -> Spread | None:
    """Return the interquartile ranges of the rounds' medians over these; None for one round."""
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


def _twins(networks: Sequence[Network]) -> list[str]:
    """Return those networks that are one and the same but for their weights: the largest group."""
    groups: dict[tuple[str, int], list[str]] = {}
    for network in networks:
        key = (repr(network.info.config), network.info.input_size)
        groups.setdefault(key, []).append(network.name)
    largest = max(groups.values(), key=len)
    return largest if len(largest) > 1 else []
