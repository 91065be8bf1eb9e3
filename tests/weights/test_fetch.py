"""Pretrained weights by name: the catalog, and fetching from a server that misbehaves."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

import resrt
from resrt import _core
from resrt._support import files
from resrt.engine import network
from resrt.weights import fetch as pretrained
from resrt.weights import http as download
from support.paths import ROOT

NAME = "ResNet18"  # what most tests fetch; the server decides what that is
FILE = "ResNet18_pretrained.pdparams"
URL = f"https://paddle-imagenet-models-name.bj.bcebos.com/dygraph/legendary_models/{FILE}"
WEIGHTS = save({"w": np.arange(75_000, dtype=np.float32)})
HALF = len(WEIGHTS) // 2
OTHER = save({"w": -np.arange(75_000, dtype=np.float32)})
ETAG = '"first"'

Answer = Callable[["_Handler"], None]


# --- The server: each request is answered by the next of `answers`, the last of them for ever. ---


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        with contextlib.suppress(ConnectionError):
            answer(self)

    do_HEAD = do_GET  # noqa: N815

    def send(self, status: int, body: bytes, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[Answer] = [whole()]
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for _, headers in self.requests]

    def handle_error(self, *_: object) -> None:
        pass  # a client that hangs up is part of the tests


@contextlib.contextmanager
def serving(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def whole(content: bytes = WEIGHTS, etag: str | None = ETAG, **headers: object) -> Answer:
    """The file, as by a server that knows no ranges."""
    headers = {"Content_Length": len(content), "ETag": etag, **headers}
    return lambda handler: handler.send(200, content, **headers)


def cut(size: int = HALF, content: bytes = WEIGHTS, **headers: object) -> Answer:
    """The beginning of the file, and then the connection's end."""
    headers = {"Content_Length": len(content), "ETag": ETAG, **headers}
    return lambda handler: handler.send(200, content[:size], **headers)


def stall(size: int = HALF) -> Answer:
    """The beginning of the file, and then nothing."""

    def answer(handler: _Handler) -> None:
        handler.send(200, WEIGHTS[:size], Content_Length=len(WEIGHTS), ETag=ETAG)
        handler.server.closing.wait(10)

    return answer


def ranged(
    content: bytes = WEIGHTS, etag: str | None = ETAG, knows_if_range: bool = True
) -> Answer:
    """What was asked for, as by a server that knows ranges."""

    def answer(handler: _Handler) -> None:
        asked, condition = handler.headers.get("Range"), handler.headers.get("If-Range")
        if asked is None or (knows_if_range and condition != etag):
            return whole(content, etag)(handler)
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            return handler.send(416, b"", Content_Range=f"bytes */{len(content)}")
        rest = content[start:]
        content_range = f"bytes {start}-{len(content) - 1}/{len(content)}"
        handler.send(206, rest, Content_Length=len(rest), Content_Range=content_range, ETag=etag)
        return None

    return answer


def status(code: int, **headers: object) -> Answer:
    return lambda handler: handler.send(code, b"", Content_Length=0, **headers)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving(Server()) as server:
        monkeypatch.setenv("RESRT_MIRROR", server.url)
        yield server


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, short waits, and nothing of the user's environment."""
    for name in ("RESRT_OFFLINE", "RESRT_MIRROR", "HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("RESRT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "STALL_S", 0.3)
    monkeypatch.setattr(download, "BACKOFF_S", 0.001)
    return tmp_path / "cache" / NAME


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {f"{FILE}.lock"}


# --- The catalog ---


def test_every_published_network_has_an_entry() -> None:
    with (ROOT / "python/resrt/published.csv").open() as file:
        published = {row["model"]: row for row in csv.DictReader(file)}
    assert len(published) == 21
    for name, row in published.items():
        entry = pretrained.find(name)
        assert entry is not None, name
        assert entry.url.endswith(f"/{name}_pretrained.pdparams")
        assert (entry.crop, entry.resize) == (int(row["crop"]), int(row["resize_short"]))
        assert (entry.top1, entry.top5) == (float(row["top1"]), float(row["top5"]))


def test_the_catalog_is_the_one_in_the_checkout() -> None:
    installed = Path(resrt.__file__).parent / "catalog.toml"
    assert installed.read_text() == (ROOT / "weights/catalog.toml").read_text()


@pytest.mark.parametrize("entry", resrt.list_pretrained(), ids=lambda entry: entry.name)
def test_entries_are_complete(entry: resrt.Pretrained) -> None:
    model = resrt.model_info(entry.model)
    assert entry.url.startswith("https://")
    assert entry.format == ("safetensors" if model.source == "timm" else "pdparams")
    assert entry.licence
    assert entry.address_from
    assert entry.classes >= 1000
    assert 0 < entry.crop <= entry.resize
    assert (entry.test_crop is None) == (entry.test_resize is None)
    assert entry.interpolation in ("bilinear", "bicubic")
    assert len(entry.mean) == len(entry.std) == 3
    assert all(0 < value < 1 for value in entry.mean + entry.std)


@pytest.mark.parametrize("model", resrt.list_models(), ids=lambda model: model.name)
def test_default_weights_are_what_the_catalog_of_networks_says(model: resrt.ModelInfo) -> None:
    entry = pretrained.find(model.name)
    if entry is not None:
        assert entry.crop == model.input_size
        assert entry.classes == 1000


def test_names_with_and_without_a_tag() -> None:
    assert pretrained.find("resnet50") == pretrained.find("resnet50.a1_in1k")
    other = pretrained.find("resnet50.tv_in1k")
    assert other is not None
    assert (
        other.url == "https://huggingface.co/timm/resnet50.tv_in1k/resolve/main/model.safetensors"
    )
    assert (other.licence, other.resize, other.interpolation) == ("bsd-3-clause", 256, "bilinear")
    assert pretrained.find("resnet18c") is None
    with pytest.raises(resrt.ModelError, match="resnet50"):
        pretrained.find("resnet5O")
    with pytest.raises(resrt.ModelError, match="resnet50"):
        pretrained.find("resnet5O.a1_in1k")
    with pytest.raises(resrt.WeightsError, match="'resnet18.b1'.*resnet18.a1_in1k, resnet18.a2"):
        resrt.fetch("resnet18.b1")
    with pytest.raises(resrt.WeightsError, match="no pretrained weights for resnet18c"):
        resrt.fetch("resnet18c")


@pytest.mark.parametrize(
    ("name", "size", "resize"),
    [
        ("resnet50", 224, 235),  # timm's crop_pct of 0.95, rounded down
        ("resnet50", 288, 288),  # its test size, with its test_crop_pct of 1
        ("resnet50", 448, 470),
        ("ResNet50", 224, 256),
        ("ResNet50", 320, 366),
        ("Fix_ResNet50_vd_ssld_v2", 320, 320),
        ("resnest269e", 416, 448),
    ],
)
def test_photographs_are_resized_as_the_weights_ask(name: str, size: int, resize: int) -> None:
    entry = pretrained.find(name)
    assert entry is not None
    assert entry.resize_for(size) == resize


# --- Fetching ---


def test_fetched_once_and_kept(server: Server, folder: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = resrt.fetch(NAME, progress=lambda *sizes: seen.append(sizes))
    assert path == folder / FILE
    assert path.read_bytes() == WEIGHTS
    assert seen[-1] == (len(WEIGHTS), len(WEIGHTS))
    assert left_in(folder) == {FILE, f"{FILE}.sha256"}
    assert server.requests[0][0] == f"/dygraph/legendary_models/{FILE}"
    assert resrt.fetch(NAME) == resrt.fetch(NAME, offline=True) == path
    assert len(server.requests) == 1


def test_the_checksum_is_as_sha256sum_reads_it(server: Server, folder: Path) -> None:
    resrt.fetch(NAME)
    line = (folder / f"{FILE}.sha256").read_text()
    assert line == f"{hashlib.sha256(WEIGHTS).hexdigest()}  {FILE}\n"
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "-c", f"{FILE}.sha256"], cwd=folder, check=True)


def test_a_changed_file_is_named_with_both_checksums(server: Server, folder: Path) -> None:
    path = resrt.fetch(NAME)
    path.write_bytes(OTHER)
    first, now = (hashlib.sha256(content).hexdigest() for content in (WEIGHTS, OTHER))
    with pytest.raises(resrt.DownloadError, match=f"{now}, and was {first}.*[Dd]elete"):
        resrt.fetch(NAME)
    # As the message says: without the record, the file is taken as it is.
    (folder / f"{FILE}.sha256").unlink()
    assert resrt.fetch(NAME) == path


def test_a_publisher_who_changes_the_file_is_noticed(server: Server, folder: Path) -> None:
    resrt.fetch(NAME).unlink()
    server.answers = [whole(OTHER)]
    with pytest.raises(resrt.DownloadError, match="is not what was first fetched"):
        resrt.fetch(NAME)
    assert left_in(folder) == {f"{FILE}.sha256"}
    (folder / f"{FILE}.sha256").unlink()
    assert resrt.fetch(NAME).read_bytes() == OTHER


def test_a_file_put_there_by_hand_is_taken(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / FILE).write_bytes(WEIGHTS)
    assert resrt.fetch(NAME, offline=True) == folder / FILE
    (folder / FILE).write_bytes(OTHER)
    with pytest.raises(resrt.DownloadError, match="SHA-256"):
        resrt.fetch(NAME, offline=True)


@pytest.mark.parametrize("lacking", ["ETag", "Last-Modified"])
def test_goes_on_where_it_was_cut_off(server: Server, lacking: str) -> None:
    date = "Tue, 01 Sep 2020 00:00:00 GMT"
    etag, validator = (None, date) if lacking == "ETag" else (ETAG, ETAG)
    server.answers = [cut(ETag=etag, Last_Modified=date), ranged(etag=validator)]
    assert resrt.fetch(NAME).read_bytes() == WEIGHTS
    assert server.ranges == [None, f"bytes={HALF}-"]
    assert server.requests[1][1]["If-Range"] == validator


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_begins_again_where_nothing_tells_that_the_file_is_the_same(
    server: Server, etag: str | None
) -> None:
    server.answers = [cut(ETag=etag), ranged()]
    assert resrt.fetch(NAME).read_bytes() == WEIGHTS
    assert server.ranges == [None, None]


def test_begins_again_where_ranges_are_refused(server: Server) -> None:
    server.answers = [cut(), whole()]
    assert resrt.fetch(NAME).read_bytes() == WEIGHTS
    assert server.ranges == [None, f"bytes={HALF}-"]


@pytest.mark.parametrize(
    "second",
    [
        ranged(OTHER, '"second"'),
        ranged(OTHER, '"second"', knows_if_range=False),
        ranged(save({"w": np.zeros(80_000, np.float32)}), ETAG),  # of another length
        ranged(OTHER[:100], '"second"', knows_if_range=False),  # 416: shorter than what we have
    ],
)
def test_never_joins_two_versions_of_a_file(server: Server, second: Answer) -> None:
    server.answers = [cut(), second, whole(OTHER, '"second"')]
    assert resrt.fetch(NAME).read_bytes() == OTHER


def test_does_not_go_on_with_another_servers_file(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    server.answers = [cut()]
    with pytest.raises(resrt.DownloadError, match="cut off"):
        resrt.fetch(NAME)
    with serving(Server()) as other:
        other.answers = [ranged(OTHER)]  # under an ETag that happens to be the same
        monkeypatch.setenv("RESRT_MIRROR", other.url)
        assert resrt.fetch(NAME).read_bytes() == OTHER
        assert other.ranges == [None]


def test_a_stalled_connection_is_given_up_and_gone_on_with(server: Server) -> None:
    server.answers = [stall(), ranged()]
    assert resrt.fetch(NAME).read_bytes() == WEIGHTS
    assert server.ranges == [None, f"bytes={HALF}-"]


def test_a_server_that_only_stalls(server: Server) -> None:
    server.answers = [stall(0)]
    with pytest.raises(resrt.DownloadError, match=r"nothing for 0.3 s, 5 times in a row"):
        resrt.fetch(NAME)
    assert len(server.requests) == 5


def test_attempts_are_counted_only_while_nothing_new_comes(server: Server) -> None:
    """Ten cuts, each a little further on."""

    def a_little(handler: _Handler) -> None:
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
    with pytest.raises(resrt.DownloadError, match="what came cannot be used.*no sound safetensors"):
        resrt.fetch(NAME)
    assert left_in(folder) == set()


@pytest.mark.parametrize("length", [10**15, "10e3", -5, ""])
def test_a_length_that_is_absurd(server: Server, folder: Path, length: object) -> None:
    server.answers = [whole(Content_Length=length)]
    if length == 10**15:
        with pytest.raises(resrt.DownloadError, match="which no weights have"):
            resrt.fetch(NAME)
    else:  # as good as none: the file ends with the connection
        assert resrt.fetch(NAME).read_bytes() == WEIGHTS


def test_a_file_without_an_end(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(handler: _Handler) -> None:
        handler.send(200, b"")
        while not handler.server.closing.is_set():
            handler.wfile.write(bytes(1 << 16))

    monkeypatch.setattr(download, "LARGEST", 1 << 20)
    server.answers = [endless]
    with pytest.raises(resrt.DownloadError, match="over 1,048,576 bytes came"):
        resrt.fetch(NAME)


def test_no_length_at_all(server: Server) -> None:
    server.answers = [whole(Content_Length=None)]
    assert resrt.fetch(NAME).read_bytes() == WEIGHTS


def test_the_page_of_a_proxy_is_no_weights_file(server: Server, folder: Path) -> None:
    server.answers = [whole(b"<html>Please log in</html>"), whole()]
    with pytest.raises(resrt.DownloadError, match="cannot be used.*of no weights format"):
        resrt.fetch(NAME)
    assert left_in(folder) == set()
    assert resrt.fetch(NAME).read_bytes() == WEIGHTS


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_a_failure_that_passes(server: Server, code: int) -> None:
    server.answers = [status(code, Retry_After="0"), status(code, Retry_After="soon"), whole()]
    assert resrt.fetch(NAME).read_bytes() == WEIGHTS


def test_waits_as_long_as_it_is_told_to(server: Server) -> None:
    server.answers = [status(503, Retry_After="1"), whole()]
    start = time.monotonic()
    resrt.fetch(NAME)
    assert time.monotonic() - start >= 1


def test_hangs_up_without_an_answer(server: Server) -> None:
    server.answers = [lambda handler: None, lambda handler: None, whole()]
    assert resrt.fetch(NAME).read_bytes() == WEIGHTS


def test_answers_what_is_no_http(server: Server) -> None:
    def nonsense(handler: _Handler) -> None:
        handler.wfile.write(b"\0\1\2\3\r\n\r\n")

    server.answers = [nonsense]
    with pytest.raises(resrt.DownloadError, match="5 times"):
        resrt.fetch(NAME)


@pytest.mark.parametrize(("code", "reason"), [(404, "Not Found"), (403, "Forbidden")])
def test_a_failure_that_lasts_says_what_to_do(
    server: Server, folder: Path, code: int, reason: str
) -> None:
    server.answers = [status(code)]
    with pytest.raises(resrt.DownloadError) as caught:
        resrt.fetch(NAME)
    message = str(caught.value)
    assert f"{code} {reason}" in message
    assert server.url in message
    assert f"Fetch {URL} elsewhere" in message
    assert f"put it at '{folder / FILE}'" in message
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
    assert server.ranges[-1] == f"bytes={HALF}-"  # the redirect keeps the range


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("/dygraph/legendary_models/" + FILE, "in a circle"),
        ("file:///etc/passwd", "no HTTP address"),
        ("ftp://127.0.0.1/weights", "from http to ftp"),
        ("http://[half", "."),
        (None, "no HTTP address"),
    ],
)
def test_redirects_that_are_not_followed(
    server: Server, location: str | None, message: str
) -> None:
    server.answers = [status(302, Location=location)]
    with pytest.raises(resrt.DownloadError, match=message):
        resrt.fetch(NAME)
    assert len(server.requests) <= 4


@pytest.mark.skipif(not shutil.which("openssl"), reason="makes a certificate with openssl")
def test_https_stays_https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


# --- Without a network ---


@pytest.mark.parametrize("variable", ["RESRT_OFFLINE", "HF_HUB_OFFLINE", None])
def test_offline_says_what_to_fetch_and_where_to_put_it(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    if variable:
        monkeypatch.setenv(variable, "1")
    with pytest.raises(resrt.DownloadError, match=f"Fetch https://.*put it at '{folder / FILE}'"):
        resrt.fetch(NAME, offline=variable is None)
    assert server.requests == []
    assert not folder.exists()
    monkeypatch.setenv("RESRT_OFFLINE", "0")
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    assert resrt.fetch(NAME).exists()


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr("socket.create_connection", unreachable)
    with pytest.raises(resrt.DownloadError, match="Network is unreachable. Fetch https://"):
        resrt.fetch(NAME)


def test_no_such_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESRT_MIRROR", "http://no-such-host.invalid")
    with pytest.raises(resrt.DownloadError, match="no-such-host.invalid: .*another mirror"):
        resrt.fetch(NAME)


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    server.server_close()
    monkeypatch.setenv("RESRT_MIRROR", server.url)
    with pytest.raises(resrt.DownloadError, match="Connection refused, 5 times"):
        resrt.fetch(NAME)


# --- Mirrors ---


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_folder_as_a_mirror(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    file = tmp_path / "mirror/dygraph/legendary_models" / FILE
    monkeypatch.setenv("RESRT_MIRROR", f"{prefix}{tmp_path / 'mirror'}")
    with pytest.raises(resrt.DownloadError, match=f"the mirror has no file '{file}'"):
        resrt.fetch(NAME)
    file.parent.mkdir(parents=True)
    file.write_bytes(WEIGHTS)
    assert resrt.fetch(NAME, offline=True) == file  # in its place, with its checksum in the cache
    file.write_bytes(OTHER)
    with pytest.raises(resrt.DownloadError, match="SHA-256"):
        resrt.fetch(NAME)


@pytest.mark.parametrize("mirror", ["ftp://127.0.0.1/", "s3://bucket"])
def test_a_mirror_of_another_kind(monkeypatch: pytest.MonkeyPatch, mirror: str) -> None:
    monkeypatch.setenv("RESRT_MIRROR", mirror)
    with pytest.raises(resrt.InputError, match=mirror):
        resrt.fetch(NAME)


def test_a_mirror_below_a_path(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESRT_MIRROR", f"{server.url}/models/")
    resrt.fetch(NAME)
    assert server.requests[0][0] == f"/models/dygraph/legendary_models/{FILE}"


# --- The cache ---


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    end = f"{NAME}/{FILE}'"
    with pytest.raises(resrt.DownloadError, match=f"{tmp_path}/cache/{end}"):
        resrt.fetch(NAME, offline=True)
    with pytest.raises(resrt.DownloadError, match=f"{tmp_path}/mine/{end}"):
        resrt.fetch(NAME, offline=True, cache=tmp_path / "mine")
    monkeypatch.delenv("RESRT_CACHE")
    with pytest.raises(resrt.DownloadError, match=f"{tmp_path}/xdg/resrt/{end}"):
        resrt.fetch(NAME, offline=True)
    monkeypatch.delenv("XDG_CACHE_HOME")
    with pytest.raises(resrt.DownloadError, match=f"{tmp_path}/home/.cache/resrt/{end}"):
        resrt.fetch(NAME, offline=True)


def test_a_cache_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(resrt.FileError, match="cannot write .*file.*RESRT_CACHE"):
        resrt.fetch(NAME, cache=tmp_path / "file")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk(server: Server, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / f"{FILE}.part").symlink_to("/dev/full")
    with pytest.raises(resrt.FileError, match="No space left on device"):
        resrt.fetch(NAME)
    assert len(server.requests) == 1


def test_a_system_that_takes_less_than_it_is_given(tmp_path: Path) -> None:
    class Reluctant(io.FileIO):
        def write(self, data: Any, /) -> int:
            return super().write(data[:1000])

    with Reluctant(tmp_path / "file", "w") as file:
        download._write(file, WEIGHTS)
    assert (tmp_path / "file").read_bytes() == WEIGHTS


def test_a_disk_that_is_too_full(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(folder.anchor)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(resrt.FileError, match=rf"1,000 bytes free, and {len(WEIGHTS):,} are to"):
        resrt.fetch(NAME)


def test_leftovers_that_make_no_sense_are_not_gone_on_with(server: Server, folder: Path) -> None:
    folder.mkdir(parents=True)
    for state in ("", "[]", "{", '{"url": 1}', json.dumps({"url": "x", "validator": ETAG})):
        (folder / f"{FILE}.part").write_bytes(b"?" * 1000)
        (folder / f"{FILE}.part.json").write_text(state)
        path = resrt.fetch(NAME)
        assert path.read_bytes() == WEIGHTS
        path.unlink()
    assert set(server.ranges) == {None}


def _start_fetching() -> subprocess.Popen[str]:
    code = f"import resrt; print(resrt.fetch({NAME!r}))"
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_two_processes_fetch_once(server: Server, folder: Path) -> None:
    is_waiting = threading.Event()

    def slowly(handler: _Handler) -> None:
        is_waiting.wait(1)  # let the other process come to the lock
        whole()(handler)

    server.answers = [slowly]
    processes = [_start_fetching(), _start_fetching()]
    assert [process.communicate()[0].strip() for process in processes] == [str(folder / FILE)] * 2
    assert len(server.requests) == 1


def test_threads_fetch_once(server: Server) -> None:
    threads = [threading.Thread(target=resrt.fetch, args=(NAME,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1


def test_a_process_that_is_killed_leaves_what_the_next_goes_on_with(
    server: Server, folder: Path
) -> None:
    server.answers = [stall(), ranged()]
    process = _start_fetching()
    part = folder / f"{FILE}.part"
    while not part.exists() or part.stat().st_size < HALF:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert resrt.fetch(NAME).read_bytes() == WEIGHTS
    assert server.ranges == [None, f"bytes={HALF}-"]
    assert left_in(folder) == {FILE, f"{FILE}.sha256"}


def test_killed_after_the_last_byte(server: Server, folder: Path) -> None:
    part = folder / f"{FILE}.part"
    folder.mkdir(parents=True)
    download.download(f"{server.url}/dygraph/legendary_models/{FILE}", part)
    assert part.read_bytes() == WEIGHTS
    assert resrt.fetch(NAME).read_bytes() == WEIGHTS
    assert len(server.requests) == 1


def test_progress_is_a_line_on_a_terminal(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    class Terminal:
        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> None:
            written.append(text)

        def flush(self) -> None:
            pass

    monkeypatch.setattr(sys, "stderr", Terminal())
    resrt.fetch(NAME)
    assert "".join(written).endswith(f"\r{FILE}: 0.3 of 0.3 MB\n")


# --- The Hugging Face hub ---


def test_the_hub_without_its_library(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(resrt.PackageError, match=r"pip install 'resrt\[hub\]'") as caught:
        resrt.fetch("resnet18")
    path = folder.parent / "resnet18.a1_in1k/model.safetensors"
    assert f"put it at '{path}'" in str(caught.value)
    # As the message says.
    path.parent.mkdir(parents=True)
    path.write_bytes(WEIGHTS)
    assert resrt.fetch("resnet18") == path


def test_the_hub(server: Server, tmp_path: Path) -> None:
    """In a process of its own: huggingface_hub reads its environment when it is imported."""
    pytest.importorskip("huggingface_hub")
    commit = {"X_Repo_Commit": "0" * 40, "Accept_Ranges": "bytes"}
    server.answers = [whole(etag=f'"{hashlib.sha256(WEIGHTS).hexdigest()}"', **commit)]
    code = """if True:
        import os, resrt
        path = resrt.fetch("resnet18")
        assert resrt.fetch("resnet18", offline=True) == path
        print(path)
        try:
            resrt.fetch("resnet34", offline=True)
        except resrt.DownloadError as error:
            print(error)
    """
    environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hub")}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    path, error = run.stdout.splitlines()
    assert Path(path).read_bytes() == WEIGHTS
    assert (tmp_path / "cache/resnet18.a1_in1k/model.safetensors.sha256").exists()
    requested = "/timm/resnet18.a1_in1k/resolve/main/model.safetensors"
    assert requested in [path for path, _ in server.requests]
    assert "cannot fetch the weights resnet34.a1_in1k" in error


# --- Building ---


def test_builds_by_name_alone(server: Server) -> None:
    name = "RegNetX_200MF"  # the smallest
    graph = resrt.build_graph(name, input_size=64)
    weights = _core.random_weights(graph, 3)
    server.answers = [whole(save({key: np.asarray(value) for key, value in weights.items()}))]
    options: dict[str, Any] = {"input_size": 64, "max_batch": 1, "precision": "fp32"}
    engine = resrt.build(name, **options)
    assert engine.info.weights == name
    assert engine.info.preprocessing.resize == round(64 * 256 / 224)
    batch = np.random.default_rng(0).standard_normal((1, 3, 64, 64), np.float32)
    same = resrt.build(name, weights, **options)
    np.testing.assert_array_equal(engine.infer(batch), same.infer(batch))


def test_a_file_is_read_for_its_checksum_once(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = resrt.build_graph("RegNetX_200MF")
    server.answers = [whole(save(_core.random_weights(graph, 3)))]
    file = resrt.fetch("RegNetX_200MF")
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return files.sha256(path)

    for module in (pretrained, network):
        monkeypatch.setattr(module, "sha256", counted)
    for weights in (None, file):
        for from_cache in (False, True):
            built = resrt.build_file(
                "RegNetX_200MF", tmp_path / "x.engine", weights, input_size=32, max_batch=1
            )
            assert built.from_cache is from_cache
            assert built.info.weights_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
            assert read == [file]
            read.clear()


def test_a_wish_that_no_weights_grant_downloads_nothing(server: Server, tmp_path: Path) -> None:
    with pytest.raises(resrt.InputError, match="have 1000 classes"):
        resrt.build_file("RegNetX_200MF", tmp_path / "x.engine", classes=7)
    assert not server.requests


def test_preprocessing_is_that_of_the_named_weights() -> None:
    options: dict[str, Any] = {"max_batch": 1, "precision": "fp32"}
    info = resrt.build("regnetx_002.pycls_in1k", "random", **options).info
    assert info.model == "regnetx_002"
    assert (info.preprocessing.resize, info.preprocessing.interpolation) == (256, "bicubic")
    grey = resrt.build("regnetx_002", "random", in_channels=1, classes=7, **options).info
    assert grey.preprocessing.mean == pytest.approx([0.449])


def test_building_what_has_no_pretrained_weights(small_graph: resrt.Graph) -> None:
    with pytest.raises(resrt.InputError, match="a network of your own"):
        resrt.build(small_graph)
    with pytest.raises(resrt.InputError, match="1000 classes and 3 input channels, not 7 and 3"):
        resrt.build("ResNet18", classes=7)
    with pytest.raises(resrt.WeightsError, match="no pretrained weights for resnet18c"):
        resrt.build("resnet18c")
    with pytest.raises(resrt.ModelError, match="resnet18"):
        resrt.build("resnet19")
