"""The report: accuracy and latency of many networks, on one page that needs nothing else.

What is measured (`measurements.py`) is a document of its own, from which the page (`page.py`) is
drawn as often as one likes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from os import PathLike, fspath
from pathlib import Path

from resrt import files, machine
from resrt._arguments import choice, path, whole
from resrt._extras import needing_extra
from resrt.engine import PRECISIONS, backends
from resrt.errors import FileError, InputError
from resrt.models import list_models, model_info
from resrt.reporting.measurements import Measurements, Progress, Settings, measure, read

BATCH_SIZES = (1, 4, 8)
REPEATS = 10
ROUNDS = 3


def report(
    output: str | PathLike[str],
    *,
    networks: Sequence[str] | None = None,
    batch_sizes: Sequence[int] | None = None,
    precisions: Sequence[str] | None = None,
    repeats: int | None = None,
    rounds: int | None = None,
    threads: int | None = None,
    measurements: str | PathLike[str] | None = None,
    save_measurements: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Measurements:
    """Measure networks' latencies and write them, with published accuracies, as an HTML page.

    Each round builds one network after another with random weights, times it and frees it, in the
    reverse of the order of the round before, so that a drift of the machine falls on all alike. A
    latency is the median of the rounds' medians.

    Args:
        output: the page, one file that needs no other and no internet.
        networks: names of the catalog, or shell patterns of those networks that PaddleClas
            published figures for; None: all of the latter.
        batch_sizes: images per inference; None: 1, 4 and 8.
        precisions: what to compute in; None: all that the processor computes natively.
        repeats: timed inferences of each engine and batch size in a round; None: 10.
        rounds: how often everything is measured; None: 3.
        threads: processor threads per inference; None: one for each core.
        measurements: a file that `save_measurements` wrote, to be drawn. What it lacks, because
            measuring was interrupted, is measured now and added to it. `networks`, `batch_sizes`
            and `precisions` choose among those that it is about.
        save_measurements: a JSON file to keep the measurements in, written after each network.
        progress: called with the number of engines that have been timed, their total, and what
            comes next ("ResNet50, bf16"; "" at the end).

    Returns the measurements that were drawn.

    Raises PackageError where the extra `report` is not installed, ModelError for an unknown
    network, InputError for a file of no or of other measurements, PrecisionError for a precision
    that the processor has not, and FileError.
    """
    # Measuring takes long: what would be in the way of its results is said before it.
    render = _renderer()
    _check_destination(output)
    if measurements is None:
        kept = Measurements(
            machine.describe(["openvino"]),
            Settings(
                networks=_networks(networks),
                precisions=_precisions(precisions),
                batch_sizes=_batch_sizes(batch_sizes),
                repeats=REPEATS if repeats is None else whole("repeats", repeats),
                rounds=ROUNDS if rounds is None else whole("rounds", rounds),
                threads=None if threads is None else whole("threads", threads),
            ),
        )
        drawn = kept
        if save_measurements is not None:
            _check_destination(save_measurements)
            if Path(save_measurements).exists():
                raise FileError(
                    f"'{fspath(save_measurements)}' exists; give it as measurements, to be drawn "
                    "or continued, or remove it"
                )
    elif save_measurements is not None:
        raise InputError(
            "what is measured is added to the file of the earlier measurements; give measurements "
            "or save_measurements, not both"
        )
    else:
        kept = read(Path(measurements))
        kept.settings.check(repeats=repeats, rounds=rounds, threads=threads)
        settings = kept.settings.choose(
            networks=None if networks is None else _networks(networks),
            precisions=None if precisions is None else _precisions(precisions),
            batch_sizes=None if batch_sizes is None else _batch_sizes(batch_sizes),
        )
        drawn = dataclasses.replace(kept, settings=settings)  # of the same runs
    file = measurements if save_measurements is None else save_measurements
    measure(kept, drawn.missing(), None if file is None else Path(file), progress)
    page = render(drawn)
    with files.writing_whole(Path(output)) as written:
        written.write(page)
    return drawn


def _renderer() -> Callable[[Measurements], str]:
    with needing_extra("report", to="draw the report"):
        from resrt.reporting.page import render
    return render


def _check_destination(file: str | PathLike[str]) -> None:
    """Raise FileError for a path that nothing can be written to."""
    path(file)
    if Path(file).is_dir():
        raise FileError(f"cannot write '{fspath(file)}': it is a folder; name a file")
    if not Path(file).parent.is_dir():
        raise FileError(f"cannot write '{fspath(file)}': there is no such folder; make it first")


def _networks(names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the networks of those names and patterns, each once."""
    found: dict[str, None] = {}
    for name in ["*"] if names is None else _several("networks", names):
        pattern = choice("a network", name)
        if not set("*?[") & set(pattern):
            found[model_info(pattern).name] = None
            continue
        matches = [model.name for model in list_models(pattern) if model.published]
        if not matches:
            raise InputError(
                f"no network that PaddleClas published figures for matches '{pattern}'; leave "
                "networks out to take them all, or give names of resrt.list_models()"
            )
        found |= dict.fromkeys(matches)
    return tuple(found)


def _precisions(names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the precisions in the order of PRECISIONS, each once."""
    if names is None:
        (names,) = (found.precisions for found in backends() if found.name == "openvino")
    for name in _several("precisions", names):
        if choice("a precision", name) not in PRECISIONS or name == "auto":
            known = ", ".join(known for known in PRECISIONS if known != "auto")
            raise InputError(f"a precision of the report is one of {known}, not '{name}'")
    return tuple(name for name in PRECISIONS if name in names)


def _batch_sizes(sizes: Sequence[int] | None) -> tuple[int, ...]:
    """Return the batch sizes in rising order, each once."""
    given = BATCH_SIZES if sizes is None else _several("batch_sizes", sizes)
    return tuple(sorted({whole("a batch size", size) for size in given}))


def _several(name: str, values: Sequence[object]) -> Sequence[object]:
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise InputError(f"{name} must be a sequence of at least one, not {values!r}")
    return values
