"""The ranges of a network's tensors, which an engine with 8-bit integers is built from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike, fsdecode
from pathlib import Path
from typing import Any, TypeAlias

from resrt import _core
from resrt._support.files import read_text, writing_whole
from resrt.engine.network import Network
from resrt.errors import FileError, InputError
from resrt.weights.fit import Weights

_VERSION = 1


@dataclass(frozen=True)
class Calibration:
    """The range of each tensor of a network that is rounded to 8 bits.

    It depends on the network and its weights only, so it serves every backend and device.

    Attributes:
        network: the network's name.
        weights: where its weights came from.
        weights_sha256: the checksum of the weights; empty for random ones.
        images: the number of images on which the ranges were measured.
        method: the estimator of the ranges, one of `resrt.CALIBRATION_METHODS`.
        ranges: the lowest and the highest value of each tensor, by the name of the layer that
            returns it. A convolution includes its batch normalisation.
        keep: the convolutions that stay in floating point, and the additions whose inputs do.
        skipped: the number of images that could not be read, when it was measured.
    """

    network: str
    weights: str
    weights_sha256: str
    images: int
    method: str
    ranges: Mapping[str, tuple[float, float]]
    keep: frozenset[str] = frozenset()
    skipped: int = field(default=0, compare=False)

    def save(self, file: str | PathLike[str]) -> None:
        """Write the calibration as JSON. The file is written completely or not at all.

        Raises FileError if it cannot be written.
        """
        head = {
            "format": f"resrt calibration {_VERSION}",
            "network": self.network,
            "weights": self.weights,
            "weights_sha256": self.weights_sha256,
            "images": self.images,
            "method": self.method,
            "keep": sorted(self.keep),
        }
        # One line for each tensor, for people to read and edit.
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
        ranges = [f"    {json.dumps(n)}: {json.dumps(list(r))}" for n, r in self.ranges.items()]
        text = "\n".join(["{", *lines, '  "ranges": {', ",\n".join(ranges), "  }", "}", ""])
        with writing_whole(Path(fsdecode(file))) as output:
            output.write(text)

    @staticmethod
    def load(file: str | PathLike[str]) -> Calibration:
        """Read a file that `Calibration.save` wrote, and that may have been edited.

        Raises FileError if it cannot be read, and InputError if it is not such a file.
        """
        name = fsdecode(file)
        try:
            document = json.loads(read_text(name))
        except OSError as error:
            raise FileError(f"cannot read the calibration '{name}': {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"'{name}' is not a calibration: {error}; {_ADVICE}") from None
        try:
            return _from_document(document)
        except _Invalid as error:
            raise InputError(f"'{name}' is not a valid calibration: {error}; {_ADVICE}") from None

    def to_core(self) -> _core.Calibration:
        """Return the calibration as the core reads it."""
        return _core.Calibration(
            network=self.network,
            weights_sha256=self.weights_sha256,
            ranges=dict(self.ranges),
            keep=set(self.keep),
        )


# What the public functions accept as a calibration.
CalibrationLike: TypeAlias = Calibration | str | PathLike[str]

_ADVICE = "write one with resrt calibrate"


def given(calibration: CalibrationLike, network: Network) -> Calibration:
    """Return a calibration that is given itself or as a file.

    Raises FileError if it cannot be read, and InputError if it is not one of this network.
    """
    if isinstance(calibration, (str, PathLike)):
        calibration = Calibration.load(calibration)
    if not isinstance(calibration, Calibration):
        raise InputError(
            "a calibration must be a resrt.Calibration or the path of its file, not "
            f"{type(calibration).__name__}"
        )
    _core.check_calibration(calibration.to_core(), network.graph.name, network.sha256)
    return calibration


def rounded_tensors(
    network: Network, keep: frozenset[str]
) -> tuple[_core.Graph, Weights, list[str]]:
    """Return the network without batch normalisations, its weights, and the rounded tensors."""
    graph, weights = _core.fold_batch_norm(network.graph, network.weights)
    return graph, weights, _core.quantised_tensors(graph, set(keep))


class _Invalid(Exception):
    """Says what is wrong with a calibration's content."""


def _from_document(document: object) -> Calibration:
    if not isinstance(document, dict) or not str(document.get("format")).startswith(
        "resrt calibration "
    ):
        raise _Invalid('it has no "format" of resrt')
    if document["format"] != f"resrt calibration {_VERSION}":
        raise _Invalid(f"it has version {document['format'].split()[-1]:.20}, not {_VERSION}")
    return Calibration(
        network=_entry(document, "network", str),
        weights=_entry(document, "weights", str),
        weights_sha256=_entry(document, "weights_sha256", str),
        images=_entry(document, "images", int),
        method=_entry(document, "method", str),
        ranges={
            name: _range(name, value) for name, value in _entry(document, "ranges", dict).items()
        },
        keep=frozenset(map(str, _entry(document, "keep", list))),
    )


def _entry(document: dict[str, Any], name: str, kind: type) -> Any:
    value = document.get(name)
    if not isinstance(value, kind):
        raise _Invalid(f'"{name}" must be {_KINDS[kind]}, not {json.dumps(value)[:40]}')
    return value


_KINDS = {str: "a text", int: "a whole number", dict: "an object", list: "a list"}


def _range(name: str, value: object) -> tuple[float, float]:
    is_pair = (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value)
    )
    if is_pair:
        assert isinstance(value, list)
        low, high = map(float, value)
        if math.isfinite(low) and math.isfinite(high) and low <= high:
            return low, high
    raise _Invalid(
        f"the range of '{name[:200]}' must be two finite numbers, the lower one first, not "
        f"{json.dumps(value)[:60]}"
    )
