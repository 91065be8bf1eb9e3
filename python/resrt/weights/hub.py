"""Weights in any repository of the Hugging Face hub, named as in timm: "hf-hub:owner/name".

"hf-hub:owner/name@revision" names a branch, tag or commit. huggingface_hub downloads the files and
caches them; RESRT_OFFLINE=1 uses only those in its cache, as its own HF_HUB_OFFLINE=1 does.
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

from resrt._support.environment import is_offline
from resrt._support.extras import requires_extra
from resrt._support.files import read_text
from resrt.errors import DownloadError, InputError

_PREFIX = "hf-hub:"
_NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
# The files of weights; the first that a repository has is used. Then what else is read.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
INDEX = ".index.json"
_CONFIG, _PROCESSOR = "config.json", "preprocessor_config.json"


def is_name(weights: object) -> bool:
    """Return whether weights are named as in a repository of the hub."""
    return isinstance(weights, str) and weights.startswith(_PREFIX)


def short(name: str) -> str:
    """Return the name of a repository without its owner."""
    return name.removeprefix(_PREFIX).partition("@")[0].rpartition("/")[2]


def fetch(name: str) -> Path:
    """Return the file, or the index of several files, of a repository's weights, downloaded.

    The configurations of timm and Transformers, if the repository has them, lie beside it. Raises
    InputError for an invalid name, DownloadError, and PackageError without huggingface_hub.
    """
    match = _NAME.fullmatch(name.removeprefix(_PREFIX))
    if match is None:
        raise InputError(
            f"invalid name of weights on the Hugging Face hub: {name!r}; expected "
            f"{_PREFIX}owner/name, or {_PREFIX}owner/name@revision"
        )
    repository, revision = match["repository"], match["revision"]
    for config in (_CONFIG, _PROCESSOR):
        with contextlib.suppress(_Missing):
            download(repository, config, revision, called=name)
    for weights in (file + end for file in WEIGHTS for end in ("", INDEX)):
        try:
            path = download(repository, weights, revision, called=name)
        except _Missing:
            continue
        for part in _parts(path) if weights.endswith(INDEX) else ():
            download(repository, part, revision, called=name)
        return path
    raise DownloadError(
        f"cannot download the weights {name}: the repository has none of {', '.join(WEIGHTS)}; "
        "download another file of it, and give its path"
    )


class _Missing(DownloadError):
    """A repository that has no such file."""


def download(
    repository: str,
    file: str,
    revision: str | None = None,
    *,
    called: str = "",
    offline: bool | None = None,
) -> Path:
    """Return a file of a repository, which huggingface_hub downloads if it is not in its cache.

    Raises DownloadError, which begins with the weights if they are `called`, and PackageError.
    """
    with requires_extra("hub", "downloading from the Hugging Face hub"):
        import huggingface_hub
        from huggingface_hub import errors
    offline = is_offline() if offline is None else offline
    try:
        return Path(
            huggingface_hub.hf_hub_download(
                repository, file, revision=revision, local_files_only=offline
            )
        )
    except Exception as error:
        # The hub's exceptions, or those of the HTTP library that it uses.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        is_missing = isinstance(error, errors.EntryNotFoundError)
        if isinstance(error, errors.LocalEntryNotFoundError):
            # The hub cannot be reached, so that the file may exist or not. If the weights are
            # cached, it did not exist when they were downloaded.
            is_missing = _is_cached(repository, revision)
            state = "downloading is switched off" if offline else "the hub cannot be reached"
            reason = f"{state}, and the hub's cache on this machine has no '{file}' of it"
        if called:
            advice = (
                "Allow downloading"
                if offline
                else "Check the name and the access to the hub, name a mirror in HF_ENDPOINT"
            )
            reason = (
                f"cannot download the weights {called}: {reason}. {advice}, or give a file of your "
                "own as weights"
            )
        raise (_Missing if is_missing and called else DownloadError)(reason) from None


def cached(repository: str, file: str) -> Path | None:
    """Return a file of a repository if it is in the hub's cache; nothing is downloaded."""
    try:
        return download(repository, file, offline=True)
    except (DownloadError, ImportError):
        return None


def _is_cached(repository: str, revision: str | None) -> bool:
    """Return whether any weights of a repository are in the hub's cache."""
    import huggingface_hub

    found: list[Any] = [
        huggingface_hub.try_to_load_from_cache(repository, name + end, revision=revision)
        for name in WEIGHTS
        for end in ("", INDEX)
    ]
    return any(isinstance(path, str) for path in found)


def _parts(index: Path) -> list[str]:
    """Return the names of the files that an index lists. `files_of` checks an invalid index."""
    try:
        listed = json.loads(read_text(index))["weight_map"].values()
        return sorted({file for file in listed if Path(file).name == file})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
