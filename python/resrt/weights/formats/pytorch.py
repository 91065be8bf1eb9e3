"""PyTorch's .pth, .pt and .bin, by torch.save, read without PyTorch.

Since version 1.6 such a file is a zip archive: a pickle, data.pkl, and the storages of its tensors,
data/0 and so on, uncompressed. Before, it was a row of pickles with the storages behind. In both,
a tensor is a view of a storage, by offset, shape and strides; the storage is a persistent id of the
pickle. PyTorch's torch/serialization.py is all the description that the formats have.

What is wanted is the state dict; what training keeps beside it is passed over.
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
    check_total,
    reported,
    shorten,
)
from resrt.weights.formats.inert import Inert, Items, NumpyArray
from resrt.weights.formats.torch_tensors import Storage, Storages, Tensor, known_names
from resrt.weights.formats.unpickler import Refused, Unpickler

FORMAT = "PyTorch's .pth"

_KIND = "PyTorch file"
_SAVE = "load it with PyTorch and save torch.save(model.state_dict(), path)"

# The legacy format's first pickle: this number alone.
_MAGIC = 0x1950A86A20F9469CFC6C
_MAGIC_PICKLED = b"\x8a\x0a" + _MAGIC.to_bytes(10, "little") + b"."
_PROTOCOL = 1001
_TAR_MEMBERS = ("sys_info", "pickle", "storages", "tensors")
_ZIP_MEMBERS = re.compile(
    r"[^/]+/(data\.pkl|constants\.pkl|byteorder|version|\.format_version|code/.*|\.?data/.*)"
)

# Where training scripts put the state dict, and where its moving average.
_STATES = ("state_dict", "model", "model_state_dict", "model_state", "net", "network", "weights")
_AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_state", "ema_model", "ema")
# What wrappers of a network put before each of its names, and what they count beside.
_PREFIXES = ("module.", "_orig_mod.", "model.")
_COUNTER = "n_averaged"


def recognises(content: memoryview) -> bool:
    """Whether it begins as any of PyTorch's formats does."""
    name = zip_archive.first_name(content)
    if name is not None:
        return _ZIP_MEMBERS.fullmatch(name) is not None
    return _MAGIC_PICKLED in bytes(content[:32]) or _is_tar(content)


def read(content: memoryview, path: str) -> Checkpoint:
    """Every tensor of the state dict by its name, a view of the content; bfloat16 is widened.

    A state dict in a checkpoint of training is found by its usual names, and its moving average is
    taken only where there is no other. Prefixes that all names share, as those of
    DataParallel, are left out. The metadata say which entry was taken, and what else there was.
    Raises WeightsError.
    """
    if _is_tar(content):
        raise WeightsError(
            f"'{path}' is in the tar format that PyTorch wrote before version 0.1.10; {_SAVE}"
        )
    with reported(path, _KIND):
        try:
            if bytes(content[:2]) == b"PK":
                checkpoint = _read_zip(content, path)
            else:
                checkpoint = _read_legacy(content, path)
        except Refused as error:
            raise WeightsError(f"'{path}' {_why_refused(error)}") from None
        state, metadata = _find_state(checkpoint, path)
        tensors = _tensors(state, path)
        check_total((tensor.nbytes for tensor in tensors.values()), content)
        arrays = {
            name: tensor.array() if isinstance(tensor, Tensor) else tensor
            for name, tensor in tensors.items()
        }
    return Checkpoint(FORMAT, _strip_prefixes(arrays), metadata)


def _why_refused(error: Refused) -> str:
    if error.is_object:
        return (
            f"holds an object of the class {error}, as where a whole module is saved, not only "
            f"the weights; {_SAVE}"
        )
    return (
        f"is a pickle that asks for {error}, which weights do not need; it was not executed. "
        "Do not trust this file"
    )


def _read_zip(content: memoryview, path: str) -> object:
    members = zip_archive.members(content)
    root = zip_archive.first_name(content)
    root = root.partition("/")[0] if root else ""
    if f"{root}/constants.pkl" in members or any(n.startswith(f"{root}/code/") for n in members):
        raise WeightsError(
            f"'{path}' is a TorchScript archive, a program with its weights; load it with "
            "torch.jit.load and save torch.save(model.state_dict(), path)"
        )

    def member(name: str) -> memoryview:
        found = members.get(f"{root}/{name}")
        if found is None:
            raise Malformed(f"its member {shorten(f'{root}/{name}')} is missing")
        if found.compressed:
            raise Malformed(
                f"its member {shorten(found.name)} is compressed, which PyTorch never does"
            )
        # PyTorch can be told to compute no checksums, and then writes zeros.
        return found.check(found.data) if found.crc else found.data

    if f"{root}/byteorder" in members and bytes(member("byteorder")) != b"little":
        raise WeightsError(f"'{path}' was saved on a machine with big-endian numbers; {_SAVE}")
    storages = Storages(lambda key: member(f"data/{key}"))
    return Unpickler(member("data.pkl"), known_names(content), storages).load()


def _read_legacy(content: memoryview, path: str) -> object:
    """The magic number, the protocol, the system, the checkpoint, the keys: a pickle each."""
    storages = Storages()
    unpickler = Unpickler(content, known_names(content), storages)
    magic, protocol, system = unpickler.load(), unpickler.load(), unpickler.load()
    if magic != _MAGIC or protocol != _PROTOCOL or not isinstance(system, dict):
        raise Malformed("it does not begin as one does")
    if system.get("little_endian") is False:
        raise WeightsError(f"'{path}' was saved on a machine with big-endian numbers; {_SAVE}")
    checkpoint, keys = unpickler.load(), unpickler.load()
    if not isinstance(keys, list):
        raise Malformed("its list of storages is none")
    position = unpickler.position
    for key in keys:
        position = _fill(storages, key, content, position)
    return checkpoint


def _fill(storages: Storages, key: object, content: memoryview, position: int) -> int:
    """Give a storage its data, which follow their number; return where they end."""
    storage = storages.by_key.get(key) if isinstance(key, str) else None
    if storage is None or storage.data is not None:
        raise Malformed(f"its list of storages has {shorten(key)}, which it does not refer to once")
    start = position + 8
    size = int.from_bytes(content[position:start], "little")
    stop = start + storage.size * storage.element.dtype.itemsize
    if stop > len(content):
        raise Malformed(
            f"it is cut off: storage {shorten(key)} goes on to byte {stop}, of {len(content)}"
        )
    if size != storage.size:
        raise Malformed(f"its storage {shorten(key)} has {size} elements, not {storage.size}")
    storage.fill(content[start:stop])
    return stop


def _find_state(checkpoint: object, path: str) -> tuple[dict[object, object], dict[str, str]]:
    """The state dict in a checkpoint, and metadata that say where it was, and what else was."""
    if not isinstance(checkpoint, dict):
        raise WeightsError(f"'{path}' holds a {_kind(checkpoint)}, not a state dict; {_SAVE}")
    for entry in (*_STATES, *_AVERAGES):
        state = checkpoint.get(entry)
        if isinstance(state, dict) and _has_arrays(state):
            others = [shorten(name)[1:-1] for name in checkpoint if name != entry]
            also = ", ".join(others[:20]) + (", ..." if len(others) > 20 else "")
            return state, {"entry": entry, **({"also": also} if also else {})}
    if not _has_arrays(checkpoint):
        held = ", ".join(shorten(name) for name in list(checkpoint)[:5]) or "nothing"
        raise WeightsError(
            f"'{path}' holds no state dict at any of its usual places, but {held}; {_SAVE}"
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
                f"'{path}' has an entry {shorten(name)} that is no tensor of a named parameter but "
                f"a {_kind(value)}; save the network's state_dict() alone"
            )
        tensors[name] = tensor
    return tensors


def _kind(value: object) -> str:
    """What a value is, in the words of who saved it."""
    if isinstance(value, Inert):
        return "Python object"
    if isinstance(value, (Tensor, Storage)):
        return type(value).__name__.lower()
    return "dict" if isinstance(value, Items) else type(value).__name__


def _strip_prefixes(arrays: dict[str, Array]) -> dict[str, Array]:
    """Leave out the prefixes that all names share, and the counter of an averaged model."""
    for prefix in _PREFIXES * len(_PREFIXES):
        names = [name for name in arrays if name != _COUNTER]
        if names and all(len(name) > len(prefix) and name.startswith(prefix) for name in names):
            arrays = {name[len(prefix) :]: arrays[name] for name in names}
    return arrays


def _is_tar(content: memoryview) -> bool:
    name = bytes(content[:100]).rstrip(b"\0").decode("latin1")
    return bytes(content[257:262]) == b"ustar" and name.rstrip("/") in _TAR_MEMBERS
