"""resrt: the engine."""

from __future__ import annotations

from resrt.competitors import ENGINE, Batch, Ready, Task
from resrt.engine import load


def prepare(task: Task, name: str) -> Ready:
    """Load the engine that was built and saved."""
    engine = load(task.folder / ENGINE, threads=task.threads)
    images = task.images()
    logits: Batch

    def run() -> None:
        nonlocal logits
        logits = engine.infer(images)

    return Ready(
        version=f"with {engine.info.backend} {engine.info.backend_version}",
        precision=engine.info.precision,
        settings=f"max_batch={engine.info.max_batch}",
        run=run,
        logits=lambda: logits,
    )
