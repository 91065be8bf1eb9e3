"""What a report is drawn from: latencies, with all that they mean nothing without."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

from resrt import files, machine
from resrt._arguments import whole
from resrt.engine import build
from resrt.errors import FileError, InputError
from resrt.machine import Machine
from resrt.timing import Timing

FORMAT = "resrt measurements"
VERSION = 1

Progress: TypeAlias = Callable[[int, int, str], None]
"""Called with how much is done, of how much, and what comes next."""

_T = TypeVar("_T", str, int)


@dataclass(frozen=True)
class Settings:
    """What is measured, and how; `resrt.report` says what each of these is."""

    networks: tuple[str, ...]
    precisions: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    repeats: int
    rounds: int
    threads: int | None

    def choose(
        self,
        networks: tuple[str, ...] | None,
        precisions: tuple[str, ...] | None,
        batch_sizes: tuple[int, ...] | None,
    ) -> Settings:
        """Return these settings for some of the networks, precisions and batch sizes.

        Raises InputError for others.
        """
        return dataclasses.replace(
            self,
            networks=_chosen("network", networks, self.networks),
            precisions=_chosen("precision", precisions, self.precisions),
            batch_sizes=_chosen("batch size", batch_sizes, self.batch_sizes),
        )

    def check(self, **given: int | None) -> None:
        """Raise InputError for a setting other than these; None is none."""
        for name, value in given.items():
            mine = getattr(self, name)
            if value is not None and value != mine:
                raise InputError(
                    f"these measurements were taken with {name}={mine}, not {value!r}; leave "
                    f"{name} out, or measure anew"
                )


class Key(NamedTuple):
    """Which run it is: an engine's, in one of the rounds, counted from 0."""

    round: int
    network: str
    precision: str


@dataclass(frozen=True)
class Run:
    """An engine's timings at each batch size; `date` is that of their end, in ISO 8601."""

    date: str
    timings: dict[int, Timing]


class Latency(NamedTuple):
    """The median, lowest and highest of several rounds' values: milliseconds, or their ratios."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Collection[float]) -> Latency:
        """Return those of some values."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Measurements:
    """The runs that there are of those that the settings ask for."""

    machine: Machine
    settings: Settings
    runs: dict[Key, Run] = field(default_factory=dict)

    def missing(self) -> list[Key]:
        """Return the runs that the settings ask for and that there are not, in their order."""
        return [key for key in _order(self.settings) if key not in self.runs]

    def dates(self) -> list[str]:
        """Return when the drawn runs ended, in ISO 8601, the first one first."""
        return sorted(self.runs[key].date for key in _order(self.settings))

    def latency(self, network: str, precision: str, batch: int) -> Latency:
        """Return the milliseconds that a batch takes: of the median of each round."""
        return Latency.of(self._medians(network, precision, batch))

    def ratio(self, network: str, other: str, precision: str, batch: int) -> Latency:
        """Return how many times as long as another a network takes, of each round."""
        ours, others = (self._medians(name, precision, batch) for name in (network, other))
        return Latency.of([a / b for a, b in zip(ours, others, strict=True)])

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
    """Add the runs of those keys, and write the measurements to a file after each network.

    Raises InputError where the measurements are another machine's, or another library's.
    """
    if keys:
        _check_machine(measurements.machine)
    for done, key in enumerate(keys):
        if progress:
            progress(done, len(keys), f"{key.network}, {key.precision}")
        measurements.runs[key] = _run(key, measurements.settings)
        if file is not None:
            write(measurements, file)
    if progress:
        progress(len(keys), len(keys), "")


def write(measurements: Measurements, file: Path) -> None:
    """Write the measurements as JSON, whole or not at all. Raises FileError."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "machine": dataclasses.asdict(measurements.machine),
        "settings": dataclasses.asdict(measurements.settings),
        "runs": [
            {
                **key._asdict(),
                "date": run.date,
                "timings": [dataclasses.asdict(timing) for timing in run.timings.values()],
            }
            for key, run in measurements.runs.items()
        ],
    }
    with files.writing_whole(file) as written:
        written.write(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def read(file: Path) -> Measurements:
    """Read what `write` wrote. Raises FileError, and InputError for anything else."""
    try:
        text = file.read_text("utf-8")
    except OSError as error:
        raise FileError(f"cannot read the measurements '{file}': {error.strerror}") from None
    except UnicodeDecodeError:
        text = ""
    try:
        return _parse(json.loads(text))
    except (InputError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise InputError(
            f"'{file}' is no file of measurements of this version of resrt: {reason}; measure anew"
        ) from None


def _chosen(kind: str, given: tuple[_T, ...] | None, known: tuple[_T, ...]) -> tuple[_T, ...]:
    for value in given or ():
        if value not in known:
            raise InputError(
                f"these measurements have no {kind} {value}, but {', '.join(map(str, known))}; "
                "choose among these, or measure anew"
            )
    return known if given is None else given


def _order(settings: Settings) -> Iterator[Key]:
    """What is measured after what: there and back again, so that a drift falls on all alike."""
    for number in range(settings.rounds):
        engines = [(name, p) for name in settings.networks for p in settings.precisions]
        for network, precision in reversed(engines) if number % 2 else engines:
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
                f"the measurements are incomplete, and cannot be continued here, because the "
                f"{what} was {before} and is {after}; continue there, measure anew, or choose "
                "networks and precisions whose measurements are complete"
            )


def _parse(document: Any) -> Measurements:
    """Return the measurements of a JSON document. Raises ValueError and the like."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f'its "format" is not "{FORMAT}"')
    if document.get("version") != VERSION:
        raise ValueError(f"its version is {document.get('version')!r}, not {VERSION}")
    given = document["settings"]
    settings = Settings(
        networks=tuple(_text(name) for name in _list(given["networks"])),
        precisions=tuple(_text(name) for name in _list(given["precisions"])),
        batch_sizes=tuple(whole("a batch size", size) for size in _list(given["batch_sizes"])),
        repeats=whole("repeats", given["repeats"]),
        rounds=whole("rounds", given["rounds"]),
        threads=None if given["threads"] is None else whole("threads", given["threads"]),
    )
    if not (settings.networks and settings.precisions and settings.batch_sizes):
        raise ValueError("it has no networks, precisions or batch sizes")
    runs = dict(_parse_run(run, settings.batch_sizes) for run in _list(document["runs"]))
    return Measurements(_parse_machine(document["machine"]), settings, runs)


def _parse_machine(given: dict[str, Any]) -> Machine:
    return Machine(
        processor=_text(given["processor"]),
        features=tuple(_text(name) for name in _list(given["features"])),
        cores=whole("cores", given["cores"]),
        memory_gib=_positive(given["memory_gib"]),
        system=_text(given["system"]),
        python=_text(given["python"]),
        libraries={_text(name): _text(found) for name, found in given["libraries"].items()},
    )


def _parse_run(given: dict[str, Any], batch_sizes: tuple[int, ...]) -> tuple[Key, Run]:
    key = Key(int(given["round"]), _text(given["network"]), _text(given["precision"]))
    timings = [_parse_timing(timing) for timing in _list(given["timings"])]
    if tuple(timing.batch for timing in timings) != batch_sizes:
        raise ValueError(f"a run of {key.network} has not the batch sizes of the others")
    date = datetime.fromisoformat(given["date"]).isoformat()
    return key, Run(date, {timing.batch: timing for timing in timings})


def _parse_timing(given: dict[str, Any]) -> Timing:
    return Timing(
        batch=whole("a batch size", given["batch"]),
        repeats=whole("repeats", given["repeats"]),
        min_ms=_positive(given["min_ms"]),
        median_ms=_positive(given["median_ms"]),
        p90_ms=_positive(given["p90_ms"]),
        p99_ms=_positive(given["p99_ms"]),
        seconds=_positive(given["seconds"]),
        concurrency=whole("concurrency", given["concurrency"]),
    )


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{value!r} is no list")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _positive(value: object) -> float:
    if not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"{value!r} is no positive number")
    return float(value)
