"""`resrt.records`: append-only result files, one record per image, that a later run can resume.

Each record is a line, and is handed to the operating system before the next one is computed. When a
file is resumed, a line that was cut off is discarded.

A file also records what made it, see `made_by`, and is only resumed by the same. In JSON, the first
record has it as "made_by"; for CSV, it is in FILE.meta.json.

A file name may contain any bytes. In JSON, a byte that is not UTF-8 is a surrogate from U+DC80 to
U+DCFF, as Python represents it; `os.fsencode` restores the name. In CSV, such a byte is written
as a backslash, an x and two hexadecimal digits, and so is each byte of a control character, such as
a line break. A backslash is doubled. `unescape` restores the text of a cell.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import hashlib
import io
import json
import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import IO, Any, cast

from resrt import _core
from resrt._support.files import (
    check_unchanged,
    current_folder,
    file_kind,
    file_version,
    is_stream,
    open_stream,
    read_text,
    writing_whole,
)
from resrt.engine import backends
from resrt.engine.engine import Engine
from resrt.errors import Error, FileError, InputError
from resrt.images import Prediction
from resrt.operations.classify import Classification
from resrt.operations.eval import LabelledImage, Rank
from resrt.operations.eval.multilabel import MultilabelledImage, Scores
from resrt.weights.metadata import fields

# A file that is to be resumed may contain anything.
_ENCODING = {"encoding": "utf-8", "errors": "surrogateescape"}

# No record is as long, in bytes.
_LONGEST_LINE = 64 << 20

_SPECIAL = re.compile(r"[\\\x00-\x1f\x7f-\x9f\udc80-\udcff]")
_ESCAPE = re.compile(rb"\\(\\|x[0-9a-f]{2})")


def made_by(engine: Engine, **options: Any) -> dict[str, Any]:
    """Return what an engine's results depend on, for a `RecordFile`.

    It does not depend on the device, the number of threads and workers, and `max_batch`, nor on the
    names of the files of the engine and of its weights.

    Args:
        engine: the engine that computes the results.
        options: whatever else the results depend on, as values that JSON can hold.
    """
    info = engine.info
    return {
        "resrt": _core.__version__,
        "backend": f"{info.backend} {backends.version(info.backend)}",
        "built_by": f"{info.backend} {info.backend_version}",
        "network": info.model,
        "layers_sha256": _sha256(info.layers),
        # Only a file or arrays have a checksum. Without one, the plan contains the weights.
        "weights_sha256": info.weights_sha256 or hashlib.sha256(engine.plan).hexdigest(),
        "labels_sha256": _sha256(json.dumps(info.labels)),
        "precision": info.precision,
        "input_shape": info.input_shape,
        **fields(info.preprocessing),
        **options,
    }


def listing(images: Iterable[LabelledImage | MultilabelledImage]) -> dict[str, Any]:
    """Return the number of labelled images and a checksum that changes when one of them does.

    It is of their paths and labels, and of the sizes and modification times of the files.
    """
    rows = [[*vars(image).values(), *file_version(image.image)] for image in images]
    return {"images": len(rows), "images_sha256": _sha256(json.dumps(rows))}


def folder_of(paths: Iterable[str]) -> str | None:
    """Return the current folder if one of the paths is relative to it."""
    return str(current_folder()) if any(not Path(path).is_absolute() for path in paths) else None


def unescape(text: str) -> str:
    """Return the text that a cell of a CSV file stands for."""
    encoded = text.encode(**_ENCODING)
    return _ESCAPE.sub(_unescaped, encoded).decode(**_ENCODING)


def escape(text: str) -> str:
    """Return a text as a cell of a CSV file, in which it is a line of valid UTF-8."""
    return _SPECIAL.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    if match[0] == "\\":
        return "\\\\"
    return "".join(f"\\x{byte:02x}" for byte in match[0].encode(**_ENCODING))


def _unescaped(match: re.Match[bytes]) -> bytes:
    return match[1] if match[1] == b"\\" else bytes.fromhex(match[1][1:].decode())


class Format(ABC):
    """How records are written: one line each, after a header that may be empty.

    `has_metadata` is whether a record may also have what made the file. `beginning` is what every
    file begins with.
    """

    header = ""
    beginning = ""
    has_metadata = False

    @abstractmethod
    def line(self, record: Any, made_by: Mapping[str, Any] | None = None) -> str:
        """Return a record as a line, including its newline."""

    @abstractmethod
    def read(self, line: str) -> Any:
        """Return the record of a line.

        Raises ValueError, KeyError, TypeError, AttributeError or RecursionError if it has none.
        """

    def made_by(self, line: str) -> Any:
        """Return what made the file, if the line of the first record has that."""
        return None


class JsonFormat(Format):
    """A JSON object on each line."""

    has_metadata = True
    beginning = '{"image": "'

    def line(self, record: Any, made_by: Mapping[str, Any] | None = None) -> str:
        """Return a record as a line, including its newline."""
        document = self._document(record)
        if made_by is not None:
            document["made_by"] = made_by
        return json.dumps(document, allow_nan=False) + "\n"

    def read(self, line: str) -> Any:
        """Return the record of a line."""
        document = json.loads(line)
        document.pop("made_by", None)
        return self._record(document)

    def made_by(self, line: str) -> Any:
        """Return what made the file, if the line of the first record has that."""
        return json.loads(line).get("made_by")

    @abstractmethod
    def _document(self, record: Any) -> dict[str, Any]: ...

    @abstractmethod
    def _record(self, document: dict[str, Any]) -> Any: ...


class JsonClassifications(JsonFormat):
    """A JSON object on each line: {"image": path, "predictions": [...]}, or "error".

    A probability that is NaN is null, because JSON has no number for it.
    """

    def _document(self, record: Classification) -> dict[str, Any]:
        document: dict[str, Any] = {"image": record.image}
        if record.error is None:
            document["predictions"] = [
                vars(one) if math.isfinite(one.probability) else {**vars(one), "probability": None}
                for one in record.predictions
            ]
        else:
            document["error"] = record.error
        return document

    def _record(self, document: dict[str, Any]) -> Classification:
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
        self.header = self.beginning = _csv_line(["image", "error", *names])

    def line(self, record: Classification, made_by: Mapping[str, Any] | None = None) -> str:
        """Return a record as a line, including its newline. It has no place for `made_by`."""
        row: list[Any] = [escape(record.image), escape(record.error or "")]
        for one in record.predictions:
            row += [one.index, escape(one.label), f"{one.probability:.6g}"]
        return _csv_line(row + [""] * (self._columns - len(row)))

    def read(self, line: str) -> Classification:
        """Return the record of a line."""
        (row,) = csv.reader([line])
        if len(row) != self._columns:
            raise ValueError(f"{len(row)} columns")
        predictions = [
            Prediction(int(index), unescape(label), float(probability))
            for index, label, probability in zip(row[2::3], row[3::3], row[4::3], strict=True)
            if index
        ]
        return Classification(unescape(row[0]), predictions, unescape(row[1]) or None)


class JsonRanks(JsonFormat):
    """A JSON object on each line: {"image": path, "label": number, "rank": position, "error"}."""

    def _document(self, record: Rank) -> dict[str, Any]:
        return dict(vars(record))

    def _record(self, document: dict[str, Any]) -> Rank:
        return Rank(**document)


class JsonScores(JsonFormat):
    """A JSON object on each line: {"image": path, "labels": numbers, "probabilities", "error"}.

    A probability that is NaN is null, because JSON has no number for it.
    """

    def _document(self, record: Scores) -> dict[str, Any]:
        found = record.probabilities
        return {
            "image": record.image,
            "labels": record.labels,
            "probabilities": found and [one if math.isfinite(one) else None for one in found],
            "error": record.error,
        }

    def _record(self, document: dict[str, Any]) -> Scores:
        found = document["probabilities"]
        if found is not None:
            found = tuple(math.nan if one is None else float(one) for one in found)
        return Scores(document["image"], tuple(document["labels"]), found, document["error"])


class RecordFile:
    """A file of records. `known` holds the records that it already contains when it is resumed.

    Args:
        path: the file.
        format_: how records are written.
        resume: whether to continue the file if it exists.
        overwrite: whether to replace the file if it exists.
        made_by: what the records depend on, as values that JSON can hold; see `made_by`.

    Raises FileError if it cannot be written, or exists and is neither to be resumed nor replaced;
    InputError if it contains other records, or was made by something else.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        format_: Format,
        *,
        resume: bool = False,
        overwrite: bool = False,
        made_by: Mapping[str, Any] | None = None,
    ) -> None:
        self._path = Path(path)
        self._format = format_
        self._made_by = None if made_by is None else as_json(made_by)
        kind = file_kind(self._path)
        self._streams = False
        try:
            self._streams = is_stream(self._path)
            if self._streams:  # such as /dev/stdout
                self._file: IO[bytes] = open_stream(self._path)
            else:
                # An existing file is only replaced if asked: it may be hours of work.
                mode = "r+b" if kind is not None and (resume or overwrite) else "x+b"
                # A link may point to a file that does not exist yet.
                target = Path(os.path.realpath(self._path))
                self._file = target.open(mode, buffering=0)
        except FileExistsError:
            raise FileError(
                f"'{path}' exists; resume it with --resume, or name another file, or replace it "
                "with --overwrite"
            ) from None
        except OSError as error:
            raise self._failure(error) from None
        try:
            self._begin(overwrite=overwrite)
        except BaseException as error:
            self._file.close()
            if kind is None:  # it was created here
                with contextlib.suppress(OSError):
                    Path(os.path.realpath(self._path)).unlink()
            if isinstance(error, OSError) and not isinstance(error, Error):
                raise self._failure(error) from None
            raise

    def _begin(self, *, overwrite: bool) -> None:
        """Read the records to continue, and write what comes before the first."""
        self.known: list[Any] = []
        end = 0
        if not self._streams:
            self._lock()
            written_ns = os.fstat(self._file.fileno()).st_mtime_ns
            if not overwrite:
                self.known, end = self._read()
                check_unchanged(self._path, (record.image for record in self.known), written_ns)
            self._file.seek(end)
            self._file.truncate()
            if not (self.known or self._made_by is None or self._format.has_metadata):
                # Whatever happens, old records are never beside the metadata of new ones.
                os.fsync(self._file.fileno())
                self._write_metadata(overwrite=overwrite)
        self._is_begun = bool(self.known)
        if end == 0:
            self._write(self._format.header)

    def write(self, record: Any) -> None:
        """Append a record. Raises FileError."""
        self._write(self._format.line(record, None if self._is_begun else self._made_by))
        self._is_begun = True

    def close(self) -> None:
        """Close the file. Its records are on the disk when this returns. Raises FileError."""
        try:
            if not (self._file.closed or self._streams):
                os.fsync(self._file.fileno())
            self._file.close()
        except OSError as error:
            raise self._failure(error) from None

    def __enter__(self) -> RecordFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _lock(self) -> None:
        """Reserve the file until it is closed, so that no other process adds to it meanwhile."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileError(
                f"cannot write '{self._path}': another process is writing it; wait for that, or "
                "name another file"
            ) from None
        except OSError:  # a file system without locks
            return

    def _read(self) -> tuple[list[Any], int]:
        """Return the records, and where the last whole line ends, in bytes.

        Raises OSError, FileError, and InputError if no run of the same left the file.
        """
        known: list[Any] = []
        with contextlib.closing(self._lines()) as lines:
            header = next(lines, b"") if self._format.header else b""
            end = len(header)
            for number, line in enumerate(lines, 1):
                if number == 1 and not self._format.has_metadata:
                    missing = f", as '{self._metadata_path}' is missing"
                    check_made_by(self._path, self._read_metadata(), self._made_by, missing)
                if number == 1:
                    self._check_header(header)
                text = line.decode(**_ENCODING).removesuffix("\n")
                try:
                    known.append(self._format.read(text))
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                    raise InputError(
                        f"cannot resume '{self._path}': record {number} does not match this output "
                        "format; name another file"
                    ) from None
                if number == 1 and self._format.has_metadata:
                    check_made_by(self._path, self._format.made_by(text), self._made_by)
                end += len(line)
            if header:
                self._check_header(header)
        return known, end

    def _check_header(self, header: bytes) -> None:
        if header.decode(**_ENCODING) != self._format.header:
            raise InputError(
                f"cannot resume '{self._path}': its columns differ from this output format; resume "
                "it with the options that it was started with, or name another file"
            )

    def _lines(self) -> Generator[bytes, None, None]:
        """Yield the lines of the file that are whole.

        Raises OSError, and InputError if no interrupted run left a last line as it is.
        """
        reader = io.BufferedReader(cast("io.RawIOBase", self._file))
        try:
            is_first = True
            while line := reader.readline(_LONGEST_LINE):
                if line.endswith(b"\n"):
                    yield line
                elif len(line) == _LONGEST_LINE or (is_first and not self._is_beginning(line)):
                    raise InputError(
                        f"cannot resume '{self._path}': it does not contain results in this output "
                        "format; name another file"
                    )
                is_first = False
        finally:
            reader.detach()

    def _is_beginning(self, line: bytes) -> bool:
        expected = self._format.beginning.encode()
        return line.startswith(expected) or expected.startswith(line)

    @property
    def _metadata_path(self) -> Path:
        return self._path.with_name(f"{self._path.name}.meta.json")

    def _read_metadata(self, *, needed: bool = False) -> Any:
        try:
            return json.loads(read_text(self._metadata_path))["made_by"]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FileError(f"cannot read '{self._metadata_path}': {error.strerror}") from None
        except (ValueError, KeyError, TypeError, RecursionError):
            if needed:
                raise FileError(
                    f"'{self._metadata_path}' exists, where resrt writes what made '{self._path}'; "
                    "name another file, or replace both with --overwrite"
                ) from None
            raise InputError(
                f"cannot resume '{self._path}': '{self._metadata_path}' is damaged; name another "
                "file"
            ) from None

    def _write_metadata(self, *, overwrite: bool) -> None:
        if not overwrite and file_kind(self._metadata_path) is not None:
            self._read_metadata(needed=True)  # somebody else's file is not replaced
        with writing_whole(self._metadata_path) as file:
            json.dump({"made_by": self._made_by}, file, indent=2)
            file.write("\n")

    def _write(self, line: str) -> None:
        rest = memoryview(line.encode(**_ENCODING))
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise self._failure(error) from None

    def _failure(self, error: OSError) -> FileError:
        return FileError(f"cannot write '{self._path}': {error.strerror}")


def as_json(made_by: Mapping[str, Any]) -> dict[str, Any]:
    """Return what made a file as it is read back, for instance with lists instead of tuples."""
    found: dict[str, Any] = json.loads(json.dumps(made_by))
    return found


def check_made_by(path: Path, found: Any, ours: dict[str, Any] | None, place: str = "") -> None:
    """Raise InputError, which names the differences, if something else made a file."""
    if found == ours:
        return
    if not isinstance(found, dict) or ours is None:
        raise InputError(
            f"cannot resume '{path}': it is not known to be made by the same engine and "
            f"options{place}; name another file"
        )
    names = [name for name in {**found, **ours} if found.get(name) != ours.get(name)]
    theirs, here = (_shown(made, names) for made in (found, ours))
    raise InputError(
        f"cannot resume '{path}': it was made with {theirs}, not with {here}; resume it "
        "with the engine, data and options that it was started with, or name another file"
    )


def _shown(made_by: Mapping[str, Any], names: Iterable[str]) -> str:
    """Return some of what made a file, with checksums shortened."""

    def text(name: str) -> str:
        value = made_by.get(name)
        if name.endswith("_sha256") and isinstance(value, str):
            return f"{name} {value[:12]}…"
        if isinstance(value, list):  # of floats that were float32
            value = [round(one, 6) if isinstance(one, float) else one for one in value]
        return f"{name} {json.dumps(value)}"

    return ", ".join(map(text, names))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _csv_line(row: list[Any]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(row)
    return out.getvalue()
