"""Pretrained weights by name: where they are, how they come here, and that they stay the same.

weights/catalog.toml lists them. The files are kept in a folder of their own, each beside the
SHA-256 that it had when it first came, against which it is checked whenever it is used:

    ~/.cache/resrt/ResNet50/ResNet50_pretrained.pdparams
                            ResNet50_pretrained.pdparams.sha256

RESRT_CACHE names another folder, RESRT_MIRROR a server or folder in place of the publishers'
servers, RESRT_OFFLINE=1 keeps off the network. Files of the Hugging Face hub come by
huggingface_hub, with its own cache, mirror (HF_ENDPOINT) and HF_HUB_OFFLINE.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from resrt import _core
from resrt._arguments import matches
from resrt._extras import needing_extra
from resrt.errors import (
    DownloadError,
    FileError,
    InputError,
    PackageError,
    WeightsError,
)
from resrt.files import cache_folder, sha256, writing_to_cache

if TYPE_CHECKING:
    from resrt.download import Progress
if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Pretrained:
    """Weights that somebody has published for a network of the catalog.

    `name` is the network's or, where it has several weights, the network's with a tag:
    "resnet50.a1_in1k". They are at `url`, which for those of the Hugging Face hub is that of `file`
    in the repository `hub`; `address_from` is where their publisher says so.

    Photographs are resized to a shorter side of `resize` pixels, and the middle `crop` x `crop` of
    them taken, as `pipeline` does it ("paddleclas" or "torchvision", see Preprocessing); at
    `test_crop`, where there is one, timm found the weights to be most accurate.
    `top1` and `top5` are fractions on ImageNet-1k's validation set, as PaddleClas publishes them.
    """

    name: str
    url: str
    address_from: str
    format: str
    licence: str
    classes: int
    resize: int
    crop: int
    interpolation: str
    pipeline: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    hub: str | None = None
    file: str | None = None
    test_resize: int | None = None
    test_crop: int | None = None
    top1: float | None = None
    top5: float | None = None

    @property
    def model(self) -> str:
        """The network's name."""
        return self.name.partition(".")[0]

    def resize_for(self, size: int) -> int:
        """To what the shorter side is resized where `size` pixels are cut out of it."""
        if size == self.test_crop and self.test_resize is not None:
            return self.test_resize
        return round(size * self.resize / self.crop)


def list_pretrained(pattern: str = "*") -> list[Pretrained]:
    """Return the pretrained weights whose names match a shell pattern, in the catalog's order.

    Upper and lower case are the same to it.

    >>> [entry.name for entry in list_pretrained("resnet50d.*in1k")][:2]
    ['resnet50d.ra2_in1k', 'resnet50d.ra4_e3600_r224_in1k']
    """
    return [entry for entry in _catalog().values() if matches(entry.name, pattern)]


def find(name: str) -> Pretrained | None:
    """Return the weights of that name, or a network's default ones; None where it has none.

    Raises ModelError for an unknown network, WeightsError for an unknown tag of a known one.
    """
    if entry := _catalog().get(name):
        return entry
    model, dot, _ = name.partition(".")
    _core.find_model(model if dot else name)
    of_model = names_of(model)
    if dot:
        known = ", ".join(of_model) or "none"
        raise WeightsError(f"there are no pretrained weights named {name!r}; of {model}: {known}")
    return _catalog()[of_model[0]] if of_model else None


def names_of(model: str) -> tuple[str, ...]:
    """Return the names of a network's pretrained weights, the default first."""
    return _names_by_model().get(model, ())


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


@cache
def _catalog() -> dict[str, Pretrained]:
    tables = tomllib.loads(resources.files("resrt").joinpath("catalog.toml").read_text("utf-8"))
    return {name: _entry(name, table) for name, table in tables.items()}


@cache
def _names_by_model() -> dict[str, tuple[str, ...]]:
    names: dict[str, tuple[str, ...]] = {}
    for entry in _catalog().values():
        names[entry.model] = (*names.get(entry.model, ()), entry.name)
    return names


def _entry(name: str, table: dict[str, Any]) -> Pretrained:
    mean, std = tuple(table.pop("mean")), tuple(table.pop("std"))
    if "hub" in table:
        table["url"] = f"{_HUB}/{table['hub']}/resolve/main/{table['file']}"
    return Pretrained(name=name, mean=mean, std=std, **table)


def is_offline() -> bool:
    """Whether the environment forbids to use the network."""
    # HF_HUB_OFFLINE is how the machines of many users say that they have no network at all.
    values = (os.environ.get(name, "") for name in ("RESRT_OFFLINE", "HF_HUB_OFFLINE"))
    return any(value.lower() not in ("", "0", "false", "no", "off") for value in values)


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
    with needing_extra("hub", to="fetch from the Hugging Face hub"):
        import huggingface_hub
    try:
        return Path(huggingface_hub.hf_hub_download(repository, file, local_files_only=offline))
    except Exception as error:
        # The hub's own exceptions, and those of whatever library it speaks HTTP with.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise DownloadError(reason) from None


def _from_server(url: str, path: Path, progress: Progress | None) -> None:
    # Not with resrt itself: to speak HTTP and TLS takes a while to import.
    from resrt.download import discard, download

    part = path.with_name(path.name + ".part")
    with _meter(path.name) if progress is None else contextlib.nullcontext(progress) as shown:
        download(url, part, shown)
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
        from resrt import weights  # which reads arrays; to list the catalog needs none

        weights.read(file)
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


@contextlib.contextmanager
def _meter(name: str, out: TextIO | None = None) -> Iterator[Progress | None]:
    """A line of progress on standard error, where somebody looks at it."""
    terminal = sys.stderr if out is None else out
    if terminal is None or not terminal.isatty():
        yield None
        return
    last = 0.0

    def show(received: int, total: int | None) -> None:
        nonlocal last
        if received == total or time.monotonic() - last > 0.1:
            last = time.monotonic()
            of = "" if total is None else f" of {total / 1e6:.1f}"
            print(f"\r{name}: {received / 1e6:.1f}{of} MB", end="", file=terminal, flush=True)

    try:
        yield show
    finally:
        if last:
            print(file=terminal)
