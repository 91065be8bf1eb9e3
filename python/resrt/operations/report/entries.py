"""What a report measures: networks of the catalog, and engine files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path

from resrt._core import EngineInfo
from resrt.catalog.models import ModelInfo, Published, published_for
from resrt.engine.engine import Engine, load
from resrt.errors import InputError
from resrt.operations.records import made_by

# The last line of an engine's table of layers.
_COST = re.compile(r"([\d.]+) M parameters, ([\d.]+) GFLOPs")


@dataclass(frozen=True)
class EngineFile:
    """The engine file of an entry, as it was when the measurement began.

    `sha256` is the hash of everything that its results depend on, `backend` the library with its
    version, and `weights` where its weights came from.
    """

    path: str
    sha256: str
    backend: str
    weights: str


@dataclass(frozen=True)
class Entry:
    """A row of the report: a network of the catalog with random weights, or an engine file.

    Attributes:
        name: its name on the page, which no other entry has. That of the catalog, or of the file.
        network: the name of its network.
        precisions: the precisions to measure it in; an engine has one.
        input_size: the height and width of its input in pixels.
        parameters: the number of trainable parameters; None if the engine file does not say.
        gflops: twice the multiply-adds of one image, in billions; None likewise.
        engine: the engine file; None for a network of the catalog.
    """

    name: str
    network: str
    precisions: tuple[str, ...]
    input_size: tuple[int, ...]
    parameters: int | None
    gflops: float | None
    engine: EngineFile | None = None

    @property
    def published(self) -> Published | None:
        """The published figures of a network of the catalog, which do not apply to an engine."""
        return published_for(self.network) if self.engine is None else None


def of_network(network: ModelInfo, precisions: Sequence[str]) -> Entry:
    """Return the entry of a network of the catalog."""
    return Entry(
        name=network.name,
        network=network.name,
        precisions=tuple(precisions),
        input_size=(network.input_size, network.input_size),
        parameters=network.parameters,
        gflops=network.gflops,
    )


def of_files(files: Sequence[str | PathLike[str]], taken: Sequence[str]) -> list[Entry]:
    """Return the entries of engine files, each once, after loading each to see that it runs here.

    A file has its own name, unless another entry, or one of `taken`, has the same.

    Raises what `resrt.load` raises.
    """
    paths = list(dict.fromkeys(Path(file).absolute() for file in files))
    names = [path.name for path in paths]
    return [
        of_file(path, path.name if names.count(path.name) == 1 and path.name not in taken else None)
        for path in paths
    ]


def of_file(path: Path, name: str | None = None) -> Entry:
    """Return the entry of an engine file; without a name, its path is its name."""
    engine = load(path, warm_up=False)
    info = engine.info
    parameters, gflops = _cost(info)
    return Entry(
        name=_visible(name or fspath(path)),
        network=info.model,
        precisions=(info.precision,),
        input_size=info.input_shape[1:],
        parameters=parameters,
        gflops=gflops,
        engine=EngineFile(
            path=fspath(path),
            sha256=fingerprint(engine),
            backend=f"{info.backend} {info.backend_version}",
            weights=_visible(info.weights),
        ),
    )


def load_file(entry: Entry, *, threads: int | None = None, optimize_for: str = "latency") -> Engine:
    """Load the engine file of an entry.

    Raises what `resrt.load` raises, and InputError if the file is not the one that was measured
    before.
    """
    assert entry.engine is not None
    engine = load(entry.engine.path, threads=threads, optimize_for=optimize_for)
    if fingerprint(engine) != entry.engine.sha256:
        raise InputError(
            f"the engine file '{entry.engine.path}' has changed since its measurement began; "
            "start a new measurement"
        )
    return engine


def fingerprint(engine: Engine) -> str:
    """Return the hash of everything that an engine's latency and accuracy depend on."""
    made = {**made_by(engine), "max_batch": engine.info.max_batch}
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()


def _cost(info: EngineInfo) -> tuple[int | None, float | None]:
    """Return the parameters, rounded to ten thousand, and GFLOPs of an engine's network."""
    found = _COST.search(info.layers)
    return (round(float(found[1]) * 1e6), float(found[2])) if found else (None, None)


def _visible(name: str) -> str:
    """Return a file's name with everything escaped that a page cannot show."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
