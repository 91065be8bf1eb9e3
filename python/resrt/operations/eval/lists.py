"""Reading the list files that name images and their classes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from resrt.errors import FileError, InputError

_LONGEST_LINE = 1 << 16  # characters


def is_number(text: str) -> bool:
    """Return whether a text may be the number of a class."""
    most_digits = 9
    return text.isdecimal() and len(text) <= most_digits


def lines_of(path: Path) -> Iterator[str]:
    """Yield the lines of a list. A byte that is not UTF-8 is a surrogate, as in file names.

    Raises FileError if it cannot be read, InputError for a line that is longer than any.
    """
    try:
        # Only a line feed ends a line: the name of a file may contain other line breaks.
        with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            while line := file.readline(_LONGEST_LINE):
                if len(line) == _LONGEST_LINE:
                    raise InputError(
                        f"'{path}' is not a list: it has a line of {len(line)} characters"
                    )
                yield line.removesuffix("\n")
    except OSError as error:
        raise FileError(f"cannot read the list '{path}': {error.strerror}") from None
