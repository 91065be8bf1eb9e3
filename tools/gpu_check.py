"""Run all checks and latency measurements that require a GPU, and write the results as JSON.

    python tools/gpu_check.py --output gpu_check.json

Prints one line per check, a table of latencies, and the ratio of ResNeSt50's latency to ResNet50's,
starting with the settings of the published figures. The JSON file is written again after each step,
so an interrupted run keeps its results. Built engines are kept in --engines, by build of resrt and
GPU, and a later run uses them. Exit status 1: a check failed, or there is no GPU; without a GPU
nothing is written.
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
from gpu_checks import checks, latency
from gpu_checks.driver import Driver, Gpu, NoGpuError
from gpu_checks.engines import EngineStore
from resrt._support.files import writing_whole
from resrt.system import machine

BACKENDS = tuple(name for name in resrt.BACKENDS if name.startswith("tensorrt"))
NETWORKS = ("ResNet50", "ResNeSt50", "RegNetX_4GF")
PRECISIONS = ("fp32", "fp16", "bf16")
_LIBRARIES = ("numpy", "openvino", "torch", "triton", "onnxruntime-gpu", "onnxruntime", "onnx")
_TENSORRTS = ("tensorrt-cu13-libs", "tensorrt-cu12-libs", "tensorrt-rtx-cu13-libs")


@dataclass
class Report:
    """The results so far, and the file that they are written to."""

    output: Path
    gpu: Gpu
    results: dict[str, list[checks.Result]] = field(default_factory=dict)
    latencies: list[latency.Latency] = field(default_factory=list)
    ratios: list[latency.Ratio] = field(default_factory=list)

    def write(self) -> None:
        """Write the file completely or not at all."""
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
        """Add a result, print it and write the file."""
        self.results.setdefault(group, []).append(result)
        print(f"{group:13} {result}", flush=True)
        self.write()

    def why_unusable(self, backend: str) -> str | None:
        """Return why the backend's first check did not succeed, or None if it did."""
        first = next(iter(self.results.get(backend, [])), None)
        return None if first is None or first.outcome == "ok" else first.detail

    def failed(self) -> int:
        """Return the number of failed checks."""
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
    print(f"\n{report.failed()} checks failed; the results are in {options.output}")
    return 1 if report.failed() else 0


def run_checks(report: Report, options: argparse.Namespace) -> None:
    for check in _chosen(checks.machine_checks(options.kernels), options):
        engines = EngineStore("openvino", options.engines)
        report.add_check("kernels", checks.run(check, engines, options.limit))
    chosen = _chosen(checks.backend_checks(options.networks, options.foreign), options)
    if not chosen and options.no_latencies:
        return
    for backend in options.backend:
        engines = EngineStore(backend, options.engines)
        report.add_check(backend, checks.run(checks.FIRST, engines, options.limit))
        if why := report.why_unusable(backend):
            if chosen:
                others = f"further checks ({len(chosen)})"
                report.add_check(backend, checks.Result(others, "not run", why))
            continue
        for check in chosen:
            report.add_check(backend, checks.run(check, engines, options.limit))


def _chosen(all_checks: list[checks.Check], options: argparse.Namespace) -> list[checks.Check]:
    return [
        check
        for check in all_checks
        if any(fnmatch.fnmatch(check.name, pattern) for pattern in options.only)
    ]


@dataclass(frozen=True)
class Part:
    """The networks that take turns, with their precision and batch size."""

    networks: tuple[str, ...]
    precision: str
    batch: int

    def __str__(self) -> str:
        return f"{' and '.join(self.networks)}, {self.precision}, batch {self.batch}"


def parts(options: argparse.Namespace) -> list[Part]:
    """Return the two networks of the ratio first, starting with the published settings."""
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
    contenders = latency.contenders(usable)
    for part in parts(options):
        engines = EngineStore(
            "openvino",
            options.engines,
            max_batch=part.batch,  # TensorRT chooses kernels for the batch size that is timed
            timing_cache=not options.no_timing_cache,
        )
        of_part = (engines, contenders, part.networks, part.precision)
        print(f"{part}: engines to build: {latency.engines_to_build(*of_part)}", flush=True)
        found, ratios = latency.measure(*of_part, options.rounds, options.limit)
        print(*found, sep="\n", flush=True)
        report.latencies += found
        report.ratios += ratios
        report.write()
    print(f"\n{' over '.join(latency.RATIO)}; {latency.KNOWN}", *report.ratios, sep="\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("gpu_check.json"))
    parser.add_argument("--engines", type=Path, default=Path("gpu_check_engines"))
    parser.add_argument("--backend", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument(
        "--only", nargs="+", default=["*"], metavar="PATTERN", help="checks, such as '*kernels*'"
    )
    parser.add_argument("--kernels", type=Path, help=f"the program {checks.KERNEL_CHECK}")
    parser.add_argument("--foreign", type=Path, help="an engine file built for another GPU")
    parser.add_argument("--no-latencies", action="store_true")
    parser.add_argument(
        "--no-timing-cache",
        action="store_true",
        help="time TensorRT's kernels again for each engine whose latency is measured",
    )
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 8, 32])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument(
        "--limit",
        type=float,
        default=1800,
        help="maximum seconds for a check, and for a contender's preparation or turn",
    )
    return parser


if __name__ == "__main__":
    # Unlike a signal, an exit also ends the other processes.
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    sys.exit(main())
