"""PyTorch's .pth, .pt and .bin, written by torch.save, read without PyTorch.

Since version 1.6 such a file is an uncompressed zip archive of a pickle, data.pkl, and the storages
of its tensors, data/0 and so on. Before, it was several pickles followed by the storages. In both,
a tensor is a view of a storage with an offset, a shape and strides, and the storage is a persistent
id in the pickle. The only description of the formats is PyTorch's torch/serialization.py.

The reader returns the state dict and skips what training stores with it.
"""

from __future__ import annotations

import re

import numpy as np

from resrt.errors import WeightsError
from resrt.weights.formats import zip_archive
from resrt.weights.formats.checkpoint import (
    Array,
    Checkpoint,
    Malformed,
    Refused,
    check_total,
    reported,
    shorten,
)
from resrt.weights.formats.inert import Inert, Items, NumpyArray
from resrt.weights.formats.torch_tensors import Storage, Storages, Tensor, known_names
from resrt.weights.formats.unpickler import Unpickler

FORMAT = "PyTorch's .pth"

_SAVE = "load it with PyTorch and save its weights with torch.save(model.state_dict(), path)"

# The first pickle of the legacy format is this number.
_MAGIC = 0x1950A86A20F9469CFC6C
_MAGIC_PICKLED = b"\x8a\x0a" + _MAGIC.to_bytes(10, "little") + b"."
_PROTOCOL = 1001
_TAR_MEMBERS = ("sys_info", "pickle", "storages", "tensors")
_ZIP_MEMBERS = re.compile(
    r"[^/]+/(data\.pkl|constants\.pkl|byteorder|version|\.format_version|code/.*|\.?data/.*)"
)

# The entries where training scripts put the state dict, and its moving average.
_STATES = ("state_dict", "model", "model_state_dict", "model_state", "net", "network", "weights")
_AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_state", "ema_model", "ema")
# What wrappers of a network add to each of its names, and a counter that they store.
_PREFIXES = ("module.", "_orig_mod.", "model.")
_COUNTER = "n_averaged"


def recognises(content: memoryview) -> bool:
    """Return whether this begins like one of PyTorch's formats."""
    name = zip_archive.first_name(content)
    if name is not None:
        return _ZIP_MEMBERS.fullmatch(name) is not None
    return _MAGIC_PICKLED in bytes(content[:32]) or _is_tar(content)


def read(content: memoryview, path: str) -> Checkpoint:
    """Return the tensors of the state dict, views of the content; bfloat16 is widened.

    In a training checkpoint the state dict is found under its usual names; its moving average is
    used only if there is no other. Prefixes that all names share, such as DataParallel's, are
    removed. The metadata names the entry that was used and the others. Raises WeightsError.
    """
    if _is_tar(content):
        raise WeightsError(
            f"'{path}' is in the tar format that PyTorch wrote before version 0.1.10; {_SAVE}"
        )
    with reported(path, "PyTorch file"):
        try:
            if bytes(content[:2]) == b"PK":
                checkpoint = _read_zip(content, path)
            else:
                checkpoint = _read_legacy(content, path)
        except Refused as error:
            if not error.is_object:
                raise
            raise WeightsError(
                f"'{path}' contains an object of the class {error}, probably a whole module "
                f"instead of only its weights; {_SAVE}"
            ) from None
        state, metadata = _find_state(checkpoint, path)
        tensors = _tensors(state, path)
        check_total((tensor.nbytes for tensor in tensors.values()), content)
        arrays = {
            name: tensor.array() if isinstance(tensor, Tensor) else tensor
            for name, tensor in tensors.items()
        }
    return Checkpoint(FORMAT, _strip_prefixes(arrays), metadata)


def _read_zip(content: memoryview, path: str) -> object:
    members = zip_archive.members(content)
    root = zip_archive.first_name(content)
    root = root.partition("/")[0] if root else ""
    if f"{root}/constants.pkl" in members or any(n.startswith(f"{root}/code/") for n in members):
        raise WeightsError(
            f"'{path}' is a TorchScript archive, a program with its weights; load it with "
            "torch.jit.load and save its weights with torch.save(model.state_dict(), path)"
        )

    def member(name: str) -> memoryview:
        found = members.get(f"{root}/{name}")
        if found is None:
            raise Malformed(f"its member {shorten(f'{root}/{name}')} is missing")
        if found.compressed:
            raise Malformed(
                f"its member {shorten(found.name)} is compressed, which PyTorch never does"
            )
        # PyTorch writes zeros if it is configured to compute no checksums.
        return found.check(found.data) if found.crc else found.data

    if f"{root}/byteorder" in members and bytes(member("byteorder")) != b"little":
        raise WeightsError(f"'{path}' was saved on a big-endian machine; {_SAVE}")
    storages = Storages(lambda key: member(f"data/{key}"))
    return Unpickler(member("data.pkl"), known_names(content), storages).load()


def _read_legacy(content: memoryview, path: str) -> object:
    """Read a pickle each for the magic number, protocol, system, checkpoint and storages' keys."""
    storages = Storages()
    unpickler = Unpickler(content, known_names(content), storages)
    magic, protocol, system = unpickler.load(), unpickler.load(), unpickler.load()
    if magic != _MAGIC or protocol != _PROTOCOL or not isinstance(system, dict):
        raise Malformed("its beginning is invalid")
    if system.get("little_endian") is False:
        raise WeightsError(f"'{path}' was saved on a big-endian machine; {_SAVE}")
    checkpoint, keys = unpickler.load(), unpickler.load()
    if not isinstance(keys, list):
        raise Malformed("its list of storages is not a list")
    position = unpickler.position
    for key in keys:
        position = _fill(storages, key, content, position)
    return checkpoint


def _fill(storages: Storages, key: object, content: memoryview, position: int) -> int:
    """Give a storage its data, which follows the number of elements; return where it ends."""
    storage = storages.by_key.get(key) if isinstance(key, str) else None
    if storage is None or storage.data is not None:
        raise Malformed(f"its list of storages has {shorten(key)}, which is unknown or repeated")
    start = position + 8
    size = int.from_bytes(content[position:start], "little")
    stop = start + storage.size * storage.element.dtype.itemsize
    if stop > len(content):
        raise Malformed(
            f"it is truncated: storage {shorten(key)} ends at byte {stop} of {len(content)}"
        )
    if size != storage.size:
        raise Malformed(f"its storage {shorten(key)} has {size} elements, not {storage.size}")
    storage.fill(content[start:stop])
    return stop


def _find_state(checkpoint: object, path: str) -> tuple[dict[object, object], dict[str, str]]:
    """Return the state dict in a checkpoint, and metadata with its entry and the others."""
    if not isinstance(checkpoint, dict):
        raise WeightsError(f"'{path}' contains a {_kind(checkpoint)}, not a state dict; {_SAVE}")
    for entry in (*_STATES, *_AVERAGES):
        state = checkpoint.get(entry)
        if isinstance(state, dict) and _has_arrays(state):
            others = [shorten(name)[1:-1] for name in checkpoint if name != entry]
            also = ", ".join(others[:20]) + (", ..." if len(others) > 20 else "")
            return state, {"entry": entry, **({"also": also} if also else {})}
    if not _has_arrays(checkpoint):
        held = ", ".join(shorten(name) for name in list(checkpoint)[:5]) or "nothing"
        raise WeightsError(
            f"'{path}' contains no state dict under any usual name (found: {held}); {_SAVE}"
        )
    return checkpoint, {}


def _has_arrays(state: dict[object, object]) -> bool:
    return any(isinstance(value, (Tensor, NumpyArray)) for value in state.values())


def _tensors(state: dict[object, object], path: str) -> dict[str, Tensor | Array]:
    tensors: dict[str, Tensor | Array] = {}
    for name, value in state.items():
        tensor = value.array if isinstance(value, NumpyArray) else value
        if not isinstance(name, str) or not isinstance(tensor, (Tensor, np.ndarray)):
            raise WeightsError(
                f"'{path}' has an entry {shorten(name)} that is not a parameter's tensor but a "
                f"{_kind(value)}; save only the network's state_dict()"
            )
        tensors[name] = tensor
    return tensors


def _kind(value: object) -> str:
    """Return what a value was when it was saved."""
    if isinstance(value, Inert):
        return "Python object"
    if isinstance(value, (Tensor, Storage)):
        return type(value).__name__.lower()
    return "dict" if isinstance(value, Items) else type(value).__name__


def _strip_prefixes(arrays: dict[str, Array]) -> dict[str, Array]:
    """Remove the prefixes that all names share, and the counter of an averaged model."""
    for prefix in _PREFIXES * len(_PREFIXES):
        names = [name for name in arrays if name != _COUNTER]
        if names and all(len(name) > len(prefix) and name.startswith(prefix) for name in names):
            arrays = {name[len(prefix) :]: arrays[name] for name in names}
    return arrays


def _is_tar(content: memoryview) -> bool:
    name = bytes(content[:100]).rstrip(b"\0").decode("latin1")
    return bytes(content[257:262]) == b"ustar" and name.rstrip("/") in _TAR_MEMBERS
