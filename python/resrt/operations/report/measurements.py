"""The measurements that a report is drawn from, with their settings and machine."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, TypeAlias, get_args, get_origin, get_type_hints

from resrt._support import files
from resrt._support.arguments import whole
from resrt.errors import FileError, InputError
from resrt.measuring import rounds
from resrt.measuring.rounds import Spread
from resrt.measuring.timing import Timing
from resrt.operations.build import build
from resrt.system import machine
from resrt.system.machine import Machine

FORMAT = "resrt measurements"
VERSION = 1

Progress: TypeAlias = Callable[[int, int, str], None]
"""Called with the number of engines that are done, their total, and what comes next."""


@dataclass(frozen=True)
class Settings:
    """What is measured, and how; see `resrt.report`."""

    networks: tuple[str, ...]
    precisions: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    repeats: int
    rounds: int
    threads: int | None

    @property
    def is_quick(self) -> bool:
        """Whether too little is measured for figures to quote: one round has no spread."""
        return self.rounds == 1

    def choose(self, **wanted: tuple[Any, ...] | None) -> Settings:
        """Return these settings for a subset of the networks, precisions or batch sizes.

        Raises InputError for values that were not measured.
        """
        given: dict[str, Any] = {name: found for name, found in wanted.items() if found is not None}
        for name, values in given.items():
            measured = getattr(self, name)
            for value in values:
                if value not in measured:
                    raise InputError(
                        f"these measurements do not include the {name[:-1].replace('_', ' ')} "
                        f"{value}, only {', '.join(map(str, measured))}; choose from these, or "
                        "start a new measurement"
                    )
        return dataclasses.replace(self, **given)

    def check(self, **given: int | None) -> None:
        """Raise InputError for a setting that differs from these; None is not checked."""
        for name, value in given.items():
            mine = getattr(self, name)
            if value is not None and value != mine:
                raise InputError(
                    f"these measurements were taken with {name}={mine}, not {value!r}; omit "
                    f"{name}, or start a new measurement"
                )


class Key(NamedTuple):
    """Identifies a run: an engine in one of the rounds, counted from 0."""

    round: int
    network: str
    precision: str


@dataclass(frozen=True)
class Run:
    """An engine's timings at each batch size; `date` is when they ended, in ISO 8601.

    `load` is the average number of runnable processes in the minute before the session in which it
    was measured; None if unknown.
    """

    date: str
    timings: dict[int, Timing]
    load: float | None = None


@dataclass(frozen=True)
class Measurements:
    """The runs that were measured, of those that the settings ask for."""

    machine: Machine
    settings: Settings
    runs: dict[Key, Run] = field(default_factory=dict)

    def missing(self) -> list[Key]:
        """Return the runs that remain to be measured, in their order."""
        return [key for key in _order(self.settings) if key not in self.runs]

    def dates(self) -> list[str]:
        """Return when the runs ended, in ISO 8601, the earliest first."""
        return sorted(self.runs[key].date for key in _order(self.settings))

    def busy(self) -> str | None:
        """Return the remark that the machine was busy before a session; None if it was not."""
        loads = (self.runs[key].load for key in _order(self.settings) if key in self.runs)
        return machine.busy(max((load or 0 for load in loads), default=0), self.machine.cores)

    def latency(self, network: str, precision: str, batch: int) -> Spread:
        """Return the milliseconds that a batch takes, over the medians of the rounds."""
        return Spread.of(self._medians(network, precision, batch))

    def ratio(self, network: str, other: str, precision: str, batch: int) -> Spread:
        """Return the ratio of two networks' latencies, taken within each round."""
        ours, others = (self._medians(name, precision, batch) for name in (network, other))
        return Spread.of([a / b for a, b in zip(ours, others, strict=True)])

    def _medians(self, network: str, precision: str, batch: int) -> list[float]:
        return [
            self.runs[Key(number, network, precision)].timings[batch].median_ms
            for number in range(self.settings.rounds)
        ]


def measure(
    measurements: Measurements,
    keys: Collection[Key],
    file: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Measure the given runs, and write all measurements to a file after each.

    Raises InputError if the measurements are from another machine or other library versions.
    """
    load = machine.load()  # before this session, whose own work is not counted
    if keys:
        _check_machine(measurements.machine)
    for done, key in enumerate(keys):
        if progress:
            progress(done, len(keys), f"{key.network}, {key.precision}")
        run = _run(key, measurements.settings)
        measurements.runs[key] = dataclasses.replace(run, load=load)
        if file is not None:
            write(measurements, file)
    if progress:
        progress(len(keys), len(keys), "")


def write(measurements: Measurements, file: Path) -> None:
    """Write the measurements as JSON, completely or not at all. Raises FileError."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "machine": dataclasses.asdict(measurements.machine),
        "settings": dataclasses.asdict(measurements.settings),
        "runs": [
            {
                **key._asdict(),
                "date": run.date,
                "load": run.load,
                "timings": [dataclasses.asdict(timing) for timing in run.timings.values()],
            }
            for key, run in measurements.runs.items()
        ],
    }
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    with files.writing_whole(file) as written:
        written.write(text + "\n")


def read(file: Path) -> Measurements:
    """Read a file that `write` wrote. Raises FileError, and InputError for any other file."""
    try:
        text = file.read_text("utf-8")
    except OSError as error:
        raise FileError(f"cannot read the measurements '{file}': {error.strerror}") from None
    except UnicodeDecodeError:
        text = ""
    try:
        return _parse(json.loads(text))
    except (
        AttributeError,
        KeyError,
        OverflowError,
        TypeError,
        ValueError,
        RecursionError,
    ) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise InputError(
            f"'{file}' is not a measurements file of this version of resrt: {reason}; start a new "
            "measurement"
        ) from None


def _order(settings: Settings) -> Iterator[Key]:
    """Yield the runs in the order in which they are measured."""
    engines = [(name, p) for name in settings.networks for p in settings.precisions]
    for number in range(settings.rounds):
        for network, precision in rounds.order(engines, number):
            yield Key(number, network, precision)


def _run(key: Key, settings: Settings) -> Run:
    engine = build(
        key.network,
        "random",
        precision=key.precision,
        max_batch=max(settings.batch_sizes),
        threads=settings.threads,
    )
    timings = engine.time(settings.batch_sizes, repeats=settings.repeats)
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Run(date, {timing.batch: timing for timing in timings})


def _check_machine(then: Machine) -> None:
    now = machine.describe(then.libraries)
    for what, before, after in (
        ("processor", then.processor, now.processor),
        ("number of cores", then.cores, now.cores),
        ("libraries", then.libraries, now.libraries),
    ):
        if before != after:
            raise InputError(
                f"the measurements are incomplete and cannot be resumed here: the {what} was "
                f"{before} and is {after}; resume them there, start a new measurement, or choose "
                "networks and precisions whose measurements are complete"
            )


def _parse(document: Any) -> Measurements:
    """Return the measurements of a JSON document. Raises ValueError and the like."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f'its "format" is not "{FORMAT}"')
    if document.get("version") != VERSION:
        raise ValueError(f"its version is {document.get('version')!r}, not {VERSION}")
    settings: Settings = _convert(document["settings"], Settings)
    if not (settings.networks and settings.precisions and settings.batch_sizes):
        raise ValueError("it has no networks, precisions or batch sizes")
    runs = {}
    for given in _convert(document["runs"], tuple[Any, ...]):
        network, precision = (_convert(given[name], str) for name in ("network", "precision"))
        timings: tuple[Timing, ...] = _convert(given["timings"], tuple[Timing, ...])
        if tuple(timing.batch for timing in timings) != settings.batch_sizes:
            raise ValueError(f"a run of {network} has other batch sizes than the settings")
        date = datetime.fromisoformat(given["date"]).isoformat()
        key = Key(whole("round", given["round"], least=0), network, precision)
        load = given.get("load")
        if load is not None and not (isinstance(load, (int, float)) and 0 <= load < math.inf):
            raise ValueError(f"the load {load!r} is not a number of at least 0")
        runs[key] = Run(date, {timing.batch: timing for timing in timings}, load)
    return Measurements(_convert(document["machine"], Machine), settings, runs)


def _convert(value: Any, kind: Any, name: str = "") -> Any:
    """Return a JSON value as one of the types in these dataclasses. Raises ValueError and the like.

    Integers must be at least 1, and other numbers positive.
    """
    if dataclasses.is_dataclass(kind):
        fields = get_type_hints(kind)
        return kind(*(_convert(value[field], fields[field], field) for field in fields))  # type: ignore[operator]
    of = get_args(kind)
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{value!r} is not a list")
        return tuple(_convert(element, of[0], name) for element in value)
    if get_origin(kind) is dict:
        return {_convert(key, of[0]): _convert(found, of[1]) for key, found in value.items()}
    if NoneType in of:
        return None if value is None else _convert(value, of[0], name)
    if kind is int:
        return whole(name, value)
    if kind is float:
        if not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise ValueError(f"{value!r} is not a positive number")
        return float(value)
    if kind is str and not isinstance(value, str):
        raise ValueError(f"{value!r} is not a string")
    return value
