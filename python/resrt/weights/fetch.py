"""Pretrained weights by name: download, verify and cache them.

Each file is cached with the SHA-256 that it had when it was first downloaded, and checked against
it whenever it is used:

    ~/.cache/resrt/ResNet50/ResNet50_pretrained.pdparams
                            ResNet50_pretrained.pdparams.sha256

RESRT_CACHE names another cache folder, and RESRT_MIRROR a server or folder to use instead of the
publishers' servers. RESRT_OFFLINE=1 disables downloads. Files on the Hugging Face hub are
downloaded by huggingface_hub, which has its own cache, mirror (HF_ENDPOINT) and offline mode
(HF_HUB_OFFLINE).
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import urllib.parse
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from resrt._support.environment import cache_folder, is_offline
from resrt._support.files import (
    file_kind,
    is_regular,
    move,
    sha256,
    writing_to_cache,
    writing_whole,
)
from resrt.catalog.pretrained import Pretrained, find
from resrt.errors import DownloadError, FileError, InputError, PackageError, WeightsError
from resrt.weights import formats, hub
from resrt.weights.formats.checkpoint import Checkpoint

if TYPE_CHECKING:
    from resrt.weights.http import Progress

_LOG = logging.getLogger("resrt.weights")


def fetch(
    name: str,
    *,
    offline: bool = False,
    cache: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Return the file of a network's pretrained weights, which is downloaded if it is not cached.

    An interrupted download is resumed by the next call. If several processes request a file, one
    downloads it and the others wait.

    Args:
        name: the name of a network ("ResNet50_vd"), for its default weights, or of weights
            ("resnet50.tv_in1k"), as in `list_pretrained`.
        offline: use only files that are already here, as with RESRT_OFFLINE=1.
        cache: the folder to keep the file in; None: RESRT_CACHE, or else resrt in XDG_CACHE_HOME
            or ~/.cache.
        progress: called with the number of bytes received and the total, or None if the server
            does not send it; None: no progress is shown. huggingface_hub shows its own.

    Raises ModelError for an unknown network; WeightsError if it has no pretrained weights;
    DownloadError if they cannot be downloaded or have changed since the first download;
    PackageError if they are on the Hugging Face hub and huggingface_hub is not installed;
    FileError if the folder cannot be written.
    """
    return fetch_checked(name, offline=offline, cache=cache, progress=progress)[0]


def fetch_checked(
    name: str,
    *,
    offline: bool = False,
    cache: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> tuple[Path, Checkpoint]:
    """Return the file as `fetch` does, and its content, which was checked."""
    entry = find(name)
    if entry is None:
        raise WeightsError(
            f"there are no pretrained weights for {name}; give a file of your own as weights"
        )
    found = path = cache_folder(cache) / entry.name / entry.url.rpartition("/")[2]
    if file_kind(path) in (None, 0):
        with _advice(entry, path):
            found = _obtain(entry, path, offline or is_offline(), progress)
    return found, _check(found, path, called=f"'{found}'")


@contextlib.contextmanager
def _advice(entry: Pretrained, path: Path) -> Iterator[None]:
    """Add what to do to the reason why a file could not be downloaded."""
    try:
        yield
    except (DownloadError, PackageError) as error:
        variable = "HF_ENDPOINT" if entry.hub else "RESRT_MIRROR"
        mirror = os.environ.get(variable)
        source, other = (f" from the mirror {mirror}", "another") if mirror else ("", "a")
        raise type(error)(
            f"cannot download the weights {entry.name}{source}: {error}. Download {entry.url} "
            f"elsewhere and copy it to '{path}', name {other} mirror in {variable}, or give a file "
            "of your own as weights"
        ) from None


def _obtain(entry: Pretrained, path: Path, offline: bool, progress: Progress | None) -> Path:
    """Return where the file is now: in the hub's cache, in a mirror's folder, or at `path`."""
    if entry.hub and entry.file:
        return hub.download(entry.hub, entry.file, offline=offline)
    url = _mirrored(entry.url)
    if isinstance(url, Path):
        if not is_regular(url):
            raise DownloadError(f"the mirror has no file '{url}'")
        return url
    if offline:
        raise DownloadError("downloads are disabled, and the file is not cached")
    with _lock(path):
        if file_kind(path) is None:  # another process may have downloaded it in the meantime
            _from_server(url, path, progress)
    return path


def _mirrored(url: str) -> str | Path:
    """Return the URL, or the file, that RESRT_MIRROR replaces a publisher's URL with."""
    mirror = os.environ.get("RESRT_MIRROR", "")
    if not mirror:
        return url
    scheme, _, rest = mirror.partition("://")
    path = urllib.parse.urlsplit(url).path.lstrip("/")
    if not rest:
        try:
            return Path(mirror).expanduser() / path
        except RuntimeError:
            raise InputError(
                f"RESRT_MIRROR is {mirror!r}, but the user's home folder is unknown; give the "
                "whole path of the folder"
            ) from None
    if scheme == "file":
        return Path(urllib.parse.unquote(urllib.parse.urlsplit(mirror).path)) / path
    if scheme in ("http", "https"):
        return f"{mirror.rstrip('/')}/{path}"
    raise InputError(
        f"RESRT_MIRROR must be a folder, or an http, https or file URL, not {mirror!r}"
    )


def _from_server(url: str, path: Path, progress: Progress | None) -> None:
    # Imported only here, because the modules for HTTP and TLS are slow to import.
    from resrt.weights.http import discard, download

    part = path.with_name(path.name + ".part")
    download(url, part, progress)
    try:
        _check(part, path, called=f"the file at {url}")
    except (WeightsError, DownloadError) as error:
        discard(part)  # it may be the page of a proxy, for example
        raise DownloadError(f"invalid download: {error}") from None
    with writing_to_cache(path):
        move(part, path)
    discard(part)


def _check(file: Path, path: Path, *, called: str) -> Checkpoint:
    """Read a file, and compare its checksum with the recorded one next to `path`.

    Without a record, the file must be valid weights, and its checksum is recorded. Raises
    DownloadError if the checksums differ, and WeightsError if the file is not valid. A cache that
    cannot be written is no error: the next use will have no record to compare with.
    """
    record = path.with_name(path.name + ".sha256")
    try:
        then = record.read_text(errors="replace").split()[0]
    except (FileNotFoundError, NotADirectoryError, IndexError):
        checkpoint = formats.read(file)
        try:
            with writing_to_cache(record):
                record.parent.mkdir(parents=True, exist_ok=True)
            with writing_whole(record) as text:
                # This is the format of sha256sum -c.
                text.write(f"{checkpoint.sha256}  {path.name}\n")
        except FileError as error:
            _LOG.warning("the checksum of %s is not recorded: %s", called, error)
        return checkpoint
    except OSError as error:
        raise FileError(f"cannot read '{record}': {error.strerror}") from None
    try:
        checkpoint = formats.read(file)
        now = checkpoint.sha256
    except WeightsError:
        # It was valid when its checksum was recorded.
        now = sha256(file)
        if now == then:
            raise
    if now != then:
        raise DownloadError(
            f"{called} has changed since the first download: its SHA-256 is {now}, and was {then} "
            f"according to '{record}'. Delete a damaged file to download it again, or delete "
            f"'{record}' to use the file as it is now"
        )
    return checkpoint


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Wait until no other process or thread downloads the same file.

    The system releases the lock when its holder ends. The empty file stays, because after its
    removal two others could lock two files of one name.
    """
    with writing_to_cache(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.with_name(path.name + ".lock").open("a")
    with file:
        with writing_to_cache(path):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
