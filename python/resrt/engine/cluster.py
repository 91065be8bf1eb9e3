"""Images of a Ray dataset through an engine, on all nodes of a cluster.

Each worker loads the engine once, from Ray's object store, and reads, decodes and infers images in
threads.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from resrt import images
from resrt._support.arguments import whole
from resrt._support.extras import requires_extra
from resrt.engine import batches
from resrt.engine.batches import LogitsOutcome
from resrt.engine.engine import Engine, load
from resrt.errors import BackendError, FileError, InputError
from resrt.images import ImageLike

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.fs
    import ray
    import ray.data

# The columns that may have an image: pixels, the content of a file, and paths. Ray names them so.
_COLUMNS = ("image", "bytes", "path", "item")

# Rows that a worker computes at once. More are computed again if its node fails; fewer cost more of
# Ray's own time.
_ROWS = 64

# More parts of a dataset would be too many for Ray.
_MOST_PARTS = 10_000

# Turns the outcomes of rows into further columns. It is called with the rows as they were given,
# and must be a function that a module of resrt has, so that Ray's workers find it.
Finish: TypeAlias = Callable[[Sequence[LogitsOutcome], "pyarrow.Table"], dict[str, "pyarrow.Array"]]


def is_dataset(value: object) -> bool:
    """Return whether a value is a dataset of Ray, which is not imported for it."""
    ray_data = sys.modules.get("ray.data")
    return ray_data is not None and isinstance(value, ray_data.Dataset)


def connect(address: str) -> None:
    """Connect to a cluster, or start one on this machine if the address is "local".

    Raises PackageError if Ray is not installed, BackendError if there is no such cluster.
    """
    with requires_extra("ray", "a Ray cluster"):
        import ray
        import ray.data
    if ray.is_initialized():
        return
    ray.data.DataContext.get_current().enable_progress_bars = False  # callers have their own
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to Ray's authors
    try:
        _check_reachable(os.environ.get("RAY_ADDRESS", address) if address == "auto" else address)
        ray.init(address, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError) as error:
        raise BackendError(
            f"there is no Ray cluster at '{address}': {str(error).splitlines()[0]}. Start one with "
            "'ray start --head', or name its address, or 'local' for one on this machine"
        ) from None


def _check_reachable(address: str) -> None:
    """Raise OSError if nothing listens at host:port, for which Ray would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def map_images(
    engine: Engine | str | Path,
    dataset: ray.data.Dataset,
    finish: Finish,
    *,
    exact: bool,
    workers: int | None,
    filesystem: pyarrow.fs.FileSystem | None = None,
) -> ray.data.Dataset:
    """Return a dataset with the columns of `finish`, which is computed when it is read.

    The column with the image is omitted, except for paths; the others are kept.

    Args:
        engine: an engine, or the path of an engine file.
        dataset: rows with one of the columns _COLUMNS, or with one column of any name.
        finish: makes the columns.
        exact: False allows large JPEGs to be decoded at reduced size; see `images.preprocess`.
        workers: processors of each worker; None: 1, since the dataset's other steps need some.
        filesystem: where paths are; None: each node's own file system.

    Raises InputError if no column has images, and for an engine that cannot classify photographs.
    """
    import ray
    from ray.data import ActorPoolStrategy

    content, info = _content(engine)
    images.require_photographs(info.input_shape[0])
    column = _column(dataset)
    on_gpu = info.backend != "openvino"
    cpus, count = _resources(None if workers is None else whole("workers", workers), on_gpu)
    return dataset.map_batches(
        _Worker,
        fn_constructor_kwargs={
            "engine": ray.put(content),
            "finish": finish,
            "column": column,
            "threads": cpus,
            "exact": exact,
            "device": "cuda:0" if on_gpu else None,  # the only one that Ray shows to the worker
            "filesystem": filesystem,
        },
        compute=ActorPoolStrategy(min_size=1, max_size=count),
        batch_size=_ROWS,
        batch_format="pyarrow",
        num_cpus=cpus,
        num_gpus=1 if on_gpu else 0,
    )


def _content(engine: Engine | str | Path) -> tuple[bytes, Any]:
    """Return an engine file's content, and what the engine is."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "engine"
        if isinstance(engine, Engine):
            engine.save(file)
        else:
            file = Path(engine)
        from resrt import _core

        info = _core.inspect(str(file).encode())
        return file.read_bytes(), info


def _column(dataset: ray.data.Dataset) -> str:
    """Return the name of the column with the images."""
    schema = dataset.schema()
    names: list[str] = [] if schema is None else list(schema.names)
    found = [name for name in (*_COLUMNS, *names[: len(names) == 1]) if name in names]
    if found:
        return found[0]
    raise InputError(
        "a dataset of images must have a column 'image' of pixels, 'bytes' of files, or 'path'; "
        f"this one has {', '.join(map(repr, names)) or 'none'}. Rename one with rename_columns"
    )


def _resources(workers: int | None, on_gpu: bool) -> tuple[int, int]:
    """Return the processors of a worker, and the largest number of workers."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    key = "GPU" if on_gpu else "CPU"
    usable = [node for node in nodes if node.get(key, 0) >= 1 and node.get("CPU", 0) >= 1]
    if not usable:
        raise BackendError(f"no node of the Ray cluster has a {key}")
    if on_gpu:
        cpus = workers or int(min(node["CPU"] // node["GPU"] for node in usable)) or 1
        return cpus, int(sum(node["GPU"] for node in usable))
    cpus = workers or 1
    return cpus, max(1, int(sum(node["CPU"] // cpus for node in usable)))


def dataset_of(columns: Mapping[str, Sequence[Any]]) -> ray.data.Dataset:
    """Return a dataset of columns, in parts that keep all nodes busy."""
    import pyarrow
    import ray

    table = pyarrow.table(dict(columns))
    # Ray's own step that divides a dataset would need processors beside those of the workers.
    size = max(_ROWS, table.num_rows // _MOST_PARTS + 1)
    parts = [table.slice(start, size) for start in range(0, table.num_rows, size)]
    return ray.data.from_arrow(parts)


def smallest_node() -> int:
    """Return the number of processors of the node that has fewest."""
    import ray

    return int(min(cpus for node in ray.nodes() if (cpus := node["Resources"].get("CPU", 0)) >= 1))


class _Worker:
    """What Ray creates in a process of its own, and calls with the rows of a dataset."""

    def __init__(
        self,
        engine: ray.ObjectRef,
        finish: Finish,
        column: str,
        threads: int,
        exact: bool,
        device: str | None,
        filesystem: pyarrow.fs.FileSystem | None,
    ) -> None:
        import ray

        with tempfile.NamedTemporaryFile(suffix=".engine") as file:
            file.write(ray.get(engine))
            file.flush()
            self._engine = load(file.name, optimize_for="throughput", device=device)
        self._finish, self._column, self._exact = finish, column, exact
        self._filesystem = filesystem
        batches.keep_image_memory(2 * threads)
        # More than processors only if files are read over a network.
        self._threads = ThreadPoolExecutor(threads if filesystem is None else 4 * threads)

    def __call__(self, rows: pyarrow.Table) -> pyarrow.Table:
        given = self._given(rows)
        size = batches.largest_share(self._engine)
        shares = [given[start : start + size] for start in range(0, len(given), size)]
        outcomes = [one for share in self._threads.map(self._infer, shares) for one in share]
        columns = self._finish(outcomes, rows)
        kept = rows if _is_path(given) else rows.drop_columns([self._column])
        for name, column in columns.items():
            kept = kept.append_column(name, column)
        return kept

    def _given(self, rows: pyarrow.Table) -> Sequence[ImageLike]:
        from ray.data.extensions import ArrowTensorArray, ArrowVariableShapedTensorArray

        column = rows.column(self._column).combine_chunks()
        if isinstance(column, (ArrowTensorArray, ArrowVariableShapedTensorArray)):
            return list(column.to_numpy(zero_copy_only=False))
        given: list[ImageLike] = column.to_pylist()
        return given

    def _infer(self, share: Sequence[ImageLike]) -> list[LogitsOutcome]:
        outcomes: list[LogitsOutcome | None] = []
        ready: list[tuple[str, ImageLike]] = []
        for image in share:
            try:
                ready.append(self._read(image))
                outcomes.append(None)
            except FileError as error:
                outcomes.append((str(image), error))
        inferred = iter(
            batches.infer_share(self._engine, batches.logits_of, ("logits",), self._exact, ready)
        )
        return [_named(next(inferred)) if outcome is None else outcome for outcome in outcomes]

    def _read(self, image: ImageLike) -> tuple[str, ImageLike]:
        if not isinstance(image, str) or self._filesystem is None:
            return image if isinstance(image, str) else "", image
        _, path = split_uri(image)
        try:
            with self._filesystem.open_input_file(path) as file:
                return image, file.read()
        except OSError as error:
            raise FileError(f"cannot read the image '{image}': {_reason(error)}") from None


def _is_path(given: Sequence[ImageLike]) -> bool:
    return bool(given) and isinstance(given[0], str)


def _named(outcome: LogitsOutcome) -> LogitsOutcome:
    """Return an outcome whose error, if any, names the image instead of its size."""
    name, found = outcome
    if name and isinstance(found, InputError) and f"'{name}'" not in str(found):
        head, _, rest = str(found).partition("<")
        found = InputError(f"{head}'{name}'{rest.partition('>')[2]}")
    return name, found


def _reason(error: OSError) -> str:
    return error.strerror or str(error).splitlines()[0]


def split_uri(text: str) -> tuple[str, str]:
    """Return the scheme of a URI such as s3://bucket/key, "" for a path, and what follows it."""
    scheme, separator, rest = text.partition("://")
    return (scheme, rest) if separator else ("", text)
