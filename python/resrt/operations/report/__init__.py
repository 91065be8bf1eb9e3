"""`resrt.report`: accuracy and latency of many networks, on one self-contained HTML page.

The measurements (`measurements.py`) are a document of their own, from which the page (`page.py`)
can be drawn again at any time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path

from resrt._support import files
from resrt._support.arguments import choice, path, whole
from resrt._support.extras import requires_extra
from resrt.catalog.models import list_models, model_info
from resrt.engine.backends import PRECISIONS, backends
from resrt.errors import FileError, InputError
from resrt.operations.report.measurements import Measurements, Progress, Settings, measure, read
from resrt.system import machine

BATCH_SIZES = (1, 4, 8)
REPEATS = 10
ROUNDS = 3

# Those of 8 bits require a calibration of each network.
_MEASURED = tuple(name for name in PRECISIONS if name not in ("auto", "int8", "fp8"))


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

    Each round builds one network after another with random weights, times it and frees it. The
    order changes from round to round, so that a drift of the machine affects all alike. A latency
    is the median of the rounds' medians.

    Args:
        output: the page, a single file that requires no other file and no internet.
        networks: names of the catalog, or shell patterns, which match the networks with figures
            published by PaddleClas; None: all of these.
        batch_sizes: images per inference; None: 1, 4 and 8.
        precisions: the precisions to measure; None: all that the processor supports natively.
        repeats: timed inferences of each engine and batch size per round; None: 10.
        rounds: how often everything is measured; None: 3.
        threads: processor threads per inference; None: one per core.
        measurements: a file that `save_measurements` wrote. If it is incomplete because it was
            interrupted, the rest is measured now and added to it. `networks`, `batch_sizes` and
            `precisions` choose a subset of it.
        save_measurements: a JSON file to save the measurements to, written after each network.
        progress: called with the number of engines that are done, their total, and what comes next
            ("ResNet50, bf16"; "" at the end).

    Returns the measurements that were drawn.

    Raises PackageError if the extra `report` is not installed, ModelError for an unknown network,
    InputError for an invalid or different measurements file, PrecisionError for a precision that
    the processor does not support, and FileError.
    """
    # Measuring takes long, so anything that would prevent its results is reported first.
    with requires_extra("report", "drawing the report"):
        from resrt.operations.report.page import render
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
                    f"'{fspath(save_measurements)}' exists; give it as measurements to draw or "
                    "resume it, or remove it"
                )
    elif save_measurements is not None:
        raise InputError(
            "new measurements are added to the file that measurements names; give measurements or "
            "save_measurements, not both"
        )
    else:
        kept = read(Path(measurements))
        kept.settings.check(repeats=repeats, rounds=rounds, threads=threads)
        settings = kept.settings.choose(
            networks=None if networks is None else _networks(networks),
            precisions=None if precisions is None else _precisions(precisions),
            batch_sizes=None if batch_sizes is None else _batch_sizes(batch_sizes),
        )
        drawn = dataclasses.replace(kept, settings=settings)  # with the same runs
    file = measurements if save_measurements is None else save_measurements
    measure(kept, drawn.missing(), None if file is None else Path(file), progress)
    page = render(drawn)
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
    if Path(file).is_dir():
        raise FileError(f"cannot write '{fspath(file)}': it is a folder; name a file")
    if not Path(file).parent.is_dir():
        raise FileError(
            f"cannot write '{fspath(file)}': its folder does not exist; create it first"
        )


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
                f"no network with published figures matches '{pattern}'; omit networks to measure "
                "all of them, or give names from resrt.list_models()"
            )
        found |= dict.fromkeys(matches)
    return tuple(found)


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


def _batch_sizes(sizes: Sequence[int] | None) -> tuple[int, ...]:
    """Return the batch sizes in ascending order, each once."""
    given = BATCH_SIZES if sizes is None else _several("batch_sizes", sizes)
    return tuple(sorted({whole("a batch size", size) for size in given}))


def _several(name: str, values: Sequence[object]) -> Sequence[object]:
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise InputError(f"{name} must be a sequence with at least one element, not {values!r}")
    return values
