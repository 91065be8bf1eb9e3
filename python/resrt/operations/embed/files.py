"""Files of features, to which rows are added one by one, and which a later run can resume."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from resrt._support.files import file_kind
from resrt.engine.engine import Engine
from resrt.errors import FileError, InputError
from resrt.operations.embed.feature_file import FeatureFile
from resrt.operations.embed.npy import NpyFile
from resrt.operations.records import made_by


def open_features(
    path: str | PathLike[str],
    engine: Engine,
    *,
    resume: bool = False,
    overwrite: bool = False,
    **options: Any,
) -> FeatureFile:
    """Open a file of features for writing, by its suffix.

    FILE.npy holds float32 (N, C), without rows for images that were skipped. FILE.npy.jsonl has a
    JSON object on each line, for every image in the same order: {"image": path, "row": number}, or
    {"image": path, "error": reason}. The array is complete after each row, so it can be read while
    it grows.

    FILE.parquet has the columns image, error and features, a list of C float32, which is null for
    an image that was skipped. In texts, special characters are escaped as in the CSV
    files of `resrt.records`. It is written at the end, from an array in FILE.parquet.part.npy that
    an interrupted run leaves, and requires `resrt[parquet]`.

    Args:
        path: the file, whose name ends in .npy or .parquet.
        engine: the engine that computes the features.
        resume: whether to continue the file if it exists.
        overwrite: whether to replace the file if it exists.
        options: whatever else the features depend on, as values that JSON can hold.

    Raises FileError if it cannot be written, or exists and is neither to be resumed nor replaced;
    InputError for another suffix, for an engine without features, and if the file cannot be
    resumed; PackageError without pyarrow.
    """
    engine.require_outputs("features")
    (channels,) = engine.info.outputs["features"]
    file = Path(path)
    kind = file_kind(file)
    if kind not in (None, 0, stat.S_IFREG):
        raise FileError(f"cannot write '{file}': it is not a regular file")
    if kind == stat.S_IFREG and not (resume or overwrite):
        raise FileError(
            f"'{file}' exists; resume it with --resume, or name another file, or replace it with "
            "--overwrite"
        )
    made: Mapping[str, Any] = made_by(engine, **options)
    if file.suffix == ".npy":
        return NpyFile(file, channels, made, resume=resume, overwrite=overwrite)
    if file.suffix == ".parquet":
        from resrt.operations.embed.parquet import ParquetFile

        return ParquetFile(file, channels, made, resume=resume, overwrite=overwrite)
    raise InputError(f"features are written as .npy or .parquet, not as '{file.name}'")
