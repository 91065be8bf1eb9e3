"""Features as a NumPy array that grows on the disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from resrt._support.files import file_kind, is_regular
from resrt.errors import FileError, InputError
from resrt.operations.embed import Embedding
from resrt.operations.embed.feature_file import FeatureFile
from resrt.operations.records import JsonFormat, RecordFile

# Of the header, whose length must not depend on the number of rows.
_HEADER_BYTES = 128
_BYTES_PER_VALUE = 4


def images_of(path: Path) -> Path:
    """Return the path of the list of an array's images."""
    return path.with_name(f"{path.name}.jsonl")


class _JsonRows(JsonFormat):
    """{"image": path, "row": number}, or {"image": path, "error": reason}."""

    def __init__(self) -> None:
        self._rows = 0

    def _document(self, record: Embedding) -> dict[str, Any]:
        if record.error is not None:
            return {"image": record.image, "error": record.error}
        self._rows += 1
        return {"image": record.image, "row": self._rows - 1}

    def _record(self, document: dict[str, Any]) -> Embedding:
        if (error := document.get("error")) is not None:
            return Embedding(document["image"], error=error)
        if document["row"] != self._rows:
            raise ValueError(f"row {document['row']} follows {self._rows} rows")
        self._rows += 1
        return Embedding(document["image"])


class NpyFile(FeatureFile):
    """float32 (N, C) in an .npy file, and the names of the images beside it.

    `images` is the path of that list. The other arguments are those of `open_features`.
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
        self.path = path
        self.images = images_of(path)
        self._channels = channels
        is_listed = file_kind(self.images) is not None
        if not overwrite and is_regular(path) and not is_listed:
            raise InputError(
                f"cannot resume '{path}': it is not known to be made by the same engine and "
                f"options, as '{self.images}' is missing; name another file"
            )
        self._records = RecordFile(
            self.images, _JsonRows(), resume=resume, overwrite=overwrite, made_by=made_by
        )
        self.known = self._records.known
        self._rows = sum(one.error is None for one in self.known)
        try:
            self._file = self._open(overwrite=overwrite)
        except BaseException:
            self._records.close()
            raise

    def _open(self, *, overwrite: bool) -> IO[bytes]:
        """Open the array, and discard a row whose image is not in the list."""
        try:
            size = self.path.stat().st_size if is_regular(self.path) else 0
            if self._rows and size < self._end():
                raise InputError(
                    f"cannot resume '{self.path}': it has fewer rows than '{self.images}' lists; "
                    "name another file"
                )
            one_row = _HEADER_BYTES + self._channels * _BYTES_PER_VALUE
            if not (overwrite or self._rows) and size > one_row:
                raise InputError(
                    f"cannot resume '{self.path}': it has rows that '{self.images}' does not list; "
                    "name another file"
                )
            file = self.path.open("w+b" if overwrite or not size else "r+b", buffering=0)
            begin = file.read(_HEADER_BYTES)[: len(self._prefix())]
            if not self._prefix().startswith(begin) or (self._rows and begin != self._prefix()):
                file.close()
                raise InputError(
                    f"cannot resume '{self.path}': it is not an array that resrt embed wrote; "
                    "name another file"
                )
            file.truncate(max(self._end(), _HEADER_BYTES))
            file.seek(0)
            self._write_all(file, self._header())
            file.seek(self._end())
        except OSError as error:
            raise self._failure(error) from None
        return file

    def write(self, embedding: Embedding) -> None:
        """Append the features of an image, or why it was skipped. Raises FileError."""
        if embedding.features is not None:
            row = np.ascontiguousarray(embedding.features, "<f4")
            try:
                self._file.seek(self._end())
                self._write_all(self._file, row.tobytes())
                self._rows += 1
                self._file.seek(0)
                self._write_all(self._file, self._header())
            except OSError as error:
                raise self._failure(error) from None
        self._records.write(embedding)

    def __enter__(self) -> NpyFile:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failure(error) from None
        finally:
            self._file.close()
            self._records.close()

    def rows(self) -> Iterator[Embedding]:
        """Yield all images of the finished file with their features, reading a little at a time."""
        array = np.load(self.path, mmap_mode="r")
        with self.images.open(encoding="utf-8") as lines:
            for line in lines:
                found = json.loads(line)
                row = found.get("row")
                features = None if row is None else np.asarray(array[row], np.float32)
                yield Embedding(found["image"], features, found.get("error"))

    def _end(self) -> int:
        return _HEADER_BYTES + self._rows * self._channels * _BYTES_PER_VALUE

    @staticmethod
    def _prefix() -> bytes:
        # https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
        text_bytes = (_HEADER_BYTES - 10).to_bytes(2, "little")
        return b"\x93NUMPY\x01\x00" + text_bytes + b"{'descr': '<f4', 'fortran_order': False, "

    def _header(self) -> bytes:
        shape = f"'shape': ({self._rows}, {self._channels}), }}".encode()
        return (self._prefix() + shape).ljust(_HEADER_BYTES - 1) + b"\n"

    @staticmethod
    def _write_all(file: IO[bytes], content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            rest = rest[file.write(rest) :]

    def _failure(self, error: OSError) -> FileError:
        return FileError(f"cannot write '{self.path}': {error.strerror}")
