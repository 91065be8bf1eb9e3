"""`resrt.report`: accuracy and latency of many networks, on one self-contained HTML page.

What is measured (`entries.py`) are networks of the catalog and engine files. The measurements
(`measurements.py`) are a document of their own, from which the page (`page.py`) can be drawn again
at any time.
"""

from __future__ import annotations

import dataclasses
import stat
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TypeVar

from resrt._support import files
from resrt._support.arguments import choice, path, whole
from resrt._support.extras import requires_extra
from resrt.catalog.models import ModelInfo, list_models, model_info
from resrt.engine.backends import PRECISIONS, backends
from resrt.engine.engine import load
from resrt.errors import FileError, InputError
from resrt.operations.eval import labelled_images
from resrt.operations.report import entries
from resrt.operations.report.entries import Entry
from resrt.operations.report.measurements import Measurements, Progress, Settings, measure, read
from resrt.system import machine

BATCH_SIZES = (1, 4, 8)
REPEATS = 10
ROUNDS = 3

Value = TypeVar("Value")
# Those of 8 bits require a calibration of each network.
_MEASURED = tuple(name for name in PRECISIONS if name not in ("auto", "int8", "fp8"))


def report(
    output: str | PathLike[str],
    *,
    networks: Sequence[str] | None = None,
    engines: Sequence[str | PathLike[str]] | None = None,
    data: str | PathLike[str] | None = None,
    limit: int | None = None,
    batch_sizes: Sequence[int] | None = None,
    precisions: Sequence[str] | None = None,
    repeats: int | None = None,
    rounds: int | None = None,
    threads: int | None = None,
    measurements: str | PathLike[str] | None = None,
    save_measurements: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Measurements:
    """Measure networks' latencies and write them, with their accuracies, as an HTML page.

    The networks are those of the catalog, with random weights and published accuracies, and engine
    files, whose accuracies can be measured. Each round builds or loads one after another, times it,
    counts the time of its layers and frees it. The order changes from round to round, so that a
    drift of the machine affects all alike. A latency is the median of the rounds' medians.

    Args:
        output: the page, a single file that requires no other file and no internet.
        networks: names of the catalog, or shell patterns, which match the networks with figures
            published by PaddleClas; None: all of these, or none if there are engines.
        engines: engine files. The file's name identifies an engine on the page.
        data: labelled images to evaluate the engines on, as for `resrt.eval`: a folder with a
            subfolder of images for each class, or a list file.
        limit: the maximum number of these images, sampled evenly; None: all.
        batch_sizes: images per inference; None: 1, 4 and 8.
        precisions: the precisions to measure networks of the catalog in; None: all that the
            processor supports natively. An engine has its own.
        repeats: timed inferences of each engine and batch size per round; None: 10.
        rounds: how often everything is measured; None: 3.
        threads: processor threads per inference; None: one per core.
        measurements: a file that `save_measurements` wrote. If it is incomplete because it was
            interrupted, the rest is measured now and added to it. `networks`, `engines`,
            `batch_sizes` and `precisions` choose a subset of it.
        save_measurements: a JSON file to save the measurements to, written after each engine.
        progress: called with the number of engines that are done, their total, and what comes next
            ("ResNet50, bf16"; "" at the end).

    Returns the measurements that were drawn.

    Raises PackageError if the extra `report` is not installed, ModelError for an unknown network,
    InputError for an invalid or different measurements file, PrecisionError for a precision that
    the processor does not support, FileError, and what `resrt.load` and `resrt.eval` raise.
    """
    # Measuring takes long, so anything that would prevent its results is reported first.
    with requires_extra("report", "drawing the report"):
        from resrt.operations.report.page import render
    _check_destination(output)
    counts = {"repeats": repeats, "rounds": rounds, "threads": threads, "limit": limit}
    for name, value in counts.items():
        if value is not None:
            whole(name, value)
    where = None if data is None else str(Path(data).absolute())
    batch_sizes = None if batch_sizes is None else _batch_sizes(batch_sizes)
    if measurements is None:
        if save_measurements is not None:
            _check_new(save_measurements)
        kept = Measurements(
            machine.describe(["openvino"]),
            Settings(
                entries=_entries(networks, engines, precisions),
                batch_sizes=batch_sizes or BATCH_SIZES,
                repeats=repeats or REPEATS,
                rounds=rounds or ROUNDS,
                threads=threads,
                data=where,
                limit=limit,
            ),
        )
        _check_data(kept.settings)
        drawn = kept
    elif save_measurements is not None:
        raise InputError(
            "new measurements are added to the file that measurements names; give measurements or "
            "save_measurements, not both"
        )
    else:
        kept = read(Path(measurements))
        kept.settings.check(**counts, data=where)
        settings = kept.settings.choose(
            names=_names(kept.settings.entries, networks, engines),
            precisions=None if precisions is None else _precisions(precisions),
            batch_sizes=batch_sizes,
        )
        drawn = dataclasses.replace(kept, settings=settings)  # with the same runs
    file = measurements if save_measurements is None else save_measurements
    measure(kept, drawn, None if file is None else Path(file), progress)
    # The measurements' file may have any text.
    page = render(drawn).encode("utf-8", "backslashreplace").decode()
    with files.writing_whole(Path(output)) as written:
        written.write(page)
    return drawn


def _check_destination(file: str | PathLike[str]) -> None:
    """Raise FileError for a path that cannot be written."""
    path(file)
    try:
        Path(file).stat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise FileError(f"cannot write '{fspath(file)}': {error.strerror}") from None
    if files.is_folder(file):
        raise FileError(f"cannot write '{fspath(file)}': it is a folder; name a file")
    if not files.is_folder(Path(file).parent):
        raise FileError(
            f"cannot write '{fspath(file)}': its folder does not exist; create it first"
        )


def _check_new(file: str | PathLike[str]) -> None:
    """Raise FileError for a file that exists or cannot be written."""
    _check_destination(file)
    if files.file_kind(file) not in (None, stat.S_IFREG):
        raise FileError(f"cannot save measurements to '{fspath(file)}': it is not a regular file")
    if files.file_kind(file) is not None:
        raise FileError(
            f"'{fspath(file)}' exists; give it as measurements to draw or resume it, or remove it"
        )


def _check_data(settings: Settings) -> None:
    """Raise an error unless every engine can be evaluated on the data."""
    if settings.data is None:
        if settings.limit is not None:
            raise InputError("limit is only for data to evaluate the engines on")
        return
    engines = [entry.engine for entry in settings.entries if entry.engine is not None]
    if not engines:
        raise InputError(
            "data is only for engine files: networks of the catalog are measured with random "
            "weights; name engine files, or leave out data"
        )
    for engine in engines:
        labelled_images(settings.data, load(engine.path, warm_up=False), limit=settings.limit)


def _entries(
    networks: Sequence[str] | None,
    engines: Sequence[str | PathLike[str]] | None,
    precisions: Sequence[str] | None,
) -> tuple[Entry, ...]:
    """Return what to measure: the engine files, then the networks."""
    chosen = [] if networks is None and engines is not None else _networks(networks)
    if precisions is not None and not chosen:
        raise InputError(
            "precisions is only for networks of the catalog; an engine has its own precision"
        )
    found = [entries.of_network(network, _precisions(precisions)) for network in chosen]
    if engines is None:
        return tuple(found)
    taken = [entry.name for entry in found]
    return (*entries.of_files([*_several("engines", engines)], taken), *found)


def _names(
    measured: Sequence[Entry],
    networks: Sequence[str] | None,
    engines: Sequence[str | PathLike[str]] | None,
) -> list[str] | None:
    """Return the names of the measured entries that are asked for; None: of all.

    Raises InputError for an engine file that was not measured.
    """
    if networks is None and engines is None:
        return None
    of_path = {entry.engine.path: entry.name for entry in measured if entry.engine is not None}
    names = []
    for file in [] if engines is None else _several("engines", engines):
        path = str(Path(file).absolute())
        if path not in of_path:
            raise InputError(
                f"these measurements do not include the engine file '{fspath(file)}'; choose from "
                f"{', '.join(of_path) or 'their networks'}, or start a new measurement"
            )
        names.append(of_path[path])
    return names if networks is None else names + [network.name for network in _networks(networks)]


def _networks(names: Sequence[str] | None) -> list[ModelInfo]:
    """Return the networks of those names and patterns, each once."""
    found: dict[str, ModelInfo] = {}
    for name in ["*"] if names is None else _several("networks", names):
        pattern = choice("a network", name)
        if not set("*?[") & set(pattern):
            network = model_info(pattern)
            found[network.name] = network
            continue
        matches = [model for model in list_models(pattern) if model.published]
        if not matches:
            raise InputError(
                f"no network with published figures matches '{pattern}'; omit networks to measure "
                "all of them, or give names from resrt.list_models()"
            )
        found |= {model.name: model for model in matches}
    return list(found.values())


def _precisions(names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the precisions in the order of PRECISIONS, each once."""
    if names is None:
        native = next(found.precisions for found in backends() if not found.runs_on_gpu)
        names = [name for name in native if name in _MEASURED]
    for name in _several("precisions", names):
        if choice("a precision", name) not in _MEASURED:
            known = ", ".join(_MEASURED)
            raise InputError(f"a precision of the report must be one of {known}, not '{name}'")
    return tuple(name for name in PRECISIONS if name in names)


def _batch_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the batch sizes in ascending order, each once."""
    given = _several("batch_sizes", sizes)
    return tuple(sorted({whole("a batch size", size) for size in given}))


def _several(name: str, values: Sequence[Value]) -> Sequence[Value]:
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise InputError(f"{name} must be a sequence with at least one element, not {values!r}")
    return values
