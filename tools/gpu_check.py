"""Runs on a machine with a GPU what needs one: checks, then latencies; writes all as JSON.

    python tools/gpu_check.py --output gpu_check.json

Prints a line per check, a table of latencies, and ResNeSt50's latency over ResNet50's, whose
published figures' settings come first. The JSON file is written anew after each step, so that what
was done is kept where time ends. Built engines are kept in --engines, for this build of resrt and
this GPU: what was interrupted goes on from there. Exits with 1 where a check failed, or where there
is no GPU: then nothing is written.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import resrt
from gpu_checks import checks, latency, process
from gpu_checks.driver import Driver, Gpu, NoGpuError
from gpu_checks.workshop import Workshop
from resrt._support.files import writing_whole
from resrt.system import machine

BACKENDS = tuple(name for name in resrt.BACKENDS if name.startswith("tensorrt"))
NETWORKS = ("ResNet50", "ResNeSt50", "RegNetX_4GF")
PRECISIONS = ("fp32", "fp16", "bf16")
_LIBRARIES = ("numpy", "openvino", "torch", "triton", "onnxruntime-gpu", "onnxruntime", "onnx")
_TENSORRTS = ("tensorrt-cu13-libs", "tensorrt-cu12-libs", "tensorrt-rtx-cu13-libs")


@dataclass
class Report:
    """What was found so far, and the file that has it."""

    output: Path
    gpu: Gpu
    results: dict[str, list[checks.Result]] = field(default_factory=dict)
    latencies: list[latency.Latency] = field(default_factory=list)
    ratios: list[latency.Ratio] = field(default_factory=list)

    def write(self) -> None:
        """Write the file, whole or not at all."""
        document: dict[str, Any] = {
            "gpu": dataclasses.asdict(self.gpu),
            "machine": dataclasses.asdict(machine.describe(_LIBRARIES + _TENSORRTS)),
            "checks": {
                name: [dataclasses.asdict(result) for result in results]
                for name, results in self.results.items()
            },
            "method": latency.METHOD,
            "latencies": [dataclasses.asdict(found) for found in self.latencies],
            "resnest50_over_resnet50": [dataclasses.asdict(ratio) for ratio in self.ratios],
            "known_of_that_ratio": latency.KNOWN,
        }
        with writing_whole(self.output) as file:
            json.dump(document, file, indent=1)

    def add_check(self, group: str, result: checks.Result) -> None:
        self.results.setdefault(group, []).append(result)
        print(f"{group:13} {result}", flush=True)
        self.write()

    def why_unusable(self, backend: str) -> str | None:
        """Return what the backend's first check found, where that is why it cannot be used."""
        first = next(iter(self.results.get(backend, [])), None)
        return None if first is None or first.outcome == "ok" else first.detail

    def failed(self) -> int:
        return sum(
            result.outcome == "failed" for results in self.results.values() for result in results
        )


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        report = Report(options.output, Driver().gpu())
    except NoGpuError as error:
        print(f"no GPU can be used here: {error}", file=sys.stderr)
        return 1
    print(report.gpu, flush=True)
    run_checks(report, options)
    if not options.no_latencies:
        run_latencies(report, options)
    print(f"\n{report.failed()} checks failed; {options.output} has everything")
    return 1 if report.failed() else 0


def run_checks(report: Report, options: argparse.Namespace) -> None:
    anywhere = Workshop("openvino", options.engines)
    for check in _chosen(checks.machine_checks(options.kernels), options):
        report.add_check("kernels", checks.run_apart(check, anywhere, options.limit))
    chosen = _chosen(checks.backend_checks(options.networks, options.foreign), options)
    if not chosen and options.no_latencies:
        return
    for backend in options.backend:
        workshop = Workshop(backend, options.engines)
        report.add_check(backend, checks.run_apart(checks.FIRST, workshop, options.limit))
        if why := report.why_unusable(backend):
            if chosen:
                others = f"further checks ({len(chosen)})"
                report.add_check(backend, checks.Result(others, "not run", why))
            continue
        for check in chosen:
            report.add_check(backend, checks.run_apart(check, workshop, options.limit))


def _chosen(all_checks: list[checks.Check], options: argparse.Namespace) -> list[checks.Check]:
    return [
        check
        for check in all_checks
        if any(fnmatch.fnmatch(check.name, pattern) for pattern in options.only)
    ]


@dataclass(frozen=True)
class Part:
    """What takes turns with each other."""

    networks: tuple[str, ...]
    precision: str
    batch: int

    def __str__(self) -> str:
        return f"{' and '.join(self.networks)}, {self.precision}, batch {self.batch}"


def parts(options: argparse.Namespace) -> list[Part]:
    """Return the two networks of the ratio first, and of these the settings that were published."""
    compared = tuple(network for network in options.networks if network in latency.RATIO)
    others = tuple(network for network in options.networks if network not in latency.RATIO)
    settings = [(precision, batch) for precision in options.precisions for batch in options.batch]
    published = [setting for setting in latency.PUBLISHED if setting in settings]
    settings = published + [setting for setting in settings if setting not in published]
    return [Part(group, *setting) for group in (compared, others) if group for setting in settings]


def run_latencies(report: Report, options: argparse.Namespace) -> None:
    print(f"\n{latency.METHOD}")
    usable = []
    for backend in options.backend:
        if why := report.why_unusable(backend):
            print(f"{backend}: no latencies: {why}")
        else:
            usable.append(backend)
    todo = [(part, _workshop(part, options)) for part in parts(options)]
    missing = [
        latency.engines_to_build(workshop, usable, part.networks, part.precision)
        for part, workshop in todo
    ]
    print(f"up to {sum(missing)} engines are to be built, in {len(todo)} parts", flush=True)
    for (part, workshop), count in zip(todo, missing, strict=True):
        print(f"{part}: up to {count} engines are to be built", flush=True)
        found, ratios = measure(part, workshop, latency.contenders(usable), options)
        print(*found, sep="\n", flush=True)
        report.latencies += found
        report.ratios += ratios
        report.write()
    print(f"\n{' over '.join(latency.RATIO)}; {latency.KNOWN}", *report.ratios, sep="\n")


def _workshop(part: Part, options: argparse.Namespace) -> Workshop:
    """Kernels are chosen for the batch size that is timed."""
    return Workshop(
        "openvino",
        options.engines,
        max_batch=part.batch,
        timing_cache=not options.no_timing_cache,
    )


def measure(
    part: Part,
    workshop: Workshop,
    taking_part: list[latency.Contender],
    options: argparse.Namespace,
) -> tuple[list[latency.Latency], list[latency.Ratio]]:
    """Measure a part; where none could be timed, once more without the plugin.

    After some errors, as an access to memory that is not there, the GPU computes nothing more for
    the process: whoever causes one takes all others along.
    """
    ratios: list[latency.Ratio] = []
    try:
        arguments = (workshop, part.networks, part.precision, taking_part, options.rounds)
        found, ratios = process.run_apart(latency.measure, *arguments, limit=options.limit)
    except process.ProcessError as error:
        found = latency.none_measured(
            part.networks, part.precision, part.batch, taking_part, str(error)
        )
    if any(row.error is None for row in found):
        return found, ratios
    others = [contender for contender in taking_part if not contender.has_plugin]
    if len(others) == len(taking_part):
        return found, ratios
    print(f"{part}: none could be timed; once more without the plugin", flush=True)
    with_plugin = {contender.name for contender in taking_part if contender.has_plugin}
    again, ratios = measure(part, workshop, others, options)
    return [row for row in found if row.contender in with_plugin] + again, ratios


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("gpu_check.json"))
    parser.add_argument("--engines", type=Path, default=Path("gpu_check_engines"))
    parser.add_argument("--backend", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument(
        "--only", nargs="+", default=["*"], metavar="PATTERN", help="checks, as '*kernels*'"
    )
    parser.add_argument("--kernels", type=Path, help=f"the program {checks.KERNEL_CHECK}")
    parser.add_argument("--foreign", type=Path, help="an engine file that another GPU built")
    parser.add_argument("--no-latencies", action="store_true")
    parser.add_argument(
        "--no-timing-cache",
        action="store_true",
        help="time TensorRT's kernels anew for each of the latencies' engines",
    )
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 8, 32])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument(
        "--limit", type=float, default=1800, help="seconds for a check, or for a table's part"
    )
    return parser


if __name__ == "__main__":
    # An exit, unlike a signal, ends what runs in other processes, too.
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    sys.exit(main())
