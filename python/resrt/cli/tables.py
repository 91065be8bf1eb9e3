"""Rows of anything as a text table, JSON, CSV or Markdown."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

if TYPE_CHECKING:
    from resrt import EngineInfo, Exported

Row = TypeVar("Row")
Value: TypeAlias = str | int | float | bool | list[str] | None

_ABSENT = "–"  # shown for a missing value


def printable(text: str, longest: int) -> str:
    """Return a text from a file, shortened, and quoted if it has control characters."""
    shortened = text if len(text) <= longest else f"{text[:longest]}…"
    return shortened if shortened.isprintable() else repr(shortened)


def outputs_row(info: EngineInfo) -> str:
    """Return an engine's outputs as one line: the number of classes, or names and shapes."""
    if list(info.outputs) == ["logits"]:
        return f"{info.classes} classes"
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in info.outputs.items())


def preprocessing_row(info: EngineInfo | Exported) -> str:
    """Return an engine's or export's preprocessing, and where it is from, as one line."""
    steps, (_, height, width) = info.preprocessing, info.input_shape
    if not steps.mean:
        return "none: requires prepared batches"
    source = f"; {info.preprocessing_source}" if info.preprocessing_source else ""
    if isinstance(steps.resize, tuple):
        to = "x".join(map(str, steps.resize))
        resized = f"to {to}" if steps.pipeline == "squash" else f"to cover {to}"
    elif steps.pipeline == "squash":
        resized = f"in the input's proportions, short side to {steps.resize}"
    else:
        resized = f"short side to {steps.resize}"
    return (
        f"as {steps.pipeline}: {resized}, {steps.interpolation}; crop "
        f"{height}x{width}; mean {_numbers(steps.mean)}, std {_numbers(steps.std)}{source}"
    )


def _numbers(values: list[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


@dataclass(frozen=True)
class Column(Generic[Row]):
    """A column of a table.

    Attributes:
        name: its name for `--sort`, JSON and CSV.
        heading: its heading for readers, with the unit.
        value: returns the exact value of a row, as JSON and CSV contain it; None if it is missing.
        shown: formats a value for readers.
    """

    name: str
    heading: str
    value: Callable[[Row], Value]
    shown: Callable[[Any], object] = str

    def text(self, row: Row) -> str:
        """Return a row's value as readers see it."""
        value = self.value(row)
        return _ABSENT if value is None or value == [] else str(self.shown(value))

    def is_numeric(self, rows: Iterable[Row]) -> bool:
        """Return whether the values are numbers, which are aligned to the right."""
        values = [value for row in rows if (value := self.value(row)) is not None]
        return bool(values) and all(isinstance(value, (int, float, list)) for value in values)


def percent(fraction: float) -> str:
    """Return a fraction as a percentage with two decimals, without the sign."""
    return f"{100 * fraction:.2f}"


def millions(number: float) -> str:
    """Return a number in millions with two decimals."""
    return f"{number / 1e6:.2f}"


def show(rows: Sequence[Row], columns: Sequence[Column[Row]], form: str) -> None:
    """Print the rows in one of FORMATS. A table is cut to the width of the terminal."""
    text = render(rows, columns, form)
    if form == "table" and sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        lines = text.splitlines()
        text = "\n".join(line if len(line) <= width else f"{line[: width - 1]}…" for line in lines)
    print(text)


def print_json(document: object) -> None:
    """Print a document or dataclasses as JSON, in ASCII because file names may not be Unicode.

    JSON has no NaN or infinity, so they are null.
    """
    text = json.dumps(document, default=dataclasses.asdict)
    print(json.dumps(json.loads(text, parse_constant=lambda _: None), indent=2))


def render(rows: Sequence[Row], columns: Sequence[Column[Row]], form: str) -> str:
    """Return the rows in one of FORMATS, without a newline at the end."""
    return FORMATS[form](rows, columns)


def sort(rows: Iterable[Row], column: Column[Row], *, descending: bool = False) -> list[Row]:
    """Sort the rows by a column. Rows without a value come last in either direction."""

    def key(row: Row) -> Value:
        value = column.value(row)
        return len(value) if isinstance(value, list) else value

    rows = list(rows)
    present = [row for row in rows if key(row) is not None]
    absent = [row for row in rows if key(row) is None]
    return [*sorted(present, key=key, reverse=descending), *absent]  # type: ignore[arg-type]


def _table(rows: Sequence[Row], columns: Sequence[Column[Row]]) -> str:
    cells = _cells(rows, columns)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    at_right = [column.is_numeric(rows) for column in columns]
    return "\n".join(
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, at_right, strict=True)
        ).rstrip()
        for line in cells
    )


def _markdown(rows: Sequence[Row], columns: Sequence[Column[Row]]) -> str:
    heading, *lines = _cells(rows, columns)
    escaped = [[text.replace("|", r"\|") for text in line] for line in lines]
    rule = f"|{'---|' * len(columns)}"
    return "\n".join([_line(heading), rule, *map(_line, escaped)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(rows: Sequence[Row], columns: Sequence[Column[Row]]) -> list[list[str]]:
    return [[c.heading for c in columns], *([c.text(row) for c in columns] for row in rows)]


def _json(rows: Sequence[Row], columns: Sequence[Column[Row]]) -> str:
    objects = [{column.name: column.value(row) for column in columns} for row in rows]
    return json.dumps(objects, indent=2, ensure_ascii=False)


def _csv(rows: Sequence[Row], columns: Sequence[Column[Row]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(column.name for column in columns)
    for row in rows:
        values = (column.value(row) for column in columns)
        writer.writerow(" ".join(v) if isinstance(v, list) else v for v in values)
    return text.getvalue().removesuffix("\n")


FORMATS = {"table": _table, "json": _json, "csv": _csv, "markdown": _markdown}
