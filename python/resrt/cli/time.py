"""`resrt time`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from resrt.cli.arguments import (
    INVALID_ARGUMENT,
    Misuse,
    add_shared,
    check_output,
    count,
    count_or_zero,
    seconds,
)
from resrt.cli.tables import Column, percent, print_json, render
from resrt.cli.terminal import steps

if TYPE_CHECKING:
    from resrt import Benchmark, LayerTime, Profile, Timing

SUMMARY = "measure the latency of an engine"
DESCRIPTION = (
    "Measures an engine's latency and throughput at several batch sizes, and the time for loading, "
    "the first inference and preprocessing. Also prints the latencies that PaddleClas publishes."
)
EXAMPLE = "resrt time resnest50.engine --batch 1 8 --duration 3 -o times.json"
MISUSE = INVALID_ARGUMENT

_ms = "{:.2f}".format


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_shared(parser, "engine")
    parser.add_argument(
        "--batch", type=count, nargs="+", default=[1, 4, 8], metavar="N", help="default: 1 4 8"
    )
    parser.add_argument(
        "--repeats",
        type=count,
        default=30,
        metavar="N",
        help="minimum number of timed inferences per batch size; default: %(default)s",
    )
    parser.add_argument(
        "--duration",
        type=seconds,
        default=1.0,
        metavar="SECONDS",
        help="minimum duration of the timed inferences per batch size; default: %(default)g",
    )
    parser.add_argument(
        "--warm-up",
        type=count_or_zero,
        default=3,
        metavar="N",
        help="untimed inferences before the timed ones; default: %(default)s",
    )
    add_shared(parser, "--threads", "--device")
    parser.add_argument(
        "--batch-sizes",
        type=count,
        nargs="+",
        default=(),
        metavar="N",
        help="compile the network for each of these batch sizes, instead of once for all; only for "
        "OpenVINO",
    )
    parser.add_argument(
        "--concurrency",
        type=count,
        default=1,
        metavar="N",
        help="concurrent callers, for throughput; they take turns unless --threads leaves room "
        "for several inferences; default: %(default)s",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="also measure the time of each layer, at the first batch size; only for OpenVINO",
    )
    parser.add_argument("-o", "--output", metavar="FILE.json", help="also write everything as JSON")
    add_shared(parser, "--overwrite", "--format")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    import resrt

    if options.overwrite and options.output is None:
        raise Misuse("--overwrite requires the file to overwrite: name it with -o")
    check_output(options, options.output)
    with steps(quiet=options.quiet) as progress:
        found = resrt.time(
            options.engine,
            batch_sizes=options.batch,
            repeats=options.repeats,
            duration=options.duration,
            warm_up=options.warm_up,
            threads=options.threads,
            device=options.device,
            compile_for=options.batch_sizes,
            concurrency=options.concurrency,
            profile=options.profile,
            output=options.output,
            progress=progress,
        )
    if options.format == "json":
        print_json(found.document())
    else:
        print(_text(found, is_brief=options.quiet))


def _text(found: Benchmark, *, is_brief: bool) -> str:
    parts = [_waits(found), _latencies(found)]
    if found.published and found.settings.concurrency == 1:
        parts.append(_beside_published(found))
    if found.profile is not None:
        parts += _profile(found.profile)
    if busy := found.busy:
        parts.append(f"{busy[0].upper()}{busy[1:]}.")
    if not is_brief:
        parts.insert(0, _heading(found))
        if any(timing.repeats < 100 for timing in found.timings):
            parts.append(
                "The p99 of fewer than 100 runs is the slowest run; --repeats 100 measures more."
            )
    return "\n\n".join(parts)


def _heading(found: Benchmark) -> str:
    shape = "x".join(map(str, found.input_shape))
    settings = found.settings
    threads = f"; threads per inference: {settings.threads}" if settings.threads else ""
    callers = f"; concurrent callers: {settings.concurrency}" if settings.concurrency > 1 else ""
    return (
        f"{found.model}: {shape}, {found.precision} on {found.backend} {found.backend_version}"
        f"{threads}{callers}\n{found.machine}"
    )


def _waits(found: Benchmark) -> str:
    preprocessing = None if found.preprocessing is None else found.preprocessing.median_ms
    waits = [
        ("load and warm up", found.load_ms),
        ("first inference", found.first_ms),
        ("preprocess one photograph", preprocessing),
    ]
    columns: list[Column[tuple[str, float | None]]] = [
        Column("step", "step", lambda wait: wait[0]),
        Column("ms", "ms", lambda wait: wait[1], _ms),
    ]
    return render(waits, columns, "table")


def _latencies(found: Benchmark) -> str:
    columns: list[Column[Timing]] = [
        Column("batch", "batch", lambda timing: timing.batch),
        Column("min_ms", "min (ms)", lambda timing: timing.min_ms, _ms),
        Column("median_ms", "median (ms)", lambda timing: timing.median_ms, _ms),
        Column("p90_ms", "p90 (ms)", lambda timing: timing.p90_ms, _ms),
        Column("p99_ms", "p99 (ms)", lambda timing: timing.p99_ms, _ms),
        Column("rate", "images/s", lambda timing: timing.images_per_second, "{:.1f}".format),
        Column("repeats", "runs", lambda timing: timing.repeats),
    ]
    return render(found.timings, columns, "table")


def _profile(found: Profile) -> list[str]:
    """Show the times of the layers, in the order of execution, and their sums by kind."""

    def columns(*names: Column[LayerTime]) -> list[Column[LayerTime]]:
        return [
            *names,
            Column("steps", "steps", lambda part: part.steps),
            Column("ms", "mean (ms)", lambda part: part.ms, "{:.3f}".format),
            Column("share", "share (%)", lambda part: part.share, percent),
        ]

    kind: Column[LayerTime] = Column("kind", "kind of layer", lambda part: part.kind)
    in_parentheses = (
        "Kinds in parentheses are steps of the backend that belong to no layer."
        if any(step.layers for step in found.steps)
        else "The engine file does not name its layers: build it again to see them."
    )
    layer: Column[LayerTime] = Column("layer", "layer", lambda part: part.name)
    return [
        f"{found.total_ms:.2f} ms in all layers at batch {found.batch}, the mean of "
        f"{found.repeats} runs, by the backend's own counters.\n{in_parentheses}",
        render(found.layers, columns(layer, kind), "table"),
        render(found.kinds, columns(kind), "table"),
    ]


def _beside_published(found: Benchmark) -> str:
    """Show the medians in the layout of PaddleClas's pages: one column per batch size."""
    rows: dict[str, dict[int, float]] = {
        f"here: {found.precision}": {timing.batch: timing.median_ms for timing in found.timings}
    }
    for name, milliseconds in found.published.items():
        device, precision, batch = name.split("_")  # v100_fp32_bs1
        row = rows.setdefault(f"published: {device.upper()}, {precision}", {})
        row[int(batch.removeprefix("bs"))] = milliseconds
    batches = sorted({batch for row in rows.values() for batch in row})

    def column(batch: int) -> Column[str]:
        return Column(f"batch{batch}", f"batch {batch}", lambda row: rows[row].get(batch), _ms)

    columns: list[Column[str]] = [Column("where", "median (ms)", str), *map(column, batches)]
    return render(list(rows), columns, "table")
