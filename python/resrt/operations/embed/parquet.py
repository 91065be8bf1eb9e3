"""Features as a Parquet file. Requires pyarrow."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from resrt._support.extras import requires_extra
from resrt._support.files import check_unchanged, is_regular, replacing
from resrt.errors import InputError
from resrt.operations.embed import Embedding
from resrt.operations.embed.feature_file import FeatureFile
from resrt.operations.embed.npy import NpyFile, images_of
from resrt.operations.records import as_json, check_made_by, escape, unescape

with requires_extra("parquet", "writing Parquet files"):
    import pyarrow as pa
    import pyarrow.parquet as pq

_ROWS_AT_ONCE = 1024
_LONGEST_LINE = 1 << 20  # of the list of images, in characters
_MADE_BY = b"resrt.made_by"


class ParquetFile(FeatureFile):
    """Columns image, error and features. The arguments are those of `open_features`.

    A Parquet file is only readable once its end is written. Until then, the rows are in an array.
    """

    def __init__(
        self,
        path: Path,
        channels: int,
        made_by: Mapping[str, Any],
        *,
        resume: bool,
        overwrite: bool,
    ) -> None:
        self._path = path
        self._schema = pa.schema(
            {
                "image": pa.string(),
                "error": pa.string(),
                "features": pa.list_(pa.float32(), channels),
            },
            metadata={_MADE_BY: json.dumps(made_by)},
        )
        self._channels = channels
        self._resumes = resume and is_regular(path)
        finished = self._finished(as_json(made_by)) if self._resumes else []
        part = path.with_name(f"{path.name}.part.npy")
        if self._resumes:
            overwrite |= _is_merged(part, {one.image for one in finished})
        self._part = NpyFile(
            part, channels, made_by, resume=resume and not overwrite, overwrite=overwrite
        )
        self.known = finished + self._part.known
        self._is_changed = not self._resumes or bool(self._part.known)

    def _finished(self, made_by: dict[str, Any]) -> list[Embedding]:
        """Return the images of the file that is resumed."""
        try:
            with pq.ParquetFile(self._path) as file:
                found = json.loads((file.schema_arrow.metadata or {}).get(_MADE_BY, "null"))
                check_made_by(self._path, found, made_by)
                batches = file.iter_batches(_ROWS_AT_ONCE, columns=["image", "error"])
                known = [
                    Embedding(unescape(image), error=None if error is None else unescape(error))
                    for batch in batches
                    for image, error in zip(*(c.to_pylist() for c in batch.columns), strict=True)
                ]
            written_ns = self._path.stat().st_mtime_ns
            check_unchanged(self._path, (one.image for one in known), written_ns)
            return known
        except (pa.ArrowException, OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"cannot resume '{self._path}': {error}; name another file") from None

    def write(self, embedding: Embedding) -> None:
        """Append the features of an image, or why it was skipped. Raises FileError."""
        self._part.write(embedding)
        self._is_changed = True

    def __enter__(self) -> ParquetFile:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._part.__exit__(kind, error, trace)
        if kind is not None:
            return
        if self._is_changed:
            with replacing(self._path) as temporary:
                self._finish(temporary)
        # An array without a list is not resumed, and a list without its array cannot be.
        self._part.images.unlink(missing_ok=True)
        self._part.path.unlink(missing_ok=True)

    def _finish(self, target: Path) -> None:
        with pq.ParquetWriter(target, self._schema) as writer:
            if self._resumes:
                with pq.ParquetFile(self._path) as old:
                    for batch in old.iter_batches(_ROWS_AT_ONCE):
                        writer.write_batch(batch.cast(self._schema))
            for rows in _in_groups(self._part.rows()):
                writer.write_batch(self._batch(rows))

    def _batch(self, rows: list[Embedding]) -> Any:
        skipped = np.array([row.features is None for row in rows])
        values = np.zeros((len(rows), self._channels), np.float32)
        for value, row in zip(values, rows, strict=True):
            if row.features is not None:
                value[:] = row.features
        features = pa.FixedSizeListArray.from_arrays(
            pa.array(values.ravel()), self._channels, mask=pa.array(skipped)
        )
        errors = [None if row.error is None else escape(row.error) for row in rows]
        columns = [pa.array([escape(row.image) for row in rows]), pa.array(errors, pa.string())]
        return pa.record_batch([*columns, features], schema=self._schema)


def _is_merged(part: Path, finished: set[str]) -> bool:
    """Return whether an array only has images that the finished file has too.

    A run that was killed after it had finished the file, but before it removed the array, leaves
    such a one, or one without a list. A resumed run only adds images that the file does not have.
    """
    try:
        with images_of(part).open(encoding="utf-8") as file:
            lines = iter(functools.partial(file.readline, _LONGEST_LINE), "")
            return all(json.loads(line)["image"] in finished for line in lines)
    except FileNotFoundError:
        return is_regular(part)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False  # opening it says why


def _in_groups(rows: Iterator[Embedding]) -> Iterator[list[Embedding]]:
    while group := list(itertools.islice(rows, _ROWS_AT_ONCE)):
        yield group
