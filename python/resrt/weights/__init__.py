"""Weights files: readers for each format, and the parameters' names in each source."""

from resrt.weights.fit import Weights, fit, fit_checkpoint, load
from resrt.weights.formats import read
from resrt.weights.formats.checkpoint import Checkpoint
from resrt.weights.identify import Description, Match, describe, head_and_stem

__all__ = [
    "Checkpoint",
    "Description",
    "Match",
    "Weights",
    "describe",
    "fit",
    "fit_checkpoint",
    "head_and_stem",
    "load",
    "read",
]
