"""Class labels."""

from __future__ import annotations

import json
from importlib import resources
from os import PathLike, fspath

from resrt._support.files import read_text
from resrt.errors import FileError, InputError

_LARGEST = 16 << 20  # bytes


def imagenet() -> list[str]:
    """Return the names of the 1000 classes of ImageNet-1k, in class order."""
    return _lines("imagenet_labels.txt")


def wordnet_ids() -> list[str]:
    """Return the WordNet IDs of the 1000 classes of ImageNet-1k ("n01440764", ...), in order."""
    return _lines("imagenet_ids.txt")


def read(path: str | PathLike[str]) -> list[str]:
    """Read labels from a text file with one name per line, or with a JSON list of names.

    Raises FileError if the file cannot be read, InputError if it is neither.
    """
    try:
        text = read_text(path, _LARGEST)
    except OSError as error:
        raise FileError(f"cannot read the labels '{fspath(path)}': {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"the labels '{fspath(path)}' are not UTF-8 text") from None
    except ValueError as error:
        raise InputError(f"'{fspath(path)}' is not a file of labels: {error}") from None
    return parse(text)


def parse(text: str) -> list[str]:
    """Parse labels from text with one name per line, or from a JSON list of names.

    Raises InputError if the text starts as a JSON list but is not a list of names.
    """
    if not text.lstrip().startswith("["):
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        names = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"invalid labels: not a valid JSON list: {error}") from None
    if not all(isinstance(name, str) for name in names):
        raise InputError("invalid labels: the JSON list must contain only names")
    return list(names)


def _lines(file: str) -> list[str]:
    return resources.files("resrt").joinpath(file).read_text(encoding="utf-8").splitlines()
