"""`resrt.read_config`: the parameters of a network of one's own, from a file."""

from __future__ import annotations

import json
import sys
from os import PathLike, fspath
from pathlib import Path
from typing import Any, get_args

from resrt._support.files import read_text
from resrt.catalog.models import Config
from resrt.errors import FileError, InputError, ModelError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_PARSERS = {".json": json.loads, ".toml": tomllib.loads}
_FAMILIES: dict[str, type[Config]] = {family.__name__: family for family in get_args(Config)}


def read_config(file: str | PathLike[str]) -> Config:
    """Read the parameters of a ResNet, ResNeSt or RegNet from a JSON or TOML file.

    Its entry "family" names the class, and the others are the arguments of that class, for example
    {"family": "ResNeSt", "depths": [2, 2, 2, 2], "width": 48, "radix": 3}.

    Raises FileError if it cannot be read, InputError if it has no such parameters, and ModelError
    for parameters that describe no network.
    """
    parse = _PARSERS.get(Path(file).suffix.lower())
    if parse is None:
        raise InputError(f"'{fspath(file)}' must be a .json or .toml file with parameters")
    try:
        parameters = parse(read_text(file))
    except OSError as error:
        raise FileError(f"cannot read '{fspath(file)}': {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"'{fspath(file)}' is not valid {Path(file).suffix[1:]}: {error}"
        ) from None
    family = parameters.pop("family", None) if isinstance(parameters, dict) else None
    if not isinstance(family, str) or family not in _FAMILIES:
        raise InputError(
            f"'{fspath(file)}' must have an entry \"family\", one of {', '.join(_FAMILIES)}, "
            f"not {family!r}"
        )
    return _config(_FAMILIES[family], parameters, fspath(file))


def _config(family: type[Config], parameters: dict[str, Any], file: str) -> Config:
    names = [name for name, member in vars(family).items() if isinstance(member, property)]
    unknown = [name for name in parameters if name not in names]
    if unknown:
        raise InputError(
            f"'{file}' has the unknown parameter '{unknown[0]}'; those of {family.__name__} are "
            f"{', '.join(sorted(names))}"
        )
    try:
        return family(**parameters)
    except ModelError as error:
        raise ModelError(f"'{file}': {error}") from None
    except TypeError:
        raise InputError(
            f"'{file}' has a parameter of the wrong type, or lacks one; see "
            f"help(resrt.{family.__name__})"
        ) from None
