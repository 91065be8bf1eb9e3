"""examples/service: the service under load, and its page in a browser."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import playwright.sync_api
import pytest

import resrt
from support import examples
from support.paths import PHOTOS

pytest.importorskip("fastapi", reason="the example requires FastAPI")
uvicorn = pytest.importorskip("uvicorn", reason="the example requires uvicorn")


class SlowEngine:
    """An engine that takes a while, notes the sizes of its batches, and can fail."""

    def __init__(self, engine: resrt.Engine) -> None:
        self.engine, self.info = engine, engine.info
        self.batches: list[int] = []
        self.fails = False

    def infer(self, batch: np.ndarray) -> np.ndarray:
        if self.fails:
            raise resrt.BackendError("the device is lost")
        time.sleep(0.05)
        self.batches.append(len(batch))
        return self.engine.infer(batch)


class Service(NamedTuple):
    engine: SlowEngine
    port: int

    def post(self, body: bytes, query: str = "") -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("POST", f"/classify{query}", body)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        is_json = answer.headers.get_content_type() == "application/json"
        return answer.status, json.loads(content) if is_json else content


@pytest.fixture
def service() -> Iterator[Service]:
    labels = [f"class {number} <b>" for number in range(9)]
    engine = SlowEngine(
        resrt.build(
            resrt.ResNet(depths=[1, 1], width=8), "random", classes=9, labels=labels, input_size=64
        )
    )
    app = examples.module("service/service.py").create_app(engine)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield Service(engine, server.servers[0].sockets[0].getsockname()[1])
    server.should_exit = True
    thread.join(timeout=30)
    assert not thread.is_alive()


def test_concurrent_requests_are_batched(service: Service) -> None:
    photos = [path.read_bytes() for path in sorted(PHOTOS.glob("*.jpg"))] * 12
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(service.post, photos))
    expected = service.engine.engine.classify(photos)
    for (status, found), row in zip(answers, expected, strict=True):
        assert status == 200
        assert [one["label"] for one in found] == [one.label for one in row]
        assert [one["probability"] for one in found] == pytest.approx(
            [one.probability for one in row], abs=1e-3
        )
    assert sum(service.engine.batches) == len(photos)
    assert 2 <= max(service.engine.batches) <= service.engine.info.max_batch


def test_a_bad_file_does_not_harm_others(service: Service) -> None:
    photo = (PHOTOS / "china.jpg").read_bytes()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(service.post, [photo, b"not an image", photo[:5000], photo]))
    assert [status for status, _ in answers] == [200, 422, 422, 200]
    assert "not an image in a supported format" in answers[1][1]["detail"]
    status, answer = service.post(b"x" * 20_000_001)
    assert (status, answer["detail"]) == (413, "the file has more than 20000000 bytes")
    assert len(service.post(photo, "?topk=2")[1]) == 2


def test_the_service_survives_an_engine_that_fails(service: Service) -> None:
    photo = (PHOTOS / "china.jpg").read_bytes()
    service.engine.fails = True
    assert service.post(photo)[0] == 500
    service.engine.fails = False
    assert service.post(photo)[0] == 200


@pytest.fixture
def browser() -> Iterator[playwright.sync_api.Browser]:
    if shutil.which("chromium") is None:
        pytest.skip("this test requires Chromium")
    with playwright.sync_api.sync_playwright() as player:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        opened = player.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        yield opened
        opened.close()


def drop(page: playwright.sync_api.Page, content: bytes, name: str) -> None:
    """Drop a file on the page, as from a folder's window."""
    transfer = page.evaluate_handle(
        """([content, name]) => {
            const bytes = Uint8Array.from(atob(content), c => c.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name));
            return transfer;
        }""",
        [base64.b64encode(content).decode(), name],
    )
    page.dispatch_event("label", "dragover", {"dataTransfer": transfer})
    page.dispatch_event("label", "drop", {"dataTransfer": transfer})


def test_a_dropped_photograph_is_classified(
    service: Service, browser: playwright.sync_api.Browser
) -> None:
    page = browser.new_page(viewport={"width": 360, "height": 640})
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(f"http://127.0.0.1:{service.port}/")
    drop(page, (PHOTOS / "china.jpg").read_bytes(), "china.jpg")
    page.wait_for_selector("tbody tr")
    (expected,) = service.engine.engine.classify(PHOTOS / "china.jpg")
    shown = page.locator("tbody tr").all_inner_texts()
    assert len(shown) == 5
    for row, one in zip(shown, expected, strict=True):
        assert one.label in row  # as text, although it looks like HTML
        assert float(row.split()[-2]) == pytest.approx(100 * one.probability, abs=0.2)
    assert page.evaluate("document.querySelector('img').naturalWidth") == 640
    assert page.evaluate("document.documentElement.scrollWidth") <= 360

    drop(page, b"not an image", "text.jpg")
    page.wait_for_function("document.querySelector('[role=status]').textContent.includes('not an')")
    assert page.locator("tbody tr:visible").count() == 0

    page.set_input_files("input", PHOTOS / "flower.jpg")
    page.wait_for_selector("tbody tr:visible")
    (expected,) = service.engine.engine.classify(PHOTOS / "flower.jpg")
    assert expected[0].label in page.locator("tbody tr").first.inner_text()
    assert problems == []


def test_the_page_reports_a_service_that_is_gone(
    service: Service, browser: playwright.sync_api.Browser
) -> None:
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{service.port}/")
    page.route("**/classify", lambda route: route.abort())
    drop(page, (PHOTOS / "china.jpg").read_bytes(), "china.jpg")
    page.wait_for_function(
        "document.querySelector('[role=status]').textContent.includes('did not answer')"
    )
