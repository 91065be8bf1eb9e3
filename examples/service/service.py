"""A web service that classifies photographs, and a page to try it.

    pip install fastapi uvicorn
    python examples/service/service.py resnet50.engine
    curl --data-binary @cat.jpg http://localhost:8000/classify

Photographs that arrive while the engine computes are collected and inferred as one batch.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse

import resrt

LARGEST_UPLOAD = 20_000_000  # bytes


class Batches:
    """Infers images together that arrive at about the same time."""

    def __init__(self, engine: resrt.Engine) -> None:
        self.engine = engine
        self.waiting: asyncio.Queue[tuple[np.ndarray, asyncio.Future[np.ndarray]]]
        self.waiting = asyncio.Queue(maxsize=16 * engine.info.max_batch)

    async def infer(self, image: np.ndarray) -> np.ndarray:
        """Return the logits of a preprocessed image."""
        logits: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        await self.waiting.put((image, logits))
        return await logits

    async def run(self) -> None:
        """Infer whatever is waiting, up to max_batch images at a time, for ever."""
        while True:
            batch = [await self.waiting.get()]
            while not self.waiting.empty() and len(batch) < self.engine.info.max_batch:
                batch.append(self.waiting.get_nowait())
            images, results = zip(*batch, strict=True)
            try:
                logits = await asyncio.to_thread(self.engine.infer, np.stack(images))
            except Exception as error:  # each request reports it
                logits = [error] * len(results)
            for result, found in zip(results, logits, strict=True):
                if result.done():  # the client has gone
                    continue
                if isinstance(found, Exception):
                    result.set_exception(found)
                else:
                    result.set_result(found)


def create_app(engine: resrt.Engine) -> FastAPI:
    """Return the service for an engine."""
    batches = Batches(engine)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(batches.run())
        yield
        task.cancel()

    app = FastAPI(title=f"Classify photographs with {engine.info.model}", lifespan=lifespan)

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(Path(__file__).with_name("page.html"))

    @app.post("/classify")
    async def classify(request: Request, topk: int = 5) -> list[dict[str, Any]]:
        """Return the most probable classes of the image file that is the request's body."""
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > LARGEST_UPLOAD:
                raise HTTPException(413, f"the file has more than {LARGEST_UPLOAD} bytes")
        try:
            image = await asyncio.to_thread(resrt.preprocess, body, engine.info.preprocessing)
        except resrt.InputError as error:
            raise HTTPException(422, str(error)) from None
        logits = await batches.infer(image)
        (classes,) = resrt.images.top_k(logits[None], max(1, topk), engine.info.labels)
        return [{"label": found.label, "probability": found.probability} for found in classes]

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", help="an engine file, from resrt build")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    uvicorn.run(create_app(resrt.load(options.engine)), host=options.host, port=options.port)


if __name__ == "__main__":
    main()
