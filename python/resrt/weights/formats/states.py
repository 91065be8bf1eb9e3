"""Finds the network's parameters among all names that a file or a state dict has.

Training scripts wrap a network (DataParallel, Lightning, a module with a backbone and a head) and
store other things beside it (a criterion, a second network). What a prefix leaves behind decides:
the network is where most names of residual blocks are.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections import Counter
from collections.abc import Iterable

from resrt.errors import WeightsError
from resrt.weights.formats.checkpoint import Checkpoint, shown

_LOG = logging.getLogger("resrt.weights")

# How the names of residual blocks begin, in every naming convention, after any prefix.
_BLOCK = re.compile(
    r"(?P<prefix>(?:[^.]+\.)*?)"
    r"(?:layer\d\.\d+\.|s\d\.b\d+\.|blocks\.\d+\.|trunk_output\.|encoder\.stages\.\d+\.layers\."
    r"|bb_\d+_\d+\.|s\d+_b\d+\.|layer\d\.layer\d_bottleneck_|_conv\d_\d+\.|[4-7]\.\d+\.conv1\.)"
)
# The classifier, which may be outside of the backbone, and a Dropout before it.
HEAD = re.compile(
    r"(?:fc|linear|classifier|head|last_linear|out|output)(?:\.fc|\.linear)?(?:\.\d+)?"
    r"\.(?P<part>weight|bias)"
)
_WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", "timm_model.", "net.", "encoder.")
# What is stored beside a network.
_FOREIGN = re.compile(r"(?:criterion|loss(?:_\w+)?|optimi[sz]er|scheduler|\w+_metrics?)\..*")
_COUNTER = "n_averaged"
_LONGEST = 500  # characters of a name that are searched
_NAMED = 5


def select(checkpoint: Checkpoint, path: str, key: str | None = None) -> Checkpoint:
    """Return a checkpoint with only the network's arrays, without the prefixes of their names.

    `key` is a prefix to use, for one of several networks. A format that describes a graph keeps all
    of its arrays. Raises WeightsError if no name has the prefix `key`.
    """
    names = list(checkpoint.arrays)
    if key is None:
        prefix = _prefix_of(names)
    else:
        prefix = f"{key.removesuffix('.')}."
        if not any(name.startswith(prefix) for name in names):
            raise _unknown_key(key, names, checkpoint, path)
    keeps_all = checkpoint.fit is not None
    renamed = _renamed(names, prefix, keeps_all=keeps_all)
    aside = [name for name in names if name not in renamed]
    if aside and key is None and len(aside) > aside.count(_COUNTER):
        _LOG.warning(
            "'%s': left aside %d arrays that do not belong to the network: %s",
            path,
            len(aside),
            ", ".join(map(shown, aside[:_NAMED])) + (", ..." if len(aside) > _NAMED else ""),
        )
    return dataclasses.replace(
        checkpoint,
        arrays={new: checkpoint.arrays[name] for name, new in renamed.items()},
        left_aside=(*checkpoint.left_aside, *aside),
    )


def _prefix_of(names: list[str]) -> str:
    """Return the prefix with the most residual blocks, the first of several."""
    blocks = (_BLOCK.match(name[:_LONGEST]) for name in names)
    prefixes = Counter(block["prefix"] for block in blocks if block)
    if prefixes:
        return prefixes.most_common(1)[0][0]
    # No network of these families; the prefixes of usual wrappers are removed all the same.
    prefix = ""
    others = [name for name in names if name != _COUNTER]
    while others and (wrapper := _shared(others, prefix)):
        prefix += wrapper
    return prefix


def _shared(names: list[str], prefix: str) -> str:
    for wrapper in _WRAPPERS:
        longer = prefix + wrapper
        if all(name.startswith(longer) and len(name) > len(longer) for name in names):
            return wrapper
    return ""


def _renamed(names: list[str], prefix: str, *, keeps_all: bool) -> dict[str, str]:
    """Return the new name of each array that belongs to the network."""
    inside = {name: name[len(prefix) :] for name in names if name.startswith(prefix)}
    if not prefix:
        return {name: name for name in names if keeps_all or not _is_foreign(name)}
    taken = set(inside.values())
    has_head = any(HEAD.fullmatch(new) for new in taken)
    renamed = {}
    for name in names:
        if name in inside:
            renamed[name] = inside[name]
        elif keeps_all:
            renamed[name] = name
        elif not has_head and (new := _outer_head(name, prefix)) and new not in taken:
            renamed[name] = new
            taken.add(new)
    return renamed


def _is_foreign(name: str) -> bool:
    """Return whether a name is of another network, or of something beside the networks."""
    block = _BLOCK.match(name[:_LONGEST])
    return bool(block and block["prefix"]) or _FOREIGN.fullmatch(name) is not None


def _outer_head(name: str, prefix: str) -> str | None:
    """Return a classifier's name without the part of the prefix that it shares, else None."""
    parts = prefix.split(".")[:-1]
    for count in range(len(parts) - 1, -1, -1):
        outer = "".join(f"{part}." for part in parts[:count])
        if name.startswith(outer) and HEAD.fullmatch(name[len(outer) :]):
            return name[len(outer) :]
    return None


def _unknown_key(key: str, names: Iterable[str], checkpoint: Checkpoint, path: str) -> WeightsError:
    first = list(dict.fromkeys(name.partition(".")[0] for name in names))
    entries = [checkpoint.metadata[k] for k in ("entry", "also") if k in checkpoint.metadata]
    has = f"entries {', '.join(entries)}; " if entries else ""
    return WeightsError(
        f"'{path}' has no entry and no parameters under {shown(key)}; it has {has}names that begin "
        f"with {', '.join(map(shown, first[:10]))}{', ...' if len(first) > 10 else ''}"
    )
