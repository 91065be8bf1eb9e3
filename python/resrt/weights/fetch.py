"""Pretrained weights by name: download them, verify them and keep them.

The files are kept in a cache folder. Beside each lies the SHA-256 that it had when it was first
downloaded, and every later use is checked against it:

    ~/.cache/resrt/ResNet50/ResNet50_pretrained.pdparams
                            ResNet50_pretrained.pdparams.sha256

RESRT_CACHE names another cache folder. RESRT_MIRROR names a server or folder to use instead of the
publishers' servers. RESRT_OFFLINE=1 forbids downloads. Files on the Hugging Face hub are downloaded
by huggingface_hub, which has its own cache, mirror (HF_ENDPOINT) and offline mode (HF_HUB_OFFLINE).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import urllib.parse
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from resrt._support.environment import cache_folder, is_offline
from resrt._support.extras import requires_extra
from resrt._support.files import sha256, writing_to_cache
from resrt.catalog.pretrained import Pretrained, find
from resrt.errors import (
    DownloadError,
    FileError,
    InputError,
    PackageError,
    WeightsError,
)
from resrt.weights import formats

if TYPE_CHECKING:
    from resrt.weights.http import Progress


def fetch(
    name: str,
    *,
    offline: bool = False,
    cache: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Return the file of a network's pretrained weights, downloaded if it is not here yet.

    An interrupted download is gone on with by the next call; of several processes one downloads
    and the others wait. No such file has been downloaded where resrt was developed: the addresses
    are their publishers', and the download is tested against servers of its own.

    Args:
        name: of a network ("ResNet50_vd"; where it has several weights, its first) or of one of
            its weights ("resnet50.tv_in1k"): see `list_pretrained`.
        offline: take what is here and use no network; RESRT_OFFLINE=1 does the same.
        cache: the folder to keep the file in; None: RESRT_CACHE, or else resrt in XDG_CACHE_HOME
            or ~/.cache.
        progress: called with the bytes that have come and the bytes in all, or None where the
            server does not say; None: a line on standard error, where that is a terminal.
            huggingface_hub shows progress of its own.

    Raises ModelError for an unknown network; WeightsError where it has no pretrained weights;
    DownloadError where they cannot be fetched, or PackageError without huggingface_hub where they
    are on its hub, both with where to put them by hand; DownloadError, too, where the file is not
    the one that was fetched first; FileError where the folder cannot be written.
    """
    return fetch_checked(name, offline=offline, cache=cache, progress=progress)[0]


def fetch_checked(
    name: str,
    *,
    offline: bool = False,
    cache: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> tuple[Path, str]:
    """Do as `fetch` does, and return the file and its SHA-256, by which it was just checked."""
    entry = find(name)
    if entry is None:
        raise WeightsError(
            f"resrt knows of no pretrained weights for {name}; give weights=, a file of your own"
        )
    path = cache_folder(cache) / entry.name / entry.url.rpartition("/")[2]
    if path.exists():
        found = path
    else:
        with _advice(entry, path):
            found = _bring(entry, path, offline or is_offline(), progress)
    return found, _check(found, path, called=f"'{found}'")


@contextlib.contextmanager
def _advice(entry: Pretrained, path: Path) -> Iterator[None]:
    """Add to the reason why a file could not be fetched what can be done instead."""
    try:
        yield
    except (DownloadError, PackageError) as error:
        variable = "HF_ENDPOINT" if entry.hub else "RESRT_MIRROR"
        mirror = os.environ.get(variable)
        raise type(error)(
            f"cannot fetch the weights {entry.name}{f' from the mirror {mirror}' if mirror else ''}"
            f": {error}. Fetch {entry.url} elsewhere and put it at '{path}', name "
            f"{'another' if mirror else 'a'} mirror in {variable}, or give a file of your own as "
            "weights"
        ) from None


def _bring(entry: Pretrained, path: Path, offline: bool, progress: Progress | None) -> Path:
    """Return where the file is now: in the hub's cache, in a mirror's folder, or at `path`."""
    if entry.hub and entry.file:
        return _from_hub(entry.hub, entry.file, offline)
    url = _mirrored(entry.url)
    if isinstance(url, Path):
        if not url.is_file():
            raise DownloadError(f"the mirror has no file '{url}'")
        return url
    if offline:
        raise DownloadError("the network is not to be used, and the file is not here")
    with _lock(path):
        if not path.exists():  # another process may have fetched it meanwhile
            _from_server(url, path, progress)
    return path


def _mirrored(url: str) -> str | Path:
    """The address, or the file, that RESRT_MIRROR puts in the place of the publisher's."""
    mirror = os.environ.get("RESRT_MIRROR", "")
    if not mirror:
        return url
    scheme, _, rest = mirror.partition("://")
    path = urllib.parse.urlsplit(url).path.lstrip("/")
    if not rest:
        return Path(mirror).expanduser() / path
    if scheme == "file":
        return Path(urllib.parse.unquote(urllib.parse.urlsplit(mirror).path)) / path
    if scheme in ("http", "https"):
        return f"{mirror.rstrip('/')}/{path}"
    raise InputError(
        f"RESRT_MIRROR must be an address of http, https or file, or a folder, not {mirror!r}"
    )


def _from_hub(repository: str, file: str, offline: bool) -> Path:
    with requires_extra("hub", "downloading from the Hugging Face hub"):
        import huggingface_hub
    try:
        return Path(huggingface_hub.hf_hub_download(repository, file, local_files_only=offline))
    except Exception as error:
        # The hub's own exceptions, and those of whatever library it speaks HTTP with.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise DownloadError(reason) from None


def _from_server(url: str, path: Path, progress: Progress | None) -> None:
    # Not with resrt itself: to speak HTTP and TLS takes a while to import.
    from resrt.weights.http import discard, download

    part = path.with_name(path.name + ".part")
    download(url, part, progress)
    try:
        _check(part, path, called=f"what {url} sends")
    except WeightsError as error:
        # The page of a proxy, say. Its checksum must not be taken for that of the weights.
        discard(part)
        raise DownloadError(f"what came cannot be used: {error}") from None
    except DownloadError:
        discard(part)
        raise
    with writing_to_cache(path):
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    discard(part)


def _check(file: Path, path: Path, *, called: str) -> str:
    """Compare a file with the checksum beside `path`; where there is none yet, note it there.

    Before it is noted the file is read once: it must be weights. Returns the checksum. Raises
    DownloadError where it is another file than then, WeightsError where it is no sound weights
    file.
    """
    record = path.with_name(path.name + ".sha256")
    now = sha256(file)
    try:
        then = record.read_text().split()[0]
    except (FileNotFoundError, IndexError):
        formats.read(file)
        _write_record(record, f"{now}  {path.name}\n")  # as sha256sum -c reads it
        return now
    except OSError as error:
        raise FileError(f"cannot read '{record}': {error.strerror}") from None
    if now != then:
        raise DownloadError(
            f"{called} is not what was first fetched: its SHA-256 is {now}, and was {then}, which "
            f"'{record}' keeps. Delete a damaged file to fetch it again; to take the file as it "
            f"is now, delete '{record}'"
        )
    return now


def _write_record(record: Path, line: str) -> None:
    """Write it whole: two processes may do so at once, and a third read meanwhile."""
    with writing_to_cache(record):
        record.parent.mkdir(parents=True, exist_ok=True)
        temporary = record.with_name(f"{record.name}.{os.getpid()}")
        temporary.write_text(line)
        temporary.replace(record)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Wait until no other process, or thread, fetches the same file.

    The system lets go of the lock when its holder ends, however it ends; the empty file stays,
    because removing it would let two others lock two files of one name.
    """
    with writing_to_cache(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.with_name(path.name + ".lock").open("a")
    with file:
        with writing_to_cache(path):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
