"""Files of one record for each image, written as results come, and gone on with by a later run.

A record is a line, and with the operating system before the next is asked for. Of a line that was
cut off nothing is kept.
"""

from __future__ import annotations

import csv
import io
import json
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

from resrt.classification import Classification
from resrt.errors import FileError, InputError
from resrt.evaluation import Rank
from resrt.images import Prediction

# Names of files may hold bytes that are no UTF-8: they are written and read as they are.
_ENCODING = {"encoding": "utf-8", "errors": "surrogateescape"}


class Format(Protocol):
    """How records are written. Errors of `read` are ValueError, KeyError or TypeError."""

    header: str

    def line(self, record: Any) -> str:
        """Return a record as a line, its end included."""
        ...

    def read(self, line: str) -> Any:
        """Return the record of a line."""
        ...


class JsonClassifications:
    """A JSON object on each line: {"image": path, "predictions": [...]}, or "error"."""

    header = ""

    def line(self, record: Classification) -> str:
        """Return a record as a line, its end included."""
        document: dict[str, Any] = {"image": record.image}
        if record.error is None:
            document["predictions"] = [vars(prediction) for prediction in record.predictions]
        else:
            document["error"] = record.error
        return json.dumps(document) + "\n"

    def read(self, line: str) -> Classification:
        """Return the record of a line."""
        document = json.loads(line)
        predictions = [Prediction(**one) for one in document.get("predictions", [])]
        return Classification(document["image"], predictions, document.get("error"))


class CsvClassifications:
    """A row for each image: its path, why it was skipped, and three columns for each class."""

    def __init__(self, topk: int) -> None:
        names = [f"{name}_{i}" for i in range(1, topk + 1) for name in Prediction.__annotations__]
        self._columns = 2 + len(names)
        self.header = _csv_line(["image", "error", *names])

    def line(self, record: Classification) -> str:
        """Return a record as a line, its end included."""
        row: list[Any] = [record.image, record.error or ""]
        for one in record.predictions:
            row += [one.index, one.label, f"{one.probability:.6g}"]
        return _csv_line(row + [""] * (self._columns - len(row)))

    def read(self, line: str) -> Classification:
        """Return the record of a line."""
        (row,) = csv.reader([line])
        if len(row) != self._columns:
            raise ValueError(f"{len(row)} columns")
        found = [
            Prediction(int(row[i]), row[i + 1], float(row[i + 2]))
            for i in range(2, len(row), 3)
            if row[i]
        ]
        return Classification(row[0], found, row[1] or None)


class JsonRanks:
    """A JSON object on each line: {"image": path, "label": number, "rank": position, "error"}."""

    header = ""

    def line(self, record: Rank) -> str:
        """Return a record as a line, its end included."""
        return json.dumps(vars(record)) + "\n"

    def read(self, line: str) -> Rank:
        """Return the record of a line."""
        return Rank(**json.loads(line))


class RecordFile:
    """A file of records. `known` are those that it held already, where it is gone on with.

    Raises FileError where it exists and is not to be gone on with, or cannot be written; InputError
    where what it holds are other records.
    """

    def __init__(self, path: str | PathLike[str], format_: Format, *, resume: bool) -> None:
        self._path = Path(path)
        self._format = format_
        # Otherwise a file that is there stays as it is: it may be hours of work.
        goes_on = resume and self._path.exists()
        try:
            self._file = self._path.open("r+b" if goes_on else "x+b", buffering=0)
            content = self._file.read()
        except FileExistsError:
            raise FileError(
                f"'{path}' exists; go on with it by --resume, or name another file"
            ) from None
        except OSError as error:
            raise self._failure(error) from None
        whole = content[: content.rfind(b"\n") + 1]
        header, *lines = whole.decode(**_ENCODING).split("\n")[:-1] or [""]
        self.known = self._read(header, lines) if whole else []
        self._file.seek(len(whole))
        self._file.truncate()
        if not whole:
            self._write(self._format.header)

    def write(self, record: Any) -> None:
        """Append a record. Raises FileError."""
        self._write(self._format.line(record))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self, header: str, lines: list[str]) -> list[Any]:
        if not self._format.header:
            lines = [header, *lines]
        elif f"{header}\n" != self._format.header:
            raise InputError(
                f"'{self._path}' has other columns than this run writes; resume with the options "
                "that it was begun with, or name another file"
            )
        known = []
        for number, line in enumerate(lines, 1):
            try:
                known.append(self._format.read(line))
            except (ValueError, KeyError, TypeError, AttributeError):
                raise InputError(
                    f"'{self._path}' cannot be gone on with: its record {number} is none that this "
                    "run writes; name another file"
                ) from None
        return known

    def _write(self, line: str) -> None:
        rest = memoryview(line.encode(**_ENCODING))
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise self._failure(error) from None

    def _failure(self, error: OSError) -> FileError:
        return FileError(f"cannot write '{self._path}': {error.strerror}")


def _csv_line(row: list[Any]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(row)
    return out.getvalue()
