"""Engine files that were built before, so that the same engine need not be built again.

They are kept beside the pretrained weights, in engines/ of the cache's folder, under a checksum of
all that an engine depends on: network, weights, options, libraries, processor and GPUs. The files
that were not used for longest go first when they come to more than RESRT_CACHE_GB (default 5).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from resrt import _core, diagnosis, machine
from resrt.engine import backends, build_network
from resrt.errors import EngineFileError, FileError, InputError
from resrt.files import cache_folder, replacing
from resrt.network import Model, Network, WeightsLike, resolve

_logger = logging.getLogger("resrt")

# Of the options of `resrt.build`, those that say what the network is.
_OF_NETWORK = ("input_size", "classes", "in_channels", "labels", "preprocessing")


@dataclass(frozen=True)
class BuiltFile:
    """An engine file of `size` bytes, which took `seconds` to build, or to find in the cache."""

    path: str
    size: int
    info: _core.EngineInfo
    seconds: float
    from_cache: bool


def build_file(
    model: Model,
    output: str | PathLike[str],
    weights: WeightsLike | None = None,
    *,
    cache: bool = True,
    **options: Any,
) -> BuiltFile:
    """Build an engine as `resrt.build` does and write its file, or copy it from the cache.

    Args:
        model: as `resrt.build` takes it.
        weights: as `resrt.build` takes them.
        **options: the others of `resrt.build`.
        output: the engine file; it is written whole or not at all.
        cache: whether to look for the same engine among those built before, and to keep this one.

    Raises what `resrt.build` and `Engine.save` raise.
    """
    start = time.perf_counter()
    output = Path(output)
    network = resolve(model, weights, **{name: options.pop(name, None) for name in _OF_NETWORK})
    kept = _kept(network, options) if cache else None
    info = _copied(kept, output) if kept is not None else None
    from_cache = info is not None
    if info is None:
        engine = build_network(network, **options)
        engine.save(output)
        info = engine.info
        if kept is not None:
            _keep(output, kept)
    return BuiltFile(
        str(output), output.stat().st_size, info, time.perf_counter() - start, from_cache
    )


def _kept(network: Network, options: Mapping[str, Any]) -> Path:
    """Return where such an engine is kept if it was built before."""
    here, gpus = machine.describe(libraries=()), diagnosis.gpus()
    depends_on = {
        "resrt": _core.__version__,
        "backends": {backend.name: backend.version for backend in backends()},
        "processor": [here.processor, *here.features],
        "gpus": [gpus.driver, *gpus.models],
        "graph": [network.graph.name, *map(_layer, network.graph.layers)],
        "weights": [network.origin, network.sha256],
        "labels": network.labels,
        "preprocessing": _fields(network.preprocessing),
        "options": {name: repr(options[name]) for name in sorted(options) if name != "progress"},
    }
    key = hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()
    return cache_folder() / "engines" / f"{key}.engine"


def _layer(layer: _core.Layer) -> list[Any]:
    return [layer.name, layer.kind, layer.inputs, _fields(layer.definition)]


def _fields(value: object) -> dict[str, Any]:
    """All that a value of the core says, of which its text leaves out what is usual."""
    fields = [name for name, kind in vars(type(value)).items() if isinstance(kind, property)]
    return {name: getattr(value, name) for name in sorted(fields)}


def _copied(kept: Path, output: Path) -> _core.EngineInfo | None:
    """Copy a kept file, if it is there and sound, and return what it is."""
    try:
        info = _core.inspect(os.fsencode(kept))
    except FileError:
        return None
    except EngineFileError as error:
        _logger.warning("removed from the cache: %s", error)
        kept.unlink(missing_ok=True)
        return None
    with replacing(output) as temporary:
        shutil.copyfile(kept, temporary)
    with contextlib.suppress(OSError):  # it may be somebody else's
        os.utime(kept)  # used just now
    return info


def _keep(output: Path, kept: Path) -> None:
    """Keep a copy. That this fails is no reason to fail: the engine is built."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with replacing(kept) as temporary:
            shutil.copyfile(output, temporary)
        _trim(kept.parent)
    except OSError as error:
        _logger.warning(
            "the engine was built, but not kept in the cache '%s': %s", kept.parent, error
        )


def _trim(folder: Path) -> None:
    """Remove what was not used for longest, where all is more than it may be."""
    room = _most_bytes()
    for file in sorted(folder.glob("*.engine"), key=lambda file: -file.stat().st_mtime):
        room -= file.stat().st_size
        if room < 0:
            file.unlink(missing_ok=True)


def _most_bytes() -> float:
    text = os.environ.get("RESRT_CACHE_GB", "5")
    try:
        return float(text) * 1e9
    except ValueError:
        raise InputError(
            f"RESRT_CACHE_GB must be a number of gigabytes, such as 2.5, not {text!r}"
        ) from None
