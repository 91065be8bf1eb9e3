"""A cache of engine files, so that the same engine need not be built twice.

The files are in engines/ of the cache folder, next to the pretrained weights. Each name is a
checksum of everything that the engine depends on: network, weights, options, libraries, processor
and GPUs. When they exceed RESRT_CACHE_GB (default 5), the least recently used are removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from resrt import _core
from resrt._support.environment import cache_folder, cache_limit
from resrt._support.files import TEMPORARY_SUFFIX, is_regular, replacing
from resrt.engine.backends import backends
from resrt.engine.engine import Engine
from resrt.engine.network import Network
from resrt.errors import EngineFileError
from resrt.system import gpus, machine
from resrt.weights.metadata import fields

_logger = logging.getLogger("resrt")

# A file that was being written this long ago was abandoned.
_ABANDONED_S = 3600.0
_CHUNK = 1 << 20


class CachedEngine:
    """The place in the cache of an engine of this network, built with these options."""

    def __init__(self, network: Network, options: Mapping[str, Any]) -> None:
        self._network = network
        self._options = options
        self._limit = cache_limit()
        self.key = _key(network, options)

    def copy_to(self, output: Path) -> _core.EngineInfo | None:
        """Copy the cached file to `output` and return its description; None if it is missing.

        A file that is damaged, or that is not the engine that its name says, is removed. Raises
        FileError if `output` cannot be written.
        """
        try:
            file = self._file()
            if not is_regular(file):  # it might be a pipe, which would wait
                return None
            cached = file.open("rb")
        except OSError:
            return None
        temporary = file
        try:
            with cached:
                _check_whole(file)
                with replacing(output) as temporary:
                    with temporary.open("wb") as copy:
                        for chunk in _chunks(cached):
                            copy.write(chunk)
                    # What is checked is the copy, which nobody else can replace.
                    info = _core.inspect(os.fsencode(temporary))
                    self._check(info)
        except EngineFileError as error:
            reason = str(error).replace(str(temporary), str(file))
            _logger.warning("removed '%s' from the engine cache: %s", file, reason)
            with contextlib.suppress(OSError):  # the next build is saved in its place
                file.unlink()
            return None
        with contextlib.suppress(OSError):  # it may belong to another user
            os.utime(file)  # now the most recently used
        return info

    def keep(self, engine: Engine) -> None:
        """Add an engine to the cache. A failure is logged only: the engine itself was built."""
        try:
            file = self._file()
            file.parent.mkdir(parents=True, exist_ok=True)
            if not is_regular(file) and os.path.lexists(file):
                file.unlink()  # a link, or whatever else is no engine file
            engine.save(file)
            _trim(file.parent, self._limit)
        except OSError as error:
            reason = str(error)
            if error.strerror is not None:  # of the system, and not a FileError
                reason = f"cannot write '{error.filename}': {error.strerror}"
            _logger.warning("the engine was built but could not be cached: %s", reason)

    def _file(self) -> Path:
        """Return the path of the file. Raises FileError if there is no folder for the cache."""
        return cache_folder() / "engines" / f"{self.key}.engine"

    def _check(self, info: _core.EngineInfo) -> None:
        """Raise EngineFileError unless it is an engine of the network."""
        network, graph, options = self._network, self._network.graph, self._options
        precision = options.get("precision", "auto")
        for what, found, expected in (
            ("network", info.model, graph.name),
            ("layers", info.layers, str(graph)),
            ("outputs", list(info.outputs), [name for name, _ in graph.outputs]),
            ("weights", info.weights_sha256, network.sha256),
            ("labels", info.labels, network.metadata.labels or []),
            ("preprocessing", fields(info.preprocessing), fields(network.preprocessing)),
            ("source", info.preprocessing_source, network.metadata.preprocessing_source),
            ("backend", info.backend, options.get("backend", info.backend)),
            ("max_batch", info.max_batch, options.get("max_batch", info.max_batch)),
            ("precision", info.precision, info.precision if precision == "auto" else precision),
            ("options", info.build_key, self.key),
        ):
            if found != expected:
                raise EngineFileError(f"it is not the requested engine (mismatch in {what})")


def _key(network: Network, options: Mapping[str, Any]) -> str:
    here, found = machine.describe(libraries=()), gpus.find()
    depends_on = {
        "resrt": _core.__version__,
        "backends": {backend.name: backend.version for backend in backends()},
        "processor": [here.processor, *here.features],
        "gpus": [found.driver, *found.models],
        "graph": [network.graph.name, *map(_layer, network.graph.layers)],
        "outputs": network.graph.outputs,
        "weights": [network.metadata.origin, network.sha256],
        "labels": network.metadata.labels,
        "preprocessing": fields(network.preprocessing),
        "preprocessing_source": network.metadata.preprocessing_source,
        "options": {name: repr(options[name]) for name in sorted(options) if name != "progress"},
    }
    return hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()


def _layer(layer: _core.Layer) -> list[Any]:
    return [layer.name, layer.kind, layer.inputs, _fields(layer.definition)]


def _fields(value: object) -> dict[str, Any]:
    """Return all fields of one of the core's structs; its repr omits those with default values."""
    fields = [name for name, kind in vars(type(value)).items() if isinstance(kind, property)]
    return {name: getattr(value, name) for name in sorted(fields)}


def _trim(folder: Path, room: float) -> None:
    """Remove the least recently used engines beyond the size limit, and abandoned files."""
    found = []
    for file in folder.glob("*.engine"):
        with contextlib.suppress(OSError):  # another process may have removed it
            status = file.lstat()
            found.append((status.st_mtime, status.st_size, file))
    for _, size, file in sorted(found, reverse=True):
        room -= size
        if room < 0:
            with contextlib.suppress(OSError):
                file.unlink()
    for file in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        with contextlib.suppress(OSError):
            if time.time() - file.stat().st_mtime > _ABANDONED_S:
                file.unlink()


def _check_whole(file: Path) -> None:
    """Raise EngineFileError for a damaged file. One of a wrong size could fill a disk."""
    try:
        _core.inspect(os.fsencode(file))
    except OSError as error:
        raise EngineFileError(f"it cannot be read: {error}") from None


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    """Yield the content of a file of the cache. Raises EngineFileError if it cannot be read."""
    try:
        while chunk := file.read(_CHUNK):
            yield chunk
    except OSError as error:
        raise EngineFileError(f"it cannot be read: {error.strerror}") from None
