"""Checks of the arguments that the public functions share."""

from __future__ import annotations

import fnmatch
import math
import operator
import os
from collections.abc import Sequence
from os import PathLike

from resrt.errors import FileError, InputError


def whole(name: str, value: object, *, least: int = 1) -> int:
    """Return an integer of at least `least`. Raises InputError."""
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if not least <= number < 2**31:
        raise InputError(f"{name} must be an integer of at least {least}, not {_shown(value)}")
    return number


def seconds(name: str, value: object) -> float:
    """Return a number of seconds of at least 0. Raises InputError."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf:
        return float(value)
    raise InputError(f"{name} must be a number of seconds of at least 0, not {_shown(value)}")


def fraction(name: str, value: object) -> float:
    """Return a number from 0 to 1. Raises InputError."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise InputError(f"{name} must be a number from 0 to 1, not {_shown(value)}")


def choice(name: str, value: object) -> str:
    """Return a name. Raises InputError if it is not a str, or not text."""
    if not isinstance(value, str):
        raise InputError(f"{name} must be a str, not {_shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:  # a byte of the command line that is not UTF-8
        raise InputError(f"{name} must be Unicode text, not {_shown(value)}") from None
    return value


def names(name: str, value: object) -> list[str]:
    """Return a list of names. Raises InputError if it is not a sequence of str, or empty."""
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)) or not value:
        raise InputError(f"{name} must be a list of names, not {_shown(value)}")
    return [choice(f"each of {name}", one) for one in value]


def matches(name: str, pattern: str) -> bool:
    """Return whether a name of the catalog matches a shell pattern, ignoring case."""
    return fnmatch.fnmatchcase(name.lower(), choice("a pattern", pattern).lower())


def path(value: str | PathLike[str]) -> bytes:
    """Return a path as the operating system represents it. Raises FileError for an invalid one."""
    try:
        encoded = os.fsencode(value)
    except TypeError:
        raise FileError(f"a path must be a str or a PathLike, not {_shown(value)}") from None
    if b"\0" in encoded:
        raise FileError(f"invalid path: {_shown(value)} contains a null character")
    return encoded


def as_text(name: str) -> str:
    """Return a file name as valid Unicode, with escapes for bytes that are not UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
