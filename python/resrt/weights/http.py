"""A file over HTTP: resumed where it was cut off, retried where that can help, never half.

The standard library speaks HTTP; what it leaves to its caller is here. Nothing is believed that
the server says of a file: not its length, and not that a range is of the same file as before.
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

# Called with the bytes that have come, and with how many there will be where that is known.
Progress: TypeAlias = Callable[[int, int | None], None]

STALL_S = 30.0  # without a byte in between
ATTEMPTS = 5  # in a row that brought nothing new
BACKOFF_S = 1.0  # before the second attempt; twice as long before each one after
LARGEST = 4 << 30  # bytes; several times the largest pretrained weights
_LONGEST_WAIT_S = 60.0
_CHUNK = 1 << 20

_TEMPORARY = {408, 425, 429, 500, 502, 503, 504}
# What another attempt a second later does not change: there is no network.
_NO_NETWORK = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN}


def download(url: str, part: Path, progress: Progress | None = None) -> None:
    """Download a file to `part`, going on where an earlier call was cut off.

    What has come stays in `part`, and beside it, in its state file, what it is a part of. It is
    gone on with only where the server still has the same file: by its ETag or Last-Modified.
    Raises DownloadError with the reason, and FileError where `part` cannot be written.
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
    """Remove what `download` has left. Raises FileError."""
    with writing_to_cache(part):
        part.unlink(missing_ok=True)
        _state_file(part).unlink(missing_ok=True)


class _Temporary(Exception):
    """A failure that another attempt may not meet, after `wait_s` at least."""

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


@dataclass(frozen=True)
class _State:
    """Of what file `part` is the beginning."""

    url: str
    validator: str | None  # a strong ETag or a date, by which a server tells whether it is the same
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
    state = _State.of(part)
    start = _size(part)
    if state is None or state.url != url or state.validator is None:
        start = 0
    elif start == state.total:
        return  # stopped after the last byte, and before it was made use of
    with _open(url, part, start, state) as response:
        start = _begin(response, url, start, state, part)
        total = _total(response, start)
        _check_room(part, total, start)
        _copy(response, part, start, total, progress)


def _open(url: str, part: Path, start: int, state: _State | None) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers={"User-Agent": "resrt"})
    if start and state and state.validator:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", state.validator)
    opener = urllib.request.build_opener(_Redirects)
    with _network_errors():
        try:
            response: http.client.HTTPResponse = opener.open(request, timeout=STALL_S)
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(error, part) from None
    return response


def _begin(
    response: http.client.HTTPResponse, url: str, start: int, state: _State | None, part: Path
) -> int:
    """Make `part` ready for this response's bytes; return at which byte of the file they begin."""
    if response.status == 206 and start and state:
        if _is_rest(response, start, state):
            return start
        discard(part)
        raise _Temporary("the server sent another range, or of another file, than was asked for")
    if response.status != 200:
        raise DownloadError(f"the server answered with status {response.status}")
    with writing_to_cache(part):
        part.write_bytes(b"")  # first, lest the new state ever stand beside the old bytes
        _State(url, _validator(response), _total(response, 0)).write(part)
    return 0


def _is_rest(response: http.client.HTTPResponse, start: int, state: _State) -> bool:
    """Whether a partial answer goes on where we stopped, and in the same file.

    Some servers send ranges but do not know If-Range.
    """
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    return (
        match is not None
        and int(match[1]) == start
        and state.total in (None, int(match[2]))
        and _validator(response) in (None, state.validator)
    )


def _validator(response: http.client.HTTPResponse) -> str | None:
    etag = response.headers.get("ETag")
    # A weak ETag promises a file that is as good, not the same bytes.
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _total(response: http.client.HTTPResponse, start: int) -> int | None:
    """The whole file's length, as the server says."""
    if response.length is None:
        return None
    total = start + response.length
    if total > LARGEST:
        raise DownloadError(f"the server says that it has {total:,} bytes, which no weights have")
    return total


def _check_room(part: Path, total: int | None, start: int) -> None:
    with writing_to_cache(part):
        free = shutil.disk_usage(part.parent).free
    if total is not None and total - start > free:
        raise FileError(
            f"'{part.parent}' has {free:,} bytes free, and {total - start:,} are to come; make "
            "room, or name another folder in RESRT_CACHE"
        )


def _copy(
    response: http.client.HTTPResponse,
    part: Path,
    start: int,
    total: int | None,
    progress: Progress | None,
) -> None:
    size = start
    with _open_part(part) as file:
        while chunk := _read(response):
            size += len(chunk)
            if size > LARGEST:
                raise DownloadError(f"over {LARGEST:,} bytes came, which no weights have")
            with writing_to_cache(part):
                _write(file, chunk)
            if progress:
                progress(size, total)
    if total is not None and size != total:
        raise _Temporary(f"the connection was cut off after {size:,} of {total:,} bytes")


def _write(file: IO[bytes], chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:  # the system may take less at a time than it is given
        rest = rest[file.write(rest) :]


def _read(response: http.client.HTTPResponse) -> bytes:
    with _network_errors():
        return response.read1(_CHUNK)  # what is there; read() would wait for all of it


@contextlib.contextmanager
def _open_part(part: Path) -> Iterator[IO[bytes]]:
    with writing_to_cache(part):
        # Unbuffered, so that a full disk is met where the bytes are written.
        file = part.open("ab", buffering=0)
    with file:
        yield file


@contextlib.contextmanager
def _network_errors() -> Iterator[None]:
    """Sort what the network fails with into what may pass and what will not."""
    try:
        yield
    except Error:  # an OSError as well, and told of already
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if _is_lasting(cause):
            raise DownloadError(_words(cause)) from None
        raise _Temporary(_words(cause)) from None


def _is_lasting(cause: BaseException | str) -> bool:
    if isinstance(cause, (socket.gaierror, ssl.SSLCertVerificationError)):
        return True  # no such host, or not the one that it says it is
    if isinstance(cause, OSError):
        return cause.errno in _NO_NETWORK
    return not isinstance(cause, http.client.HTTPException)  # a malformed address


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
    """What an answer of a status over 299 means."""
    status = f"the server answered {error.code} {error.msg}".rstrip(". \n")
    if error.code == 416:  # it has fewer bytes than we have: another file
        discard(part)
        return _Temporary(status)
    if error.code in _TEMPORARY:
        return _Temporary(status, _retry_after(error.headers.get("Retry-After", "")))
    if error.code in (301, 302, 303, 307, 308):
        return DownloadError("the server redirects in a circle, or to what is no HTTP address")
    return DownloadError(status)


def _retry_after(seconds: str) -> float:
    return min(float(seconds), _LONGEST_WAIT_S) if seconds.isdecimal() else 0.0


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects within HTTP, and never out of HTTPS."""

    max_redirections = 10
    max_repeats = 2

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        old, new = req.type, urllib.request.Request(newurl).type
        if new != "https" and (old, new) != ("http", "http"):
            raise DownloadError(f"the server redirects from {old} to {new}, which is not followed")
        # Python 3.10 does not know 308, which is to 301 what 307 is to 302.
        known = 307 if code == 308 else code
        return super().redirect_request(req, fp, known, msg, headers, newurl)

    def http_error_302(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any
    ) -> Any:
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except urllib.error.HTTPError:
            raise  # it carries the answer, for the caller to close
        except Exception:
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302
