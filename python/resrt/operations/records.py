"""`resrt.records`: append-only result files, one record per image, that a later run can resume.

Each record is a line, and is handed to the operating system before the next one is computed. When a
file is resumed, a line that was cut off is discarded.

A file name may contain any bytes. In JSON, a byte that is not UTF-8 is a surrogate from U+DC80 to
U+DCFF, as Python represents it; `os.fsencode` restores the name. In CSV, such a byte is written
as a backslash, an x and two hexadecimal digits, and so is each byte of a control character, such as
a line break. A backslash is doubled. `unescape` restores the text of a cell.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from abc import ABC, abstractmethod
from os import PathLike
from pathlib import Path
from typing import Any

from resrt._support.files import file_kind
from resrt.errors import FileError, InputError
from resrt.images import Prediction
from resrt.operations.classify import Classification
from resrt.operations.eval import Rank

# A file that is to be resumed may contain anything.
_ENCODING = {"encoding": "utf-8", "errors": "surrogateescape"}

_SPECIAL = re.compile(r"[\\\x00-\x1f\x7f-\x9f\udc80-\udcff]")
_ESCAPE = re.compile(rb"\\(\\|x[0-9a-f]{2})")


def unescape(text: str) -> str:
    """Return the text that a cell of a CSV file stands for."""
    encoded = text.encode(**_ENCODING)
    return _ESCAPE.sub(_unescaped, encoded).decode(**_ENCODING)


def _escape(text: str) -> str:
    return _SPECIAL.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    if match[0] == "\\":
        return "\\\\"
    return "".join(f"\\x{byte:02x}" for byte in match[0].encode(**_ENCODING))


def _unescaped(match: re.Match[bytes]) -> bytes:
    return match[1] if match[1] == b"\\" else bytes.fromhex(match[1][1:].decode())


class Format(ABC):
    """How records are written: one line each, after a header that may be empty."""

    header = ""

    def line(self, record: Any) -> str:
        """Return a record as a line, including its newline."""
        return self._line(record)

    def read(self, line: str) -> Any:
        """Return the record of a line. Raises ValueError, KeyError or TypeError if it has none."""
        return self._read(line)

    @abstractmethod
    def _line(self, record: Any) -> str: ...

    @abstractmethod
    def _read(self, line: str) -> Any: ...


class JsonClassifications(Format):
    """A JSON object on each line: {"image": path, "predictions": [...]}, or "error".

    A probability that is NaN is null, because JSON has no number for it.
    """

    def _line(self, record: Classification) -> str:
        document: dict[str, Any] = {"image": record.image}
        if record.error is None:
            document["predictions"] = [
                vars(one) if math.isfinite(one.probability) else {**vars(one), "probability": None}
                for one in record.predictions
            ]
        else:
            document["error"] = record.error
        return json.dumps(document, allow_nan=False) + "\n"

    def _read(self, line: str) -> Classification:
        document = json.loads(line)
        error = document.get("error")
        predictions = [
            Prediction(**{**one, "probability": math.nan} if one["probability"] is None else one)
            for one in (document["predictions"] if error is None else [])
        ]
        return Classification(document["image"], predictions, error)


class CsvClassifications(Format):
    """A row for each image: its path, why it was skipped, and three columns for each class.

    Texts are escaped, so that each row is a line of valid UTF-8.
    """

    def __init__(self, topk: int) -> None:
        names = [f"{name}_{i}" for i in range(1, topk + 1) for name in Prediction.__annotations__]
        self._columns = 2 + len(names)
        self.header = _csv_line(["image", "error", *names])

    def _line(self, record: Classification) -> str:
        row: list[Any] = [_escape(record.image), _escape(record.error or "")]
        for one in record.predictions:
            row += [one.index, _escape(one.label), f"{one.probability:.6g}"]
        return _csv_line(row + [""] * (self._columns - len(row)))

    def _read(self, line: str) -> Classification:
        (row,) = csv.reader([line])
        if len(row) != self._columns:
            raise ValueError(f"{len(row)} columns")
        predictions = [
            Prediction(int(index), unescape(label), float(probability))
            for index, label, probability in zip(row[2::3], row[3::3], row[4::3], strict=True)
            if index
        ]
        return Classification(unescape(row[0]), predictions, unescape(row[1]) or None)


class JsonRanks(Format):
    """A JSON object on each line: {"image": path, "label": number, "rank": position, "error"}."""

    def _line(self, record: Rank) -> str:
        return json.dumps(vars(record)) + "\n"

    def _read(self, line: str) -> Rank:
        return Rank(**json.loads(line))


class RecordFile:
    """A file of records. `known` holds the records that it already contains when it is resumed.

    Raises FileError if it cannot be written, or exists and is not to be resumed; InputError if it
    contains other records.
    """

    def __init__(self, path: str | PathLike[str], format_: Format, *, resume: bool) -> None:
        self._path = Path(path)
        self._format = format_
        # An existing file is never overwritten: it may be hours of work.
        mode = "r+b" if resume and file_kind(self._path) is not None else "x+b"
        try:
            self._file = self._path.open(mode, buffering=0)
            content = self._file.read()
        except FileExistsError:
            raise FileError(
                f"'{path}' exists; resume it with --resume, or name another file"
            ) from None
        except OSError as error:
            raise self._failure(error) from None
        whole = content[: content.rfind(b"\n") + 1]
        self.known = self._read(whole.decode(**_ENCODING)) if whole else []
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

    def _read(self, text: str) -> list[Any]:
        header = self._format.header
        if not text.startswith(header):
            raise InputError(
                f"cannot resume '{self._path}': its columns differ from this output format; resume "
                "it with the options that it was started with, or name another file"
            )
        known = []
        for number, line in enumerate(text.removeprefix(header).split("\n")[:-1], 1):
            try:
                known.append(self._format.read(line))
            except (ValueError, KeyError, TypeError, AttributeError):
                raise InputError(
                    f"cannot resume '{self._path}': record {number} does not match this output "
                    "format; name another file"
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
