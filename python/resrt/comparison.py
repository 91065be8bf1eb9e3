"""The same network and weights in everything else that is installed, timed in turn."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from resrt import machine
from resrt._arguments import whole
from resrt.competitors import (
    COMPETITORS,
    ENGINE,
    IMAGES,
    ONNX,
    OURS,
    WEIGHTS,
    Competitor,
    Task,
    paddle_inference,
)
from resrt.competitors.process import Failed, Process, Report
from resrt.engine import build_network
from resrt.errors import BackendError, InputError
from resrt.exporting import onnx_model, relative_difference
from resrt.network import Model, Network, WeightsLike, resolve

_LIBRARIES = ("openvino", "onnx", "onnxruntime", "torch", "paddlepaddle", "paddleclas", "numpy")
_WARM_UP = 2  # rounds
_QUIET = 0.25  # processes for each core


@dataclass(frozen=True)
class Measurement:
    """What one library did with one batch size; the figures are None where `error` says why.

    `precision` is what it computed in, where it has not the engine's. `median_ms` is its latency in
    milliseconds per batch. `ratio` is resrt's latency over it, the median of the ratios within
    rounds (below 1, resrt is the faster), `ratio_low` and `ratio_high` are their quartiles.
    `difference` is the largest between its logits and resrt's, over the largest of resrt's.
    """

    name: str
    title: str
    batch: int
    version: str = ""
    precision: str = ""
    settings: str = ""
    median_ms: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    difference: float | None = None
    error: str | None = None

    def __str__(self) -> str:
        if self.error is not None:
            return f"{self.title:20}{self.error}"
        text = f"{self.title:20}{self.version:14}{self.precision:11}{self.median_ms:9.2f} ms"
        if self.name == OURS.name:
            return text
        spread = f"({self.ratio_low:.3f} – {self.ratio_high:.3f})"
        return f"{text}{self.ratio:8.3f} {spread}  {self.difference:13.1e}"


@dataclass(frozen=True)
class Comparison:
    """A network's latency in resrt beside that in other libraries.

    `measurements` are by batch size, resrt's first of each; `left_out` says for every library that
    was not run why, and the command that installs it. `load` is how many processes wanted to run
    in the minute before: on a machine that others use, the figures tell little.
    """

    network: str
    weights: str
    input_shape: tuple[int, int, int]
    precision: str
    threads: int
    rounds: int
    machine: machine.Machine
    load: float
    measurements: tuple[Measurement, ...]
    left_out: dict[str, str]

    def __str__(self) -> str:
        shape = " x ".join(map(str, self.input_shape))
        lines = [
            f"{self.network}, images {shape}, {self.precision}, {self.threads} threads, "
            f"{self.rounds} rounds, weights: {self.weights}",
            str(self.machine),
            "",
            f"  {'':20}{'version':14}{'precision':11}{'median':>12}   ratio (quartiles)  "
            "     logits differ by",
        ]
        batch = None
        for measurement in self.measurements:
            if measurement.batch != batch:
                batch = measurement.batch
                lines.append(f"batch {batch}")
            lines.append(f"  {measurement}".rstrip())
        lines += ["", "ratio: resrt's latency over the library's; below 1, resrt is the faster"]
        if self.load > _QUIET * self.machine.cores:
            lines.append(
                f"the machine was not quiet: {self.load:.1f} processes wanted to run before, on "
                f"{self.machine.cores} cores; libraries suffer unequally from that"
            )
        lines += [f"left out: {title}: {why}" for title, why in self.left_out.items()]
        return "\n".join(lines)


def compare(
    model: Model,
    weights: WeightsLike | None = None,
    *,
    batch_sizes: Sequence[int] = (1, 8),
    precision: str = "auto",
    threads: int | None = None,
    rounds: int = 30,
    competitors: Sequence[str] | None = None,
    input_size: int | Sequence[int] | None = None,
    classes: int | None = None,
    in_channels: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> Comparison:
    """Time a network in resrt and, in turn, in the other libraries that are installed.

    OpenVINO and ONNX Runtime run the ONNX export for each batch size, PyTorch the same layers as a
    module, Paddle PaddleClas's own network; all have the same weights, random images and number
    of threads, and each a process of its own. In a round each runs once untimed, then once timed,
    and the next begins when its threads sleep; who is first changes from round to round.

    Args:
        model: a name, a ResNet, ResNeSt or RegNet, or a graph, as for `resrt.build`.
        weights: as for `resrt.build`; None: the network's pretrained weights.
        batch_sizes: images per batch.
        precision: of resrt.PRECISIONS; a library that has not that computes in float32.
        threads: processor threads of each library; None: one for each core.
        rounds: how many are timed.
        competitors: names of resrt.COMPETITORS; None: those that are installed.
        input_size: as for `resrt.build`, and so are the following.
        classes: the number of logits.
        in_channels: planes of the images.
        progress: called with what is about to be done, each time.

    Raises what `resrt.build` raises; InputError for unknown competitors, and BackendError for those
    that were named but are not installed. An error in another library is in its Measurement.
    """
    batch_sizes = [whole("a batch size", size) for size in batch_sizes]
    if not batch_sizes:
        raise InputError("batch_sizes is empty; name at least one")
    rounds = whole("rounds", rounds)
    threads = machine.cores() if threads is None else whole("threads", threads)
    load = os.getloadavg()[0]
    chosen = _chosen(competitors)
    network = resolve(
        model,
        weights,
        input_size=input_size,
        classes=classes,
        in_channels=in_channels,
        labels=None,
        preprocessing=None,
    )
    present, left_out = _sort_out(chosen, network, is_asked_for=competitors is not None)
    measurements: list[Measurement] = []
    with tempfile.TemporaryDirectory(prefix="resrt-compare-") as name:
        folder = Path(name)
        engine = build_network(
            network, precision=precision, max_batch=max(batch_sizes), threads=threads
        )
        engine.save(folder / ENGINE)
        precision = engine.info.precision
        save_file(network.weights, folder / WEIGHTS)
        task = Task(folder, network.graph, precision, threads)
        for batch in batch_sizes:
            _write_inputs(network, batch, present, folder)
            measurements += _measure(task, batch, present, rounds, progress or _silent)
    return Comparison(
        network=network.graph.name,
        weights=network.origin,
        input_shape=network.graph.input_shape,
        precision=precision,
        threads=threads,
        rounds=rounds,
        machine=machine.describe(_LIBRARIES),
        load=load,
        measurements=tuple(measurements),
        left_out=left_out,
    )


class Runner(Protocol):
    """What takes turns: a competitor's process."""

    @property
    def competitor(self) -> Competitor:
        """What it runs."""

    def turn(self) -> float:
        """Return the seconds of one run. Raises Failed."""


def take_turns(
    runners: Sequence[Runner], rounds: int, after_round: Callable[[int], None]
) -> tuple[dict[str, npt.NDArray[np.float64]], dict[str, str]]:
    """Return each runner's seconds, one for each round, by name; and why others have none.

    A runner that fails takes no further turns. The first of a round is the last of the next.
    """
    seconds: dict[str, list[float]] = {runner.competitor.name: [] for runner in runners}
    failures: dict[str, str] = {}
    running = list(runners)
    for number in range(-_WARM_UP, rounds):
        for runner in tuple(running):
            name = runner.competitor.name
            try:
                seconds[name].append(runner.turn())
            except Failed as failure:
                failures[name] = str(failure)
                running.remove(runner)
        running = running[1:] + running[:1]
        if number >= 0:
            after_round(number + 1)
    finished = {runner.competitor.name for runner in running}
    times = {name: np.array(taken[_WARM_UP:]) for name, taken in seconds.items()}
    return {name: taken for name, taken in times.items() if name in finished}, failures


def _silent(step: str) -> None:
    """Report no progress."""


def _chosen(names: Sequence[str] | None) -> list[Competitor]:
    if names is None:
        return list(COMPETITORS)
    known = {competitor.name: competitor for competitor in COMPETITORS}
    for name in names:
        if name not in known:
            raise InputError(f"there is no competitor {name!r}; choose of {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)]


def _sort_out(
    competitors: Sequence[Competitor], network: Network, *, is_asked_for: bool
) -> tuple[list[Competitor], dict[str, str]]:
    """Return those that can run the network here, and of the others by title why they cannot."""
    present, left_out = [], {}
    for competitor in competitors:
        why_not = competitor.why_not()
        if why_not is None and competitor.name == "paddle":
            why_not = paddle_inference.why_not(network.graph.name)
        if why_not is None:
            present.append(competitor)
        elif is_asked_for:
            raise BackendError(f"cannot compare with {competitor.title}: {why_not}")
        else:
            left_out[competitor.title] = why_not
    return present, left_out


def _write_inputs(
    network: Network, batch: int, competitors: Sequence[Competitor], folder: Path
) -> None:
    shape = (batch, *network.graph.input_shape)
    np.save(folder / IMAGES, np.random.default_rng(0).standard_normal(shape, np.float32))
    if any(competitor.needs_onnx for competitor in competitors):
        written = onnx_model(network, batch=batch).SerializeToString()
        (folder / ONNX).write_bytes(written)


def _measure(
    task: Task,
    batch: int,
    competitors: Sequence[Competitor],
    rounds: int,
    progress: Callable[[str], None],
) -> list[Measurement]:
    """Return the measurements of one batch size, resrt's first."""
    failures: dict[str, str] = {}
    processes: list[Process] = []
    with contextlib.ExitStack() as stack:
        for competitor in (OURS, *competitors):
            progress(f"batch {batch}, preparing {competitor.title}")
            try:
                process = Process(competitor, task)
            except Failed as failure:
                failures[competitor.name] = str(failure)
                continue
            stack.callback(process.close)
            processes.append(process)
        seconds, stopped = take_turns(
            processes, rounds, lambda done: progress(f"batch {batch}, {done} of {rounds} rounds")
        )
    failures |= stopped
    if OURS.name in failures:
        raise BackendError(f"resrt itself did not run: {failures[OURS.name]}")
    reports = {process.competitor.name: process.report for process in processes}
    return [
        Measurement(competitor.name, competitor.title, batch, error=failures[competitor.name])
        if competitor.name in failures
        else measurement(competitor, batch, reports, seconds)
        for competitor in (OURS, *competitors)
    ]


def measurement(
    competitor: Competitor,
    batch: int,
    reports: dict[str, Report],
    seconds: dict[str, npt.NDArray[np.float64]],
) -> Measurement:
    """Return what one competitor's report and turns amount to, beside resrt's."""
    report, taken = reports[competitor.name], seconds[competitor.name]
    low, ratio, high = np.percentile(seconds[OURS.name] / taken, [25, 50, 75])
    return Measurement(
        name=competitor.name,
        title=competitor.title,
        batch=batch,
        version=report.version,
        precision=report.precision,
        settings=report.settings,
        median_ms=float(np.median(taken) * 1e3),
        ratio=float(ratio),
        ratio_low=float(low),
        ratio_high=float(high),
        difference=relative_difference(report.logits, reports[OURS.name].logits),
    )
