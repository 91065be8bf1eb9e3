"""`resrt.compare`: a network in resrt and in the other libraries that are installed, in turn."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from resrt._support.arguments import whole
from resrt.engine.engine import build_network
from resrt.engine.network import Model, Network, WeightsLike, resolve
from resrt.errors import BackendError, InputError
from resrt.measuring.processes import Failed, sentence
from resrt.measuring.rounds import Spread, take_turns
from resrt.operations.compare import competitors as known
from resrt.operations.compare import paddle_inference
from resrt.operations.compare.competitors import (
    ENGINE,
    IMAGES,
    ONNX,
    OURS,
    WEIGHTS,
    Competitor,
    Task,
)
from resrt.operations.compare.process import Contender, Report
from resrt.operations.export import onnx_model, relative_difference
from resrt.system import machine

# The names of the libraries that `compare` can run.
COMPETITORS = tuple(competitor.name for competitor in known.ALL)

_LIBRARIES = ("openvino", "onnx", "onnxruntime", "torch", "paddlepaddle", "paddleclas", "numpy")


@dataclass(frozen=True)
class Measurement:
    """The latency of one library at one batch size; if it failed, `error` is the reason.

    Attributes:
        precision: what it computed in, which may differ from the engine's.
        median_ms: its latency in milliseconds per batch.
        ratio: resrt's latency divided by it, the median of the ratios within rounds. Below 1, resrt
            is faster.
        ratio_low: the lower quartile of these ratios.
        ratio_high: the upper quartile.
        difference: the largest difference between its logits and resrt's, divided by the largest
            of resrt's.
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
    """The latency of a network in resrt and in other libraries.

    Attributes:
        measurements: by batch size, resrt's first for each.
        left_out: for every library that was not run, the reason and the command that installs it.
        load: the average number of runnable processes in the minute before. On a machine that is
            busy otherwise, the figures mean little.
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
        lines += ["", "ratio: resrt's latency divided by the library's; below 1, resrt is faster"]
        if busy := machine.busy(self.load, self.machine.cores):
            lines.append(f"{busy}, which affects libraries unequally")
        lines += [f"not run: {title}: {why}" for title, why in self.left_out.items()]
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
    module, Paddle PaddleClas's own network. All have the same weights, random images and number of
    threads, and each has its own process. In every round each runs once untimed and once timed, and
    the next starts when its threads sleep; the order changes from round to round.

    Args:
        model: a name, a ResNet, ResNeSt or RegNet, or a graph, as for `resrt.build`.
        weights: as for `resrt.build`; None: the network's pretrained weights.
        batch_sizes: images per batch.
        precision: one of resrt.PRECISIONS; a library that does not support it uses float32.
        threads: processor threads of each library; None: one per core.
        rounds: the number of timed rounds.
        competitors: names from resrt.COMPETITORS; None: those that are installed.
        input_size: as for `resrt.build`, like the following two.
        classes: the number of logits.
        in_channels: the number of input channels.
        progress: called with a description of each step before it.

    Raises what `resrt.build` raises, InputError for unknown competitors, and BackendError for
    competitors that were named but are not installed. An error in another library is reported in
    its Measurement.
    """
    batch_sizes = [whole("a batch size", size) for size in batch_sizes]
    if not batch_sizes:
        raise InputError("batch_sizes is empty; name at least one")
    rounds = whole("rounds", rounds)
    threads = machine.cores() if threads is None else whole("threads", threads)
    load = machine.load()
    chosen = _chosen(competitors)
    report = progress or (lambda _: None)
    network = resolve(
        model, weights, input_size, classes, in_channels, progress=lambda phase, *_: report(phase)
    )
    present, left_out = _sort_out(chosen, network, is_requested=competitors is not None)
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
            measurements += _measure(task, batch, present, rounds, report)
    return Comparison(
        network=network.graph.name,
        weights=network.metadata.origin,
        input_shape=network.graph.input_shape,
        precision=precision,
        threads=threads,
        rounds=rounds,
        machine=machine.describe(_LIBRARIES),
        load=load,
        measurements=tuple(measurements),
        left_out=left_out,
    )


def _chosen(names: Sequence[str] | None) -> list[Competitor]:
    if names is None:
        return list(known.ALL)
    by_name = {competitor.name: competitor for competitor in known.ALL}
    for name in names:
        if name not in by_name:
            raise InputError(f"unknown competitor {name!r}; expected one of {', '.join(by_name)}")
    return [by_name[name] for name in dict.fromkeys(names)]


def _sort_out(
    competitors: Sequence[Competitor], network: Network, *, is_requested: bool
) -> tuple[list[Competitor], dict[str, str]]:
    """Return those that can run the network here, and why the others cannot, by their titles."""
    present, left_out = [], {}
    for competitor in competitors:
        why_not = competitor.why_not()
        if why_not is None and competitor.name == "paddle":
            why_not = paddle_inference.why_not(network.graph.name)
        if why_not is None:
            present.append(competitor)
        elif is_requested:
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
    failures: dict[str, Exception] = {}
    contenders: dict[str, Contender] = {}
    with contextlib.ExitStack() as stack:
        for competitor in (OURS, *competitors):
            progress(f"batch {batch}, preparing {competitor.title}")
            try:
                contender = contenders[competitor.name] = Contender(competitor, task)
                stack.callback(contender.close)
            except Failed as failure:
                failures[competitor.name] = failure
        seconds, stopped = take_turns(
            {name: contender.turn for name, contender in contenders.items()},
            rounds,
            after_round=lambda done: progress(f"batch {batch}, {done} of {rounds} rounds"),
        )
    failures |= stopped
    if OURS.name in failures:
        raise BackendError(f"resrt itself failed: {sentence(failures[OURS.name])}")
    reports = {name: contender.report for name, contender in contenders.items()}
    return [
        Measurement(one.name, one.title, batch, error=sentence(failures[one.name]))
        if one.name in failures
        else measurement(one, batch, reports, seconds)
        for one in (OURS, *competitors)
    ]


def measurement(
    competitor: Competitor,
    batch: int,
    reports: dict[str, Report],
    seconds: dict[str, npt.NDArray[np.float64]],
) -> Measurement:
    """Return the measurement of one competitor from its report and turns, relative to resrt's."""
    report, taken = reports[competitor.name], seconds[competitor.name]
    ratio = Spread.of(seconds[OURS.name] / taken)
    return Measurement(
        name=competitor.name,
        title=competitor.title,
        batch=batch,
        version=report.version,
        precision=report.precision,
        settings=report.settings,
        median_ms=float(np.median(taken) * 1e3),
        ratio=ratio.median,
        ratio_low=ratio.low,
        ratio_high=ratio.high,
        difference=relative_difference(report.logits, reports[OURS.name].logits),
    )
