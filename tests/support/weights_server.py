"""An HTTP server with a weights file, for tests of downloads. It can misbehave in many ways."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from safetensors.numpy import save

NAME = "ResNet18"  # the network whose weights most tests download
FILE = "ResNet18_pretrained.pdparams"
URL = f"https://paddle-imagenet-models-name.bj.bcebos.com/dygraph/legendary_models/{FILE}"
WEIGHTS = save({"w": np.arange(75_000, dtype=np.float32)})
HALF = len(WEIGHTS) // 2
OTHER = save({"w": -np.arange(75_000, dtype=np.float32)})
ETAG = '"first"'

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
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
    """Answers each request with the next of `answers`, and repeats the last of them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answer] = [whole()]
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for _, headers in self.requests]

    def handle_error(self, *_: object) -> None:
        pass  # some tests close the connection


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
    """Send the whole file, like a server without support for ranges."""
    headers = {"Content_Length": len(content), "ETag": etag, **headers}
    return lambda handler: handler.send(200, content, **headers)


def cut(size: int = HALF, content: bytes = WEIGHTS, **headers: object) -> Answer:
    """Send the beginning of the file, then close the connection."""
    headers = {"Content_Length": len(content), "ETag": ETAG, **headers}
    return lambda handler: handler.send(200, content[:size], **headers)


def stall(size: int = HALF) -> Answer:
    """Send the beginning of the file, then nothing."""

    def answer(handler: Handler) -> None:
        handler.send(200, WEIGHTS[:size], Content_Length=len(WEIGHTS), ETag=ETAG)
        handler.server.closing.wait(10)

    return answer


def ranged(
    content: bytes = WEIGHTS, etag: str | None = ETAG, knows_if_range: bool = True
) -> Answer:
    """Send the requested range, like a server with support for ranges."""

    def answer(handler: Handler) -> None:
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


def left_in(folder: Path) -> set[str]:
    """Return the files in a folder of the cache, without the lock."""
    return {path.name for path in folder.iterdir()} - {f"{FILE}.lock"}
