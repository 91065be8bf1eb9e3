"""Download a file over HTTP: resume where a download stopped, and retry where that can help.

The standard library speaks HTTP; this module adds what it leaves to its callers. It trusts nothing
that a server says about a file: neither its length, nor that a range is of the same file as before.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

from resrt._support.files import writing_to_cache
from resrt.errors import DownloadError, Error, FileError

# Called with the number of bytes received and the total, or None if that is unknown.
Progress: TypeAlias = Callable[[int, int | None], None]

STALL_S = 30.0  # without receiving a byte
ATTEMPTS = 5  # in a row without a new byte
BACKOFF_S = 1.0  # before the second attempt; doubled before each later one
LARGEST = 4 << 30  # bytes; several times the largest pretrained weights
_LONGEST_WAIT_S = 60.0
_CHUNK = 1 << 20

_TEMPORARY = {408, 425, 429, 500, 502, 503, 504}
# Without a network, another attempt a second later does not help.
_NO_NETWORK = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN}


def download(url: str, part: Path, progress: Progress | None = None) -> None:
    """Download a file to `part`, resuming an earlier call that was interrupted.

    A state file next to `part` says which file it is the beginning of. The download resumes only if
    the server still has that file, according to its ETag or Last-Modified. Raises DownloadError
    with the reason, and FileError if `part` cannot be written.
    """
    failures, furthest = 0, _size(part)
    while True:
        try:
            return _attempt(url, part, progress)
        except _Temporary as error:
            size = _size(part)
            failures = 1 if size > furthest else failures + 1
            furthest = max(size, furthest)
            if failures == ATTEMPTS:
                raise DownloadError(f"{error}, {ATTEMPTS} times in a row") from None
            time.sleep(max(error.wait_s, BACKOFF_S * 2 ** (failures - 1)))


def discard(part: Path) -> None:
    """Remove what `download` has written. Raises FileError."""
    with writing_to_cache(part):
        part.unlink(missing_ok=True)
        _state_file(part).unlink(missing_ok=True)


class _Temporary(Exception):
    """A failure that may not recur in another attempt, after at least `wait_s` seconds."""

    wait_s = 0.0


@dataclass(frozen=True)
class _State:
    """The file that `part` is the beginning of."""

    url: str
    validator: str | None  # a strong ETag or a date, which identifies the file's version
    total: int | None

    @classmethod
    def of(cls, part: Path) -> _State | None:
        try:
            return cls(**json.loads(_state_file(part).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, part: Path) -> None:
        _state_file(part).write_text(json.dumps(asdict(self)))


def _state_file(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _attempt(url: str, part: Path, progress: Progress | None) -> None:
    state, start = _State.of(part), _size(part)
    request = urllib.request.Request(url, headers={"User-Agent": "resrt"})
    if state is None or state.url != url or state.validator is None:
        start = 0
    elif start == state.total:
        return  # an earlier call was stopped after the last byte
    elif start:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", state.validator)
    with _open(request, part) as response:
        if start and state and response.status == 206:
            _check_range(response, start, state, part)
        elif response.status == 200:
            start = 0
            with writing_to_cache(part):
                part.write_bytes(b"")  # first: a new state must never describe old bytes
                _State(url, _validator(response), _total(response, 0)).write(part)
        else:
            raise DownloadError(f"the server answered with status {response.status}")
        _copy(response, part, start, _total(response, start), progress)


def _open(request: urllib.request.Request, part: Path) -> http.client.HTTPResponse:
    opener = urllib.request.build_opener(_Redirects)
    with _network_errors():
        try:
            response: http.client.HTTPResponse = opener.open(request, timeout=STALL_S)
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(error, part) from None
    return response


def _check_range(response: http.client.HTTPResponse, start: int, state: _State, part: Path) -> None:
    """Discard `part` and raise unless the response continues it; some servers ignore If-Range."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    if (
        match is None
        or int(match[1]) != start
        or state.total not in (None, int(match[2]))
        or _validator(response) not in (None, state.validator)
    ):
        discard(part)
        raise _Temporary("the server sent another range, or one of another file, than requested")


def _validator(response: http.client.HTTPResponse) -> str | None:
    etag = response.headers.get("ETag")
    # A weak ETag identifies equivalent files, not identical bytes.
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _total(response: http.client.HTTPResponse, start: int) -> int | None:
    """Return the length of the whole file according to the server."""
    if response.length is None:
        return None
    total = start + response.length
    if total > LARGEST:
        raise DownloadError(f"the server's file has {total:,} bytes, expected at most {LARGEST:,}")
    return total


def _copy(
    response: http.client.HTTPResponse,
    part: Path,
    start: int,
    total: int | None,
    progress: Progress | None,
) -> None:
    with writing_to_cache(part):
        free = shutil.disk_usage(part.parent).free
        if total is not None and total - start > free:
            raise FileError(
                f"'{part.parent}' has {free:,} bytes free, but the download requires "
                f"{total - start:,}; free some space, or name another folder in RESRT_CACHE"
            )
        file = part.open("ab", buffering=0)  # so that writing fails at once if the disk is full
    size = start
    with file:
        while chunk := _read(response):
            size += len(chunk)
            if size > LARGEST:
                raise DownloadError(f"received more than {LARGEST:,} bytes")
            with writing_to_cache(part):
                _write(file, chunk)
            if progress:
                progress(size, total)
    if total is not None and size != total:
        raise _Temporary(f"the connection was cut off after {size:,} of {total:,} bytes")


def _write(file: IO[bytes], chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:  # without a buffer, a call may write only a part
        rest = rest[file.write(rest) :]


def _read(response: http.client.HTTPResponse) -> bytes:
    with _network_errors():
        return response.read1(_CHUNK)  # what has arrived; read() would wait for all of it


@contextlib.contextmanager
def _network_errors() -> Iterator[None]:
    """Turn a failure of the network into _Temporary, or into DownloadError if it will recur."""
    try:
        yield
    except Error:  # some are an OSError as well
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        kind = DownloadError if _is_lasting(cause) else _Temporary
        raise kind(_words(cause)) from None


def _is_lasting(cause: BaseException | str) -> bool:
    if isinstance(cause, (socket.gaierror, ssl.SSLCertVerificationError)):
        return True
    if isinstance(cause, OSError):
        return cause.errno in _NO_NETWORK
    return not isinstance(cause, http.client.HTTPException)  # an invalid URL


def _words(error: BaseException | str) -> str:
    if isinstance(error, str):
        return error
    if isinstance(error, TimeoutError):
        return f"the server sent nothing for {STALL_S:g} s"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection was cut off"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"


def _refusal(error: urllib.error.HTTPError, part: Path) -> Exception:
    """Return the exception for a status that is not a success."""
    status = f"the server answered {error.code} {error.msg}".rstrip(". \n")
    if error.code == 416:  # its file is shorter than `part`, so it is another one
        discard(part)
        return _Temporary(status)
    if error.code in _TEMPORARY:
        failure = _Temporary(status)
        if (wait := error.headers.get("Retry-After", "")).isdecimal():
            failure.wait_s = min(float(wait), _LONGEST_WAIT_S)
        return failure
    if error.code in (301, 302, 303, 307, 308):
        return DownloadError("the server redirects in a loop, or to an invalid HTTP address")
    return DownloadError(status)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects from HTTP and HTTPS, but never from HTTPS to HTTP."""

    max_redirections = 10
    max_repeats = 2

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        old, new = req.type, urllib.request.Request(newurl).type
        if new != "https" and (old, new) != ("http", "http"):
            fp.close()
            raise DownloadError(f"the server redirects from {old} to {new}, which is not followed")
        # Python 3.10 does not know 308, which is to 301 what 307 is to 302.
        known = 307 if code == 308 else code
        return super().redirect_request(req, fp, known, msg, headers, newurl)

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302
