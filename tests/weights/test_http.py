"""Downloads over HTTP from servers that misbehave, and onto disks that are full."""

from __future__ import annotations

import errno
import io
import json
import shutil
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

import resrt
from resrt.weights import http
from support.weights_server import (
    ETAG,
    FILE,
    HALF,
    NAME,
    OTHER,
    URL,
    WEIGHTS,
    Answer,
    Handler,
    Server,
    cut,
    left_in,
    ranged,
    serving,
    stall,
    status,
    whole,
)

pytestmark = pytest.mark.usefixtures("folder")


@pytest.mark.parametrize("missing", ["ETag", "Last-Modified"])
def test_resumes_where_the_connection_was_cut_off(server: Server, missing: str) -> None:
    date = "Tue, 01 Sep 2020 00:00:00 GMT"
    etag, validator = (None, date) if missing == "ETag" else (ETAG, ETAG)
    server.answers = [cut(ETag=etag, Last_Modified=date), ranged(etag=validator)]
    assert resrt.fetch(NAME).read_bytes() == WEIGHTS
    assert server.ranges == [None, f"bytes={HALF}-"]
    assert server.requests[1][1]["If-Range"] == validator


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_restarts_if_nothing_identifies_the_file(server: Server, etag: str | None) -> None:
    server.answers = [cut(ETag=etag), ranged()]
    assert resrt.fetch(NAME).read_bytes() == WEIGHTS
    assert server.ranges == [None, None]


def test_restarts_if_the_server_does_not_support_ranges(server: Server) -> None:
    server.answers = [cut(), whole()]
    assert resrt.fetch(NAME).read_bytes() == WEIGHTS
    assert server.ranges == [None, f"bytes={HALF}-"]


@pytest.mark.parametrize(
    "second",
    [
        ranged(OTHER, '"second"'),
        ranged(OTHER, '"second"', knows_if_range=False),
        ranged(save({"w": np.zeros(80_000, np.float32)}), ETAG),  # has another length
        ranged(OTHER[:100], '"second"', knows_if_range=False),  # 416: is shorter than the part
    ],
)
def test_never_joins_two_versions_of_a_file(server: Server, second: Answer) -> None:
    server.answers = [cut(), second, whole(OTHER, '"second"')]
    assert resrt.fetch(NAME).read_bytes() == OTHER


def test_does_not_resume_with_the_file_of_another_server(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "ATTEMPTS", 1)
    server.answers = [cut()]
    with pytest.raises(resrt.DownloadError, match="cut off"):
        resrt.fetch(NAME)
    with serving(Server()) as other:
        other.answers = [ranged(OTHER)]  # happens to have the same ETag
        monkeypatch.setenv("RESRT_MIRROR", other.url)
        assert resrt.fetch(NAME).read_bytes() == OTHER
        assert other.ranges == [None]


def test_resumes_after_a_stalled_connection(server: Server) -> None:
    server.answers = [stall(), ranged()]
    assert resrt.fetch(NAME).read_bytes() == WEIGHTS
    assert server.ranges == [None, f"bytes={HALF}-"]


def test_a_server_that_only_stalls(server: Server) -> None:
    server.answers = [stall(0)]
    with pytest.raises(resrt.DownloadError, match=r"nothing for 0.3 s, 5 times in a row"):
        resrt.fetch(NAME)
    assert len(server.requests) == 5


def test_only_attempts_without_new_bytes_are_counted(server: Server) -> None:
    """The connection is cut off ten times, each time a little later."""

    def a_little(handler: Handler) -> None:
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        end = start + len(WEIGHTS) // 10 + 1
        content_range = f"bytes {start}-{len(WEIGHTS) - 1}/{len(WEIGHTS)}"
        headers = {"Content_Length": len(WEIGHTS) - start, "ETag": ETAG}
        if start:
            headers["Content_Range"] = content_range
        handler.send(206 if start else 200, WEIGHTS[start:end], **headers)

    server.answers = [a_little]
    assert resrt.fetch(NAME).read_bytes() == WEIGHTS
    assert len(server.requests) == 10


def test_a_length_that_is_too_long(server: Server, folder: Path) -> None:
    server.answers = [whole(Content_Length=len(WEIGHTS) + 1000)]
    expected = rf"cut off after {len(WEIGHTS):,} of {len(WEIGHTS) + 1000:,} bytes, 5 times"
    with pytest.raises(resrt.DownloadError, match=expected):
        resrt.fetch(NAME)
    assert not (folder / FILE).exists()


def test_a_length_that_is_too_short(server: Server, folder: Path) -> None:
    server.answers = [whole(Content_Length=len(WEIGHTS) - 1000)]
    with pytest.raises(
        resrt.DownloadError, match="invalid download: .*is not a valid safetensors file"
    ):
        resrt.fetch(NAME)
    assert left_in(folder) == set()


@pytest.mark.parametrize("length", [10**15, "10e3", -5, ""])
def test_an_absurd_length(server: Server, folder: Path, length: object) -> None:
    server.answers = [whole(Content_Length=length)]
    if length == 10**15:
        with pytest.raises(
            resrt.DownloadError, match="file has 1,000,000,000,000,000 bytes, expected at most"
        ):
            resrt.fetch(NAME)
    else:  # it is ignored, and the file ends with the connection
        assert resrt.fetch(NAME).read_bytes() == WEIGHTS


def test_an_endless_file(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(handler: Handler) -> None:
        handler.send(200, b"")
        while not handler.server.closing.is_set():
            handler.wfile.write(bytes(1 << 16))

    monkeypatch.setattr(http, "LARGEST", 1 << 20)
    server.answers = [endless]
    with pytest.raises(resrt.DownloadError, match="received more than 1,048,576 bytes"):
        resrt.fetch(NAME)


def test_no_length(server: Server) -> None:
    server.answers = [whole(Content_Length=None)]
    assert resrt.fetch(NAME).read_bytes() == WEIGHTS


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_a_temporary_failure(server: Server, code: int) -> None:
    server.answers = [status(code, Retry_After="0"), status(code, Retry_After="soon"), whole()]
    assert resrt.fetch(NAME).read_bytes() == WEIGHTS


def test_waits_as_long_as_the_server_asks(server: Server) -> None:
    server.answers = [status(503, Retry_After="1"), whole()]
    start = time.monotonic()
    resrt.fetch(NAME)
    assert time.monotonic() - start >= 1


def test_a_server_that_closes_the_connection_without_an_answer(server: Server) -> None:
    server.answers = [lambda handler: None, lambda handler: None, whole()]
    assert resrt.fetch(NAME).read_bytes() == WEIGHTS


def test_a_server_that_does_not_speak_http(server: Server) -> None:
    def nonsense(handler: Handler) -> None:
        handler.wfile.write(b"\0\1\2\3\r\n\r\n")

    server.answers = [nonsense]
    with pytest.raises(resrt.DownloadError, match="5 times"):
        resrt.fetch(NAME)


@pytest.mark.parametrize(("code", "reason"), [(404, "Not Found"), (403, "Forbidden")])
def test_a_permanent_failure_says_what_to_do(
    server: Server, folder: Path, code: int, reason: str
) -> None:
    server.answers = [status(code)]
    with pytest.raises(resrt.DownloadError) as caught:
        resrt.fetch(NAME)
    message = str(caught.value)
    assert f"{code} {reason}" in message
    assert server.url in message
    assert f"Download {URL} elsewhere" in message
    assert f"copy it to '{folder / FILE}'" in message
    assert len(server.requests) == 1
    assert isinstance(caught.value, OSError)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_follows_redirects(server: Server, code: int) -> None:
    server.answers = [
        status(code, Location="/elsewhere"),
        status(code, Location=f"{server.url}/there"),
        cut(),
        status(code, Location="/again"),
        ranged(),
    ]
    assert resrt.fetch(NAME).read_bytes() == WEIGHTS
    assert [path for path, _ in server.requests][1:3] == ["/elsewhere", "/there"]
    assert server.ranges[-1] == f"bytes={HALF}-"  # the redirected request has the range, too


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("/dygraph/legendary_models/" + FILE, "in a loop"),
        ("file:///etc/passwd", "to an invalid HTTP address"),
        ("ftp://127.0.0.1/weights", "from http to ftp"),
        ("http://[half", "."),
        (None, "to an invalid HTTP address"),
    ],
)
def test_redirects_that_are_not_followed(
    server: Server, location: str | None, message: str
) -> None:
    server.answers = [status(302, Location=location)]
    with pytest.raises(resrt.DownloadError, match=message):
        resrt.fetch(NAME)
    assert len(server.requests) <= 4


@pytest.mark.skipif(not shutil.which("openssl"), reason="requires openssl to make a certificate")
def test_https_is_not_redirected_to_http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 "
        f"-addext subjectAltName=IP:127.0.0.1 -out {certificate} -keyout {key}".split(),
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = Server()
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server), serving(Server()) as plain:
        secure = server.url.replace("http", "https")
        monkeypatch.setenv("RESRT_MIRROR", secure)
        with pytest.raises(resrt.DownloadError, match="(?i)certificate"):
            resrt.fetch(NAME)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        server.answers = [status(302, Location=plain.url)]
        with pytest.raises(resrt.DownloadError, match="redirects from https to http"):
            resrt.fetch(NAME)
        assert plain.requests == []
        server.answers = [status(302, Location=f"{secure}/there"), whole()]
        assert resrt.fetch(NAME).read_bytes() == WEIGHTS


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr("socket.create_connection", unreachable)
    with pytest.raises(resrt.DownloadError, match="Network is unreachable. Download https://"):
        resrt.fetch(NAME)


def test_no_such_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESRT_MIRROR", "http://no-such-host.invalid")
    with pytest.raises(resrt.DownloadError, match="no-such-host.invalid: .*another mirror"):
        resrt.fetch(NAME)


def test_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    server.server_close()
    monkeypatch.setenv("RESRT_MIRROR", server.url)
    with pytest.raises(resrt.DownloadError, match="Connection refused, 5 times"):
        resrt.fetch(NAME)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="requires /dev/full")
def test_a_full_disk(server: Server, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / f"{FILE}.part").symlink_to("/dev/full")
    with pytest.raises(resrt.FileError, match="No space left on device"):
        resrt.fetch(NAME)
    assert len(server.requests) == 1


def test_a_system_that_writes_only_a_part(tmp_path: Path) -> None:
    class Partial(io.FileIO):
        def write(self, data: Any, /) -> int:
            return super().write(data[:1000])

    with Partial(tmp_path / "file", "w") as file:
        http._write(file, WEIGHTS)
    assert (tmp_path / "file").read_bytes() == WEIGHTS


def test_a_disk_with_too_little_space(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(folder.anchor)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(
        resrt.FileError, match=rf"1,000 bytes free, but the download requires {len(WEIGHTS):,};"
    ):
        resrt.fetch(NAME)


def test_an_invalid_state_is_not_resumed(server: Server, folder: Path) -> None:
    folder.mkdir(parents=True)
    for state in ("", "[]", "{", '{"url": 1}', json.dumps({"url": "x", "validator": ETAG})):
        (folder / f"{FILE}.part").write_bytes(b"?" * 1000)
        (folder / f"{FILE}.part.json").write_text(state)
        path = resrt.fetch(NAME)
        assert path.read_bytes() == WEIGHTS
        path.unlink()
    assert set(server.ranges) == {None}


def test_a_complete_download_is_not_repeated(server: Server, folder: Path) -> None:
    part = folder / f"{FILE}.part"
    folder.mkdir(parents=True)
    http.download(f"{server.url}/dygraph/legendary_models/{FILE}", part)
    assert part.read_bytes() == WEIGHTS
    assert resrt.fetch(NAME).read_bytes() == WEIGHTS
    assert len(server.requests) == 1
