"""Names of classes."""

from __future__ import annotations

import json
from importlib import resources
from os import PathLike, fspath
from pathlib import Path

from resrt.errors import FileError, InputError


def imagenet() -> list[str]:
    """Return the names of ImageNet-1k's 1000 classes, in the order of their numbers."""
    return _lines("imagenet_labels.txt")


def wordnet_ids() -> list[str]:
    """Return the WordNet IDs of ImageNet-1k's 1000 classes ("n01440764", ...), in their order."""
    return _lines("imagenet_ids.txt")


def read(path: str | PathLike[str]) -> list[str]:
    """Read labels from a text file of one name per line, or of a JSON list of names.

    Raises FileError where it cannot be read, InputError where it is neither.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise FileError(f"cannot read the labels '{fspath(path)}': {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"the labels '{fspath(path)}' are no text in UTF-8") from None
    return parse(text)


def parse(text: str) -> list[str]:
    """Read labels from a text of one name per line, or of a JSON list of names.

    Raises InputError where it is a JSON text of something else.
    """
    if not text.lstrip().startswith("["):
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        names = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the labels begin as a JSON list but are none: {error}") from None
    if not all(isinstance(name, str) for name in names):
        raise InputError("the labels are a JSON list of something else than names")
    return list(names)


def _lines(file: str) -> list[str]:
    return resources.files("resrt").joinpath(file).read_text(encoding="utf-8").splitlines()
