"""Rows of anything as a text table, JSON, CSV or Markdown."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

Row = TypeVar("Row")
Value: TypeAlias = str | int | float | bool | list[str] | None

_ABSENT = "–"  # what a reader sees where there is no value


@dataclass(frozen=True)
class Column(Generic[Row]):
    """A column: what `--sort`, JSON and CSV call it, and what a reader sees.

    `value` is a row's exact value, None where it has none, as JSON and CSV give it; `shown` is what
    a reader sees of it under `heading`, which has the unit.
    """

    name: str
    heading: str
    value: Callable[[Row], Value]
    shown: Callable[[Any], object] = str

    def text(self, row: Row) -> str:
        """Return what a reader sees."""
        value = self.value(row)
        return _ABSENT if value is None or value == [] else str(self.shown(value))

    def is_numeric(self, rows: Iterable[Row]) -> bool:
        """Whether its values are numbers, which stand at the right."""
        values = [value for row in rows if (value := self.value(row)) is not None]
        return bool(values) and all(isinstance(value, (int, float, list)) for value in values)


def percent(fraction: float) -> str:
    """Return a fraction as a percentage with two decimals, without the sign."""
    return f"{100 * fraction:.2f}"


def millions(number: float) -> str:
    """Return a number in millions with two decimals."""
    return f"{number / 1e6:.2f}"


def show(rows: Sequence[Row], columns: Sequence[Column[Row]], form: str) -> None:
    """Print the rows in one of `arguments.TABLE_FORMATS`."""
    text = render(rows, columns, form)
    if form == "table":
        print_fitting(text)
    else:
        print(text)


def render(rows: Sequence[Row], columns: Sequence[Column[Row]], form: str) -> str:
    """Return the rows in one of `arguments.TABLE_FORMATS`, without a newline at the end."""
    return {"table": _table, "json": _json, "csv": _csv, "markdown": _markdown}[form](rows, columns)


def sort(rows: Iterable[Row], column: Column[Row], *, descending: bool = False) -> list[Row]:
    """Return the rows in the order of a column, those without a value last either way."""

    def key(row: Row) -> Value:
        value = column.value(row)
        return len(value) if isinstance(value, list) else value

    rows = list(rows)
    present = [row for row in rows if key(row) is not None]
    absent = [row for row in rows if key(row) is None]
    return [*sorted(present, key=key, reverse=descending), *absent]  # type: ignore[arg-type]


def print_fitting(text: str) -> None:
    """Print lines; on a terminal that is too narrow for one, cut it there, as its "…" shows."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in text.splitlines():
        is_cut = width is not None and len(line) > width
        print(f"{line[: width - 1]}…" if is_cut and width else line)


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
