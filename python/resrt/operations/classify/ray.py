"""`resrt.classify` on a Ray cluster: datasets, images in object stores, and results as Parquet."""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from resrt import _core, images
from resrt._support.arguments import whole
from resrt._support.extras import requires_extra
from resrt._support.files import check_unchanged
from resrt.engine import backends, cluster
from resrt.engine.batches import LogitsOutcome
from resrt.engine.engine import Engine
from resrt.errors import FileError, InputError
from resrt.operations.classify import find_images
from resrt.operations.inspect import inspect

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.fs
    import ray.data

# A file of results has at most so many rows, and those of at most so many seconds, because a driver
# that dies loses what it has not written.
_ROWS_PER_FILE = 50_000
_SECONDS_PER_FILE = 30.0
_MADE_BY = b"made_by"


def classify_dataset(
    engine: Engine | str | PathLike[str],
    dataset: ray.data.Dataset,
    *,
    topk: int,
    exact: bool,
    workers: int | None,
    filesystem: pyarrow.fs.FileSystem | None = None,
) -> ray.data.Dataset:
    """Return a dataset with the most probable classes of each image; see `resrt.classify`."""
    return cluster.map_images(
        engine if isinstance(engine, Engine) else Path(engine),
        dataset,
        functools.partial(_columns, topk=topk, labels=_labels(engine)),
        exact=exact,
        workers=workers,
        filesystem=filesystem,
    )


def _labels(engine: Engine | str | PathLike[str]) -> list[str]:
    return engine.info.labels if isinstance(engine, Engine) else inspect(engine).info.labels


def _columns(
    outcomes: Sequence[LogitsOutcome], _: pyarrow.Table, *, topk: int, labels: Sequence[str]
) -> dict[str, pyarrow.Array]:
    import pyarrow

    classes: list[list[int] | None] = []
    names: list[list[str] | None] = []
    probabilities: list[list[float] | None] = []
    errors: list[str | None] = []
    for _, found in outcomes:
        if isinstance(found, Exception):
            classes.append(None)
            names.append(None)
            probabilities.append(None)
            errors.append(str(found))
            continue
        (best,) = images.top_k(found[None], topk, labels)
        classes.append([one.index for one in best])
        names.append([one.label for one in best])
        probabilities.append([one.probability for one in best])
        errors.append(None)
    return {
        "classes": pyarrow.array(classes, pyarrow.list_(pyarrow.int64())),
        "labels": pyarrow.array(names, pyarrow.list_(pyarrow.string())),
        "probabilities": pyarrow.array(probabilities, pyarrow.list_(pyarrow.float64())),
        "error": pyarrow.array(errors, pyarrow.string()),
    }


def find_in_storage(uris: Iterable[str]) -> tuple[list[str], pyarrow.fs.FileSystem]:
    """List the images that URIs such as s3://bucket/folder name, and return where they are.

    A folder's images are the files with the suffix of a supported format, sorted by name. Raises
    FileError if the storage refuses or has no images there, InputError for URIs of two storages.
    """
    with requires_extra("ray", "images in an object store"):
        from pyarrow import ArrowInvalid, fs

    found: list[str] = []
    storages: dict[str, fs.FileSystem] = {}
    for uri in uris:
        scheme, rest = cluster.split_uri(uri)
        bucket, _, query = rest.partition("?")
        try:
            storage, path = fs.FileSystem.from_uri(uri)
            storages[f"{scheme}?{query}"] = storage
            files = _files(storage, path)
        except (OSError, ArrowInvalid) as error:
            raise FileError(f"cannot list '{uri}': {str(error).splitlines()[0]}") from None
        if not files:
            raise FileError(f"'{bucket}' in the storage of '{scheme}' contains no images")
        found += [f"{scheme}://{file}" for file in files]
    if len(storages) != 1:
        raise InputError("all images must be in one storage; classify those of each by themselves")
    return found, storages.popitem()[1]


def _files(storage: pyarrow.fs.FileSystem, path: str) -> list[str]:
    from pyarrow import fs

    if storage.get_file_info(path).type == fs.FileType.File:
        return [path]
    formats = Image.registered_extensions()
    listed = storage.get_file_info(fs.FileSelector(path, recursive=True))
    return sorted(
        file.path
        for file in listed
        if file.type == fs.FileType.File
        and not file.base_name.startswith(".")
        and formats.get(Path(file.path).suffix.lower()) in images.FORMATS
    )


class ParquetFolder:
    """A folder of Parquet files to which results are added, and which a later run can resume.

    A file is under its name only when it is complete. `known` are the paths of the images that
    earlier runs have classified, and `skipped` the errors among them.

    Args:
        folder: the folder, or a URI such as s3://bucket/folder.
        made_by: what the results depend on, as values that JSON can hold.
        resume: whether to continue if the folder has results.
        overwrite: whether to remove the results that the folder has.

    Raises FileError if it cannot be written or has results; InputError if something else made them.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        made_by: Mapping[str, Any],
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        from pyarrow import ArrowInvalid, fs

        self._name = fspath(folder)
        self._made_by = json.dumps(made_by, sort_keys=True)
        self.known: set[str] = set()
        self.skipped: list[str] = []
        try:
            if cluster.split_uri(self._name)[0]:
                self._storage, self._path = fs.FileSystem.from_uri(self._name)
            else:
                self._storage = fs.LocalFileSystem()
                self._path = str(Path(self._name).absolute())
            self._storage.create_dir(self._path)
            listed = self._storage.get_file_info(fs.FileSelector(self._path))
            files = sorted(file.path for file in listed if file.base_name.endswith(".parquet"))
            if files and not (resume or overwrite):
                raise FileError(
                    f"'{folder}' has results; resume them with --resume, replace them with "
                    "--overwrite, or name another folder"
                )
            for file in files:
                if overwrite:
                    self._storage.delete_file(file)
                else:
                    self._read(file)
        except FileError:
            raise
        except (OSError, ArrowInvalid) as error:
            raise self._failure(error) from None
        self._next = 0 if overwrite else 1 + max((_number(file) for file in files), default=-1)
        self._waiting: list[pyarrow.Table] = []
        self._since = time.monotonic()

    def _read(self, file: str) -> None:
        from pyarrow import parquet

        table = parquet.read_table(file, columns=["path", "error"], filesystem=self._storage)
        found = (table.schema.metadata or {}).get(_MADE_BY, b"").decode()
        if found != self._made_by:
            raise InputError(
                f"cannot resume '{self._name}': '{Path(file).name}' was made with another engine, "
                "other data or other options; resume it with those that it was started with, or "
                "name another folder"
            )
        paths = table.column("path").to_pylist()
        # In an object store, a path is of no local file, and such images are not checked.
        check_unchanged(Path(self._name), paths, self._storage.get_file_info(file).mtime_ns)
        self.known.update(paths)
        self.skipped += [error for error in table.column("error").to_pylist() if error is not None]

    def add(self, rows: pyarrow.Table) -> None:
        """Add results, which are written a little later."""
        self._waiting.append(rows)
        waiting = sum(table.num_rows for table in self._waiting)
        if waiting >= _ROWS_PER_FILE or time.monotonic() - self._since > _SECONDS_PER_FILE:
            self.write()

    def write(self) -> None:
        """Write the results that have been added. Raises FileError."""
        self._since = time.monotonic()
        if not self._waiting:
            return
        import pyarrow
        from pyarrow import parquet

        table = pyarrow.concat_tables(self._waiting)
        table = table.replace_schema_metadata({_MADE_BY: self._made_by})
        name = f"{self._path}/part-{self._next:06}.parquet"
        try:
            parquet.write_table(table, f"{name}.tmp", filesystem=self._storage)
            self._storage.move(f"{name}.tmp", name)
        except OSError as error:
            raise self._failure(error) from None
        self._next += 1
        self._waiting = []

    def _failure(self, error: Exception) -> FileError:
        return FileError(f"cannot write '{self._name}': {str(error).splitlines()[0]}")


def _number(file: str) -> int:
    digits = "".join(filter(str.isdecimal, Path(file).stem))
    return int(digits) if digits else 0


def classify_on_cluster(
    engine: str | PathLike[str],
    paths: Iterable[str | PathLike[str]],
    folder: str | PathLike[str],
    *,
    address: str = "auto",
    topk: int = 5,
    exact: bool = False,
    workers: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[str]:
    """Classify images on all nodes of a Ray cluster, and write the results as Parquet files.

    Each image has one row, with its "path" and the columns that `resrt.classify` gives a dataset,
    in any order. A file is written every 50,000 rows or 30 seconds, completely or not at all. If a
    node fails, its images are classified by the others. Requires Ray: pip install 'resrt[ray]',
    also on the nodes.

    Args:
        engine: the path of an engine file. Only this process reads it.
        paths: folders and images, as for `resrt.find_images`, which all nodes see; or URIs of a
            storage that PyArrow reads, such as s3://bucket/folder.
        folder: the folder of the results, or a URI.
        address: the cluster's address; "auto": the cluster that this machine belongs to; "local":
            one that is started on this machine.
        topk: as for `resrt.classify`, like the following.
        exact: decode every JPEG at full size.
        workers: processors of each worker, which loads the engine once; None: those of the smallest
            node.
        resume: classify only the images that the folder has no results of. It must have been made
            with the same engine and options.
        overwrite: remove the results that the folder has.
        progress: called with "images", the number of those that are done, and of all.

    Returns why images were skipped, also by the runs that are resumed. Raises what `resrt.inspect`
    and `resrt.find_images` raise; PackageError without Ray; BackendError without a cluster;
    FileError if a storage refuses, or the folder has results; InputError for invalid arguments.
    """
    backend = inspect(engine).info.backend
    topk = whole("topk", topk)
    cluster.connect(address)
    files, filesystem = _find(paths)
    results = ParquetFolder(
        folder,
        {
            "resrt": _core.__version__,
            "backend": f"{backend} {backends.version(backend)}",
            "engine_sha256": _sha256(Path(engine)),
            "topk": topk,
            "exact": exact,
        },
        resume=resume,
        overwrite=overwrite,
    )
    skipped = results.skipped
    rest = [file for file in files if file not in results.known]
    if not rest:
        return skipped
    done = len(files) - len(rest)
    found = classify_dataset(
        engine,
        cluster.dataset_of({"path": rest}),
        topk=topk,
        exact=exact,
        workers=workers if workers is not None else cluster.smallest_node(),
        filesystem=filesystem,
    )
    try:
        for rows in found.iter_batches(batch_size=None, batch_format="pyarrow"):
            results.add(rows)
            skipped += filter(None, rows.column("error").to_pylist())
            done += rows.num_rows
            if progress is not None:
                progress("images", done, len(files))
    finally:
        results.write()
    return skipped


def _find(
    paths: Iterable[str | PathLike[str]],
) -> tuple[list[str], pyarrow.fs.FileSystem | None]:
    """List images, each once, and return the storage that they are in; None: the nodes' own."""
    names = [fspath(path) for path in paths]
    uris = [name for name in names if cluster.split_uri(name)[0]]
    if not uris:
        found = [str(Path(file).absolute()) for file in find_images(names)]
        return list(dict.fromkeys(found)), None
    if len(uris) < len(names):
        raise InputError("images are either files or in a storage; classify those of each alone")
    found, storage = find_in_storage(uris)
    return list(dict.fromkeys(found)), storage


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
