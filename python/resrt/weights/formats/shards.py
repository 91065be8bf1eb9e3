"""Folders of weights, and weights in several files, as Transformers and Accelerate write them.

A file such as model.safetensors.index.json lists which file has each array:
{"weight_map": {"fc.weight": "model-00002-of-00002.safetensors", ...}}
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from resrt._support.files import file_kind, is_folder, is_regular
from resrt.errors import FileError, WeightsError
from resrt.weights.formats.checkpoint import Malformed, reported, shorten
from resrt.weights.formats.content import opened
from resrt.weights.hub import INDEX, WEIGHTS

# One of several files, such as model-00001-of-00002.safetensors.
_PART = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.\w+)")
_OF_PADDLE = "inference.pdiparams"  # as PaddleClas names what it exports
_LONGEST_INDEX = 8 << 20
_MOST_FILES = 1000


def files_of(path: str) -> tuple[list[str], set[str]]:
    """Return the files that hold the weights of a folder, an index or a file.

    For an index, also return the names of the arrays that it lists. Raises FileError if a folder
    has no weights under the usual names, and WeightsError for an invalid index.
    """
    if is_folder(path):
        usual = [f"{name}{end}" for name in WEIGHTS for end in ("", INDEX)]
        candidates = [Path(path) / name for name in (*usual, _OF_PADDLE)]
        found = next((file for file in candidates if file_kind(file) is not None), None)
        if found is None:
            raise FileError(
                f"cannot read the weights '{path}': not a regular file, and as a folder it has "
                f"none of {', '.join(file.name for file in candidates)}; name the file"
            )
        path = str(found)
    if not path.endswith(INDEX):
        _check_whole(path)
        return [path], set()
    with opened(path) as source, reported(path, "index of weights"):
        if source.size > _LONGEST_INDEX:
            raise Malformed(f"it has {source.size} bytes")
        listed = _weight_map(source.read(0, source.size))
    files = sorted(set(listed.values()))
    if len(files) > _MOST_FILES or not all(_is_plain(file) for file in files):
        raise WeightsError(
            f"'{path}' lists files outside of its own folder, or more than {_MOST_FILES}; resrt "
            "reads only those beside it"
        )
    return [str(Path(path).parent / file) for file in files], set(listed)


def _check_whole(path: str) -> None:
    """Raise WeightsError for one of the several files of a checkpoint."""
    match = _PART.fullmatch(Path(path).name)
    if match is None or int(match["count"]) < 2 or not is_regular(path):
        return
    index = Path(path).parent / f"{match['stem']}{match['suffix']}{INDEX}"
    advice = f"give its index, '{index}', or the folder"
    if file_kind(index) is None:
        advice = f"copy the others and the index, '{index.name}', beside it, and give that index"
    raise WeightsError(
        f"'{path}' is part {int(match['part'])} of {int(match['count'])} of a checkpoint in "
        f"several files; {advice}"
    )


def architecture_beside(folder: str) -> dict[str, str]:
    """Return the architecture that timm's config.json in a folder names, as metadata."""
    config = Path(folder) / "config.json"
    try:
        with opened(str(config)) as source:
            if source.size > _LONGEST_INDEX:
                return {}
            document = json.loads(str(source.read(0, source.size), "utf-8"))
    except (FileError, ValueError, RecursionError):
        return {}
    told = document.get("architecture") if isinstance(document, dict) else None
    return {"architecture": told} if isinstance(told, str) else {}


def _weight_map(content: memoryview) -> Mapping[str, str]:
    try:
        document = json.loads(str(content, "utf-8"))
    except (ValueError, RecursionError):
        raise Malformed("it is not valid JSON") from None
    listed = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(listed, dict) or not listed:
        raise Malformed("it has no weight_map")
    for name, file in listed.items():
        if not isinstance(file, str):
            raise Malformed(f"its weight_map has {shorten(file)} for {shorten(name)}")
    return listed


def _is_plain(file: str) -> bool:
    return file.isprintable() and Path(file).name == file and file not in ("", ".", "..")
