"""Runs on a machine with a GPU what needs one: checks, then latencies; writes all as JSON.

    python tools/gpu_check.py --output gpu_check.json

Prints a line per check, a table of latencies, and ResNeSt50's latency over ResNet50's. The JSON
file is written anew after each step, so that what was done is kept where time ends. Built engines
are kept in --engines: what was interrupted goes on from there. Exits with 1 where a check failed,
or where there is no GPU: then nothing is written.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import resrt
from gpu_checks import checks, latency, process
from gpu_checks.driver import Driver, Gpu, NoGpuError
from gpu_checks.workshop import Workshop
from resrt import machine
from resrt.files import writing_whole

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
    for group, workshop, check in _chosen_checks(options):
        broken = [r for r in report.results.get(group, []) if r.name == checks.FIRST.name]
        if broken and broken[0].outcome != "ok":
            continue  # without its library a backend can do nothing
        report.add_check(group, checks.run_apart(check, workshop, options.limit))


def _chosen_checks(options: argparse.Namespace) -> Iterator[tuple[str, Workshop, checks.Check]]:
    """Yield group, workshop and check of those that were asked for, and each backend's first."""

    def is_chosen(check: checks.Check) -> bool:
        return any(fnmatch.fnmatch(check.name, pattern) for pattern in options.only)

    anywhere = Workshop("openvino", options.engines)
    for check in filter(is_chosen, checks.machine_checks(options.kernels)):
        yield "kernels", anywhere, check
    for backend in options.backend:
        workshop = Workshop(backend, options.engines)
        chosen = list(filter(is_chosen, checks.backend_checks(options.networks, options.foreign)))
        for check in [checks.FIRST, *chosen] if chosen else []:
            yield backend, workshop, check


def run_latencies(report: Report, options: argparse.Namespace) -> None:
    workshops = [Workshop(backend, options.engines) for backend in options.backend]
    usable = [w for w in workshops if not (w.status().why_not or w.status().why_build_only)]
    if not usable:
        print("\nno latencies: none of the backends can be used")
        return
    taking_part = latency.contenders([workshop.backend for workshop in usable])
    print(f"\n{latency.METHOD}")
    for precision in options.precisions:
        for batch in options.batch:
            # Kernels are chosen for the batch size that is timed.
            sized = [replace(workshop, max_batch=batch) for workshop in usable]
            arguments = (sized, options.networks, precision, batch, taking_part, options.rounds)
            try:
                found, ratios = process.run_apart(latency.measure, *arguments, limit=options.limit)
            except process.ProcessError as error:
                print(f"{precision}, batch {batch}: {error}", flush=True)
                continue
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
        "--only", nargs="+", default=["*"], metavar="PATTERN", help="checks, as '*kernels*'"
    )
    parser.add_argument("--kernels", type=Path, help=f"the program {checks.KERNEL_CHECK}")
    parser.add_argument("--foreign", type=Path, help="an engine file that another GPU built")
    parser.add_argument("--no-latencies", action="store_true")
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
