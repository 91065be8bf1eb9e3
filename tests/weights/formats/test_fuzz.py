"""A short run of the fuzz targets in tests/fuzz/, with the same mutations from fixed seeds."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from random import Random

import pytest

from targets import TARGETS

MUTANTS = 150  # of each file; after the first third, each is a mutation of the one before


@pytest.fixture(autouse=True)
def trace_memory() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.parametrize("name", TARGETS)
def test_mutants(name: str) -> None:
    target = TARGETS[name]
    assert len(target.corpus()) >= 2
    for path in target.corpus():
        random = Random(path.name)
        whole = mutant = path.read_bytes()
        assert target.reader.recognises(memoryview(whole))
        target.check(whole)
        for count in range(MUTANTS):
            mutant = target.mutate(whole if count < MUTANTS // 3 else mutant, random)[:16384]
            if not target.reader.recognises(memoryview(mutant)):
                mutant = whole  # further mutations would not be recognised either
            target.check(mutant)
