"""resrt: the engine."""

from __future__ import annotations

import resrt
from resrt.engine.engine import load
from resrt.operations.compare.competitors import ENGINE, Batch, Ready, Task


def prepare(task: Task, name: str) -> Ready:
    """Load the engine that was built and saved."""
    engine = load(task.folder / ENGINE, threads=task.threads)
    images = task.images()
    logits: Batch = engine.infer(images)

    def run() -> None:
        nonlocal logits
        logits = engine.infer(images)

    return Ready(
        version=resrt.__version__,
        precision=engine.info.precision,
        settings=f"{engine.info.backend} {engine.info.backend_version}",
        run=run,
        logits=lambda: logits,
    )
