"""The measurements that a report is drawn from, with their settings and machine."""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, TypeAlias, get_args, get_origin, get_type_hints

from resrt._support import files
from resrt._support.arguments import whole
from resrt.engine.backends import PRECISIONS, backends
from resrt.engine.engine import Engine, load
from resrt.errors import FileError, InputError
from resrt.measuring import rounds
from resrt.measuring.rounds import Spread
from resrt.measuring.timing import Timing
from resrt.operations import eval as evaluation
from resrt.operations.build import build
from resrt.operations.report.entries import Entry, load_file
from resrt.system import machine
from resrt.system.machine import Machine

FORMAT = "resrt measurements"
VERSION = 2

Progress: TypeAlias = Callable[[int, int, str], None]
"""Called with the number of engines that are done, their total, and what comes next."""


@dataclass(frozen=True)
class Settings:
    """What is measured, and how; see `resrt.report`.

    `data` is the absolute path of the labelled images that the engines are evaluated on; None: of
    none. `limit` is the maximum number of these images.
    """

    entries: tuple[Entry, ...]
    batch_sizes: tuple[int, ...]
    repeats: int
    rounds: int
    threads: int | None
    data: str | None = None
    limit: int | None = None

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions of all entries, in the order of PRECISIONS."""
        found = {precision for entry in self.entries for precision in entry.precisions}
        return tuple(precision for precision in PRECISIONS if precision in found)

    @property
    def is_quick(self) -> bool:
        """Whether too little is measured for figures to quote: one round has no spread."""
        return self.rounds == 1

    def choose(
        self,
        names: Collection[str] | None = None,
        precisions: Collection[str] | None = None,
        batch_sizes: tuple[int, ...] | None = None,
    ) -> Settings:
        """Return these settings for a subset of the entries, precisions or batch sizes.

        Raises InputError for values that were not measured.
        """
        measured = [entry.name for entry in self.entries]
        names = _subset("name", names, measured)
        precisions = _subset("precision", precisions, self.precisions)
        batch_sizes = tuple(_subset("batch size", batch_sizes, self.batch_sizes))
        chosen = [
            dataclasses.replace(
                entry, precisions=tuple(p for p in entry.precisions if p in precisions)
            )
            for entry in self.entries
            if entry.name in names
        ]
        entries = tuple(entry for entry in chosen if entry.precisions)
        if not entries:
            raise InputError(
                f"none of {', '.join(names)} was measured in {' or '.join(precisions)}; choose "
                "other precisions, or start a new measurement"
            )
        return dataclasses.replace(self, entries=entries, batch_sizes=batch_sizes)

    def check(self, **given: int | str | None) -> None:
        """Raise InputError for a setting that differs from these; None is not checked."""
        for name, value in given.items():
            mine = getattr(self, name)
            if value is not None and value != mine:
                raise InputError(
                    f"these measurements were taken with {name}={mine}, not {value!r}; omit "
                    f"{name}, or start a new measurement"
                )


def _subset(what: str, wanted: Collection[Any] | None, measured: Sequence[Any]) -> Sequence[Any]:
    """Return those that are wanted, in the order given. Raises InputError for any other."""
    if wanted is None:
        return measured
    for value in wanted:
        if value not in measured:
            raise InputError(
                f"these measurements do not include the {what} {value}, only "
                f"{', '.join(map(str, measured))}; choose from these, or start a new measurement"
            )
    return list(wanted)


class Key(NamedTuple):
    """Identifies a run: an engine in one of the rounds, counted from 0."""

    round: int
    entry: str
    precision: str


@dataclass(frozen=True)
class Run:
    """An engine's timings at each batch size; `date` is when they ended, in ISO 8601.

    `kinds` has the milliseconds of all layers of a kind, at the smallest batch size; it is empty if
    the backend does not count them. `load` is the average number of runnable processes in the
    minute before the session in which it was measured; None if unknown.
    """

    date: str
    timings: dict[int, Timing]
    kinds: dict[str, float] = field(default_factory=dict)
    load: float | None = None


@dataclass(frozen=True)
class Evaluated:
    """The accuracy of an engine on `images` images; `skipped` further ones could not be read."""

    images: int
    skipped: int
    top1: evaluation.Accuracy
    top5: evaluation.Accuracy


@dataclass(frozen=True)
class Measurements:
    """What was measured, of what the settings ask for.

    `evaluated` has the accuracies of engines by the name of their entry.
    """

    machine: Machine
    settings: Settings
    runs: dict[Key, Run] = field(default_factory=dict)
    evaluated: dict[str, Evaluated] = field(default_factory=dict)

    def missing(self) -> list[Key]:
        """Return the runs that remain to be measured, in their order."""
        return [key for key in _order(self.settings) if key not in self.runs]

    def not_evaluated(self) -> list[str]:
        """Return the names of the engines that remain to be evaluated."""
        if self.settings.data is None:
            return []
        engines = (entry.name for entry in self.settings.entries if entry.engine is not None)
        return [name for name in engines if name not in self.evaluated]

    def dates(self) -> list[str]:
        """Return when the runs ended, in ISO 8601, the earliest first."""
        return sorted(self.runs[key].date for key in _order(self.settings))

    def busy(self) -> str | None:
        """Return the remark that the machine was busy before a session; None if it was not."""
        loads = (self.runs[key].load for key in _order(self.settings) if key in self.runs)
        return machine.busy(max((load or 0 for load in loads), default=0), self.machine.cores)

    def latency(self, entry: Entry, precision: str, batch: int) -> Spread | None:
        """Return the milliseconds that a batch takes, over the medians of the rounds.

        None if the entry is not measured in that precision.
        """
        if precision not in entry.precisions:
            return None
        return Spread.of(self._medians(entry.name, precision, batch))

    def ratio(self, name: str, other: str, precision: str, batch: int) -> Spread:
        """Return the ratio of two entries' latencies, taken within each round."""
        ours, others = (self._medians(entry, precision, batch) for entry in (name, other))
        return Spread.of([a / b for a, b in zip(ours, others, strict=True)])

    def kinds(self, entry: Entry, precision: str) -> dict[str, float]:
        """Return the milliseconds of all layers of each kind, the median of the rounds."""
        if precision not in entry.precisions:
            return {}
        of_rounds = [run.kinds for run in self._runs(entry.name, precision)]
        names = dict.fromkeys(name for kinds in of_rounds for name in kinds)
        return {
            name: Spread.of([kinds.get(name, 0.0) for kinds in of_rounds]).median for name in names
        }

    def _medians(self, name: str, precision: str, batch: int) -> list[float]:
        return [run.timings[batch].median_ms for run in self._runs(name, precision)]

    def _runs(self, name: str, precision: str) -> Iterator[Run]:
        return (self.runs[Key(number, name, precision)] for number in range(self.settings.rounds))


def measure(
    measurements: Measurements,
    drawn: Measurements,
    file: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Measure what is missing to draw a subset, and write all measurements to a file after each.

    Raises InputError if the measurements are from another machine or other library versions, or if
    an engine file has changed.
    """
    load_before = machine.load()  # before this session, whose own work is not counted
    names, keys = drawn.not_evaluated(), drawn.missing()
    total = len(names) + len(keys)
    if keys:
        _check_machine(measurements.machine)
    report = progress or (lambda *_: None)
    entries = {entry.name: entry for entry in measurements.settings.entries}
    for done, name in enumerate(names):
        report(done, total, f"accuracy of {name}")
        measurements.evaluated[name] = _evaluate(entries[name], measurements.settings)
        if file is not None:
            write(measurements, file)
    for done, key in enumerate(keys, len(names)):
        report(done, total, f"{key.entry}, {key.precision}")
        run = _run(entries[key.entry], key.precision, measurements.settings)
        measurements.runs[key] = dataclasses.replace(run, load=load_before)
        if file is not None:
            write(measurements, file)
    report(total, total, "")


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
                "kinds": run.kinds,
            }
            for key, run in measurements.runs.items()
        ],
        "evaluated": {
            name: dataclasses.asdict(found) for name, found in measurements.evaluated.items()
        },
    }
    # In ASCII, because the path of an engine file need not be UTF-8.
    text = json.dumps(document, indent=1, allow_nan=False)
    with files.writing_whole(file) as written:
        written.write(text + "\n")


def read(file: Path) -> Measurements:
    """Read a file that `write` wrote. Raises FileError, and InputError for any other file."""
    try:
        return _parse(json.loads(files.read_text(file)))
    except OSError as error:
        raise FileError(f"cannot read the measurements '{file}': {error.strerror}") from None
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
    engines = [(entry.name, p) for entry in settings.entries for p in entry.precisions]
    for number in range(settings.rounds):
        for entry, precision in rounds.order(engines, number):
            yield Key(number, entry, precision)


def _run(entry: Entry, precision: str, settings: Settings) -> Run:
    threads = settings.threads
    if entry.engine is None:
        most = max(settings.batch_sizes)
        engine = build(
            entry.network, "random", precision=precision, max_batch=most, threads=threads
        )
    else:
        threads = None if _runs_on_gpu(entry) else threads
        engine = load_file(entry, threads=threads)
    timings = engine.time(settings.batch_sizes, repeats=settings.repeats)
    kinds = _times_of_kinds(engine, settings.batch_sizes[0], settings.repeats, threads)
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Run(date, {timing.batch: timing for timing in timings}, kinds)


def _times_of_kinds(
    engine: Engine, batch: int, repeats: int, threads: int | None
) -> dict[str, float]:
    """Return the milliseconds of all layers of each kind; empty if that cannot be measured."""
    if engine.info.backend != "openvino" or batch > engine.info.max_batch:
        return {}
    with tempfile.TemporaryDirectory(prefix="resrt-report-") as folder:
        file = Path(folder) / "counted.engine"
        engine.save(file)
        del engine
        counted = load(file, threads=threads, warm_up=False, profile=True)
    return {kind.kind: kind.ms for kind in counted.profile(batch, repeats=repeats).kinds}


def _runs_on_gpu(entry: Entry) -> bool:
    assert entry.engine is not None
    name = entry.engine.backend.partition(" ")[0]
    return any(backend.runs_on_gpu for backend in backends() if backend.name == name)


def _evaluate(entry: Entry, settings: Settings) -> Evaluated:
    assert settings.data is not None
    engine = load_file(entry, optimize_for="throughput")
    found = evaluation.eval(engine, settings.data, limit=settings.limit)
    return Evaluated(found.total, len(found.skipped), found.top1, found.top5)


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
    if not (settings.entries and settings.precisions and settings.batch_sizes):
        raise ValueError("it has no entries, precisions or batch sizes")
    if len({entry.name for entry in settings.entries}) < len(settings.entries):
        raise ValueError("two of its entries have the same name")
    runs = {}
    for given in _convert(document["runs"], tuple[Any, ...]):
        entry, precision = (_convert(given[name], str) for name in ("entry", "precision"))
        timings: tuple[Timing, ...] = _convert(given["timings"], tuple[Timing, ...])
        if tuple(timing.batch for timing in timings) != settings.batch_sizes:
            raise ValueError(f"a run of {entry} has other batch sizes than the settings")
        date = datetime.fromisoformat(given["date"]).isoformat()
        key = Key(whole("round", given["round"], least=0), entry, precision)
        load = None if given["load"] is None else _not_negative(given["load"], "the load")
        kinds = {
            _convert(kind, str): _not_negative(ms, f"the time of {kind}")
            for kind, ms in given["kinds"].items()
        }
        runs[key] = Run(date, {timing.batch: timing for timing in timings}, kinds, load)
    evaluated = {
        name: _evaluated(found) for name, found in _convert(document["evaluated"], dict).items()
    }
    return Measurements(_convert(document["machine"], Machine), settings, runs, evaluated)


def _evaluated(found: Any) -> Evaluated:
    def accuracy(name: str) -> evaluation.Accuracy:
        low, value, high = (
            _not_negative(found[name][part], name) for part in ("low", "value", "high")
        )
        if not low <= value <= high <= 1:
            raise ValueError(f"{name} is not a fraction within its confidence interval")
        return evaluation.Accuracy(value, low, high)

    return Evaluated(
        images=whole("images", found["images"]),
        skipped=whole("skipped", found["skipped"], least=0),
        top1=accuracy("top1"),
        top5=accuracy("top5"),
    )


def _not_negative(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"{name} is {value!r}, not a number of at least 0")
    return float(value)


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
    if kind is dict and not isinstance(value, dict):
        raise ValueError(f"{value!r} is not an object")
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
