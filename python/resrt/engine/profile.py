"""`Engine.profile`: the time of each layer, by the backend's own counters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from resrt import _core
from resrt._support.arguments import whole


@dataclass(frozen=True)
class Step:
    """A step of an inference, as the backend counts them.

    Attributes:
        name: the backend's name of the step.
        type: the backend's name of its type, such as "Convolution".
        layers: the network's layers that it computes, wholly or in part. Empty for steps of the
            backend's own, such as a conversion of the memory layout.
        kind: the definition of these layers, such as "Conv2d", or the type in parentheses if there
            are none.
        ms: milliseconds per batch, the mean over the inferences.
    """

    name: str
    type: str
    layers: tuple[str, ...]
    kind: str
    ms: float


@dataclass(frozen=True)
class LayerTime:
    """The time of a layer, or of all layers of a kind.

    Attributes:
        name: the layer. If the backend computes several in one step, their names, joined by "+".
            For a kind, the kind.
        kind: as in `resrt.Step`.
        steps: the number of the backend's steps.
        ms: milliseconds per batch.
        share: the share of the time of all steps, from 0 to 1.
    """

    name: str
    kind: str
    steps: int
    ms: float
    share: float


@dataclass(frozen=True)
class Profile:
    """The time of each layer, from `Engine.profile` or `resrt.time`.

    Attributes:
        batch: images per inference.
        repeats: the number of inferences.
        steps: the backend's steps in the order of execution.
    """

    batch: int
    repeats: int
    steps: list[Step]

    @property
    def total_ms(self) -> float:
        """The time of all steps in milliseconds per batch."""
        return sum(step.ms for step in self.steps)

    @property
    def layers(self) -> list[LayerTime]:
        """The time of each layer, in the order of execution; the backend's own steps by type."""
        return self._sums(lambda step: " + ".join(step.layers) or step.kind)

    @property
    def kinds(self) -> list[LayerTime]:
        """The time of all layers of each kind, the longest first."""
        return sorted(self._sums(lambda step: step.kind), key=lambda kind: -kind.ms)

    def document(self) -> dict[str, Any]:
        """Return everything, including the sums, as a document for JSON."""
        document = dataclasses.asdict(self)
        document["total_ms"] = self.total_ms
        for name in ("layers", "kinds"):
            document[name] = [dataclasses.asdict(part) for part in getattr(self, name)]
        return document

    def _sums(self, name_of: Callable[[Step], str]) -> list[LayerTime]:
        groups: dict[str, list[Step]] = {}
        for step in self.steps:
            groups.setdefault(name_of(step), []).append(step)
        total = self.total_ms

        def summed(name: str, steps: list[Step]) -> LayerTime:
            ms = sum(step.ms for step in steps)
            return LayerTime(name, steps[0].kind, len(steps), ms, ms / total if total else 0.0)

        return [summed(name, steps) for name, steps in groups.items()]


def profile_engine(engine: _core.Engine, batch: int, repeats: int) -> Profile:
    """Return the profile of an engine; see `Engine.profile`."""
    shape = (whole("batch", batch), *engine.info.input_shape)
    images = np.random.default_rng(0).standard_normal(shape, np.float32)
    kinds = _kinds(engine.info)

    def kind(layers: list[str], type_: str) -> str:
        # Each kind once, in the order of the layers. A pass adds the roundings of 8-bit networks.
        found = dict.fromkeys(kinds.get(layer, "Quantize") for layer in layers)
        return " + ".join(found) or f"({type_})"

    steps = [
        Step(step.name, step.type, tuple(step.layers), kind(step.layers, step.type), step.ms)
        for step in engine.profile(images, whole("repeats", repeats))
    ]
    return Profile(batch, repeats, steps)


def _kinds(info: _core.EngineInfo) -> dict[str, str]:
    """Return the definition of each layer by its name, from the engine's table of layers."""
    heading, *rows, _ = info.layers.encode().splitlines()  # its columns are aligned in bytes
    start = heading.index(b"definition")
    return {row[:start].decode().rstrip(): row[start:].decode().partition("(")[0] for row in rows}
