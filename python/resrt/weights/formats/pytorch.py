"""PyTorch's .pth, .pt, .bin and .pt2, written by torch.save, torch.jit or torch.export.

They are read without PyTorch. Since version 1.6 a file of torch.save is an uncompressed zip archive
of a pickle, data.pkl, and the storages of its tensors, data/0 and so on. Before, it was several
pickles followed by the storages. In both, a tensor is a view of a storage with an offset, a shape
and strides, and the storage is a persistent id in the pickle. The only description of the formats
is PyTorch's torch/serialization.py.

The reader returns the state dict and skips what training stores with it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping

from resrt.errors import WeightsError
from resrt.weights.formats import torch_programs, zip_archive
from resrt.weights.formats.checkpoint import (
    Array,
    Checkpoint,
    Malformed,
    check_total,
    reported,
    shorten,
    shown,
)
from resrt.weights.formats.inert import Items, NumpyArray, Settings
from resrt.weights.formats.torch_tensors import Storage, Storages, Tensor, known_names
from resrt.weights.formats.unpickler import Foreign, Placeholder, Unpickler

FORMAT = "PyTorch's .pth"

_SAVE = "load it with PyTorch and save its weights with torch.save(model.state_dict(), path)"
_LOG = logging.getLogger("resrt.weights")

# The first pickle of the legacy format is this number.
_MAGIC = 0x1950A86A20F9469CFC6C
_MAGIC_PICKLED = b"\x8a\x0a" + _MAGIC.to_bytes(10, "little") + b"."
_PROTOCOL = 1001
_TAR_MEMBERS = ("sys_info", "pickle", "storages", "tensors")
_ZIP_MEMBERS = re.compile(
    r"[^/]+/(data\.pkl|constants\.pkl|byteorder|version|\.format_version|archive_format|code/.*"
    r"|\.?data/.*)|version|serialized_\w+\.(json|pt)"
)

# The entries where training scripts put the moving average of the weights, which timm prefers too,
# and the state dict.
_AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_state", "ema_model", "ema")
_STATES = ("state_dict", "model", "model_state_dict", "model_state", "net", "network", "weights")
# The entries where they put the name of the network, possibly among their arguments.
_ARCHITECTURES = ("architecture", "arch", "model_name", "model")
_ARGUMENTS = ("args", "hyper_parameters", "hparams", "config", "cfg")
# What is in a pickle of a quantised network.
_QUANTISED = re.compile(r"_rebuild_qtensor|QU?Int(8|32|4x2|2x4)Storage|torch\.qu?int|torchao\.")


def recognises(content: memoryview) -> bool:
    """Return whether this begins like one of PyTorch's formats."""
    name = zip_archive.first_name(content)
    if name is not None:
        return _ZIP_MEMBERS.fullmatch(name) is not None
    return _MAGIC_PICKLED in bytes(content[:32]) or _is_tar(content)


def read(content: memoryview, path: str, key: str | None = None) -> Checkpoint:
    """Return the tensors of the state dict, views of the content; bfloat16 is widened.

    In a training checkpoint the state dict is found under its usual names; its moving average is
    preferred, as timm does. `key` names another entry, with dots for one inside another. Objects
    beside the tensors are neither created nor called. The metadata names the entry that was used,
    the others, and the network if the file says it. Raises WeightsError.
    """
    if _is_tar(content):
        raise WeightsError(
            f"'{path}' is in the tar format that PyTorch wrote before version 0.1.10; {_SAVE}"
        )
    with reported(path, "PyTorch file"):
        if bytes(content[:2]) == b"PK":
            checkpoint = _read_zip(content, path)
        else:
            checkpoint = _read_legacy(content, path)
        state, metadata = _find_state(checkpoint, path, key)
        tensors, left_aside = _tensors(state, path)
        check_total((tensor.nbytes for tensor in tensors.values()), content)
        arrays = {
            name: tensor.array() if isinstance(tensor, Tensor) else tensor
            for name, tensor in tensors.items()
        }
    return Checkpoint(FORMAT, arrays, metadata, left_aside=tuple(left_aside))


def _read_zip(content: memoryview, path: str) -> object:
    members = zip_archive.members(content)
    root = zip_archive.first_name(content)
    root = root.partition("/")[0] if root else ""

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

    if nested := members.get("serialized_state_dict.pt"):  # torch.export before version 2.7
        return _read_zip(nested.read(), path)
    if f"{root}/byteorder" in members and bytes(member("byteorder")) != b"little":
        raise WeightsError(f"'{path}' was saved on a big-endian machine; {_SAVE}")
    if f"{root}/archive_format" in members:
        return torch_programs.exported_tensors(member)
    if f"{root}/constants.pkl" in members or any(n.startswith(f"{root}/code/") for n in members):
        if tensors := torch_programs.script_tensors(content, member):
            return tensors
        raise WeightsError(
            f"'{path}' is a TorchScript archive, a program, but none of its modules has parameters:"
            " they are part of the program if it was frozen. Load the network that it was made "
            "from, and save its weights with torch.save(model.state_dict(), path)"
        )
    storages = Storages(lambda key: member(f"data/{key}"))
    data = member("data.pkl")
    return Unpickler(data, known_names(content), storages, passes_foreign=True).load()


def _read_legacy(content: memoryview, path: str) -> object:
    """Read a pickle each for the magic number, protocol, system, checkpoint and storages' keys."""
    storages = Storages()
    unpickler = Unpickler(content, known_names(content), storages, passes_foreign=True)
    magic, protocol, system = unpickler.load(), unpickler.load(), unpickler.load()
    if magic != _MAGIC or protocol != _PROTOCOL or not isinstance(system, dict):
        raise Malformed("its beginning is invalid")
    if system.get("little_endian") is False:
        raise WeightsError(f"'{path}' was saved on a big-endian machine; {_SAVE}")
    checkpoint, keys = unpickler.load(), unpickler.load()
    _refuse_object(checkpoint, path)
    if not isinstance(keys, list):
        raise Malformed("its list of storages is not a list")
    position = unpickler.position
    for key in keys:
        is_known = isinstance(key, str) and key in storages.by_key
        if unpickler.refused is not None and not is_known:
            # A storage of a type that is not supported, whose size is not known.
            if storages.by_key:
                _refuse_quantised(key, Foreign(unpickler.refused), path)
            raise unpickler.refused
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


def _find_state(
    checkpoint: object, path: str, key: str | None
) -> tuple[Mapping[object, object], dict[str, str]]:
    """Return the state dict in a checkpoint, and metadata with its entry and the others."""
    if not isinstance(checkpoint, dict):
        _refuse_object(checkpoint, path)
        raise WeightsError(f"'{path}' contains a {_kind(checkpoint)}, not a state dict; {_SAVE}")
    states = dict(_states(checkpoint))
    entry = key if key in states else _usual_entry(checkpoint, states)
    told = _architecture(checkpoint)
    metadata = {"architecture": told} if told else {}
    if entry is not None:
        others = [shorten(name)[1:-1] for name in checkpoint if name != entry]
        also = ", ".join(others[:20]) + (", ..." if len(others) > 20 else "")
        if key is None and entry in _AVERAGES and any(name in states for name in _STATES):
            _LOG.warning(
                "'%s': took the moving average of the weights, %s; another entry can be chosen "
                "with key",
                path,
                entry,
            )
        return states[entry], {"entry": entry, **({"also": also} if also else {}), **metadata}
    if _has_arrays(checkpoint):
        return checkpoint, metadata
    for value in checkpoint.values():
        _refuse_object(value, path)
    if states:
        raise WeightsError(
            f"'{path}' contains several state dicts: {', '.join(map(shown, list(states)[:10]))}; "
            "choose one with key"
        )
    held = ", ".join(shorten(name) for name in list(checkpoint)[:5]) or "nothing"
    raise WeightsError(
        f"'{path}' contains no state dict under any usual name (found: {held}); {_SAVE}"
    )


def _states(checkpoint: Mapping[object, object]) -> Iterable[tuple[str, Mapping[object, object]]]:
    """Yield the entries that are state dicts, and those inside entries, as "outer.inner"."""
    for name, value in checkpoint.items():
        if not isinstance(name, str) or not isinstance(value, dict):
            continue
        if _has_arrays(value):
            yield name, value
            continue
        for inner, state in list(value.items())[:20]:
            if isinstance(inner, str) and isinstance(state, dict) and _has_arrays(state):
                yield f"{name}.{inner}", state


def _usual_entry(
    checkpoint: Mapping[object, object], states: Mapping[str, Mapping[object, object]]
) -> str | None:
    """Return the entry with the network's state dict, or None."""
    usual = (*_AVERAGES, *_STATES)
    inside = (f"{outer}.{inner}" for outer in usual for inner in (*usual, "module"))
    for name in (*usual, *inside):
        if name in states:
            return name
    # An entry with another name is the state dict if it is the only one with convolutions.
    if not _has_convolutions(checkpoint):
        convolutional = [name for name, state in states.items() if _has_convolutions(state)]
        if len(convolutional) == 1:
            return convolutional[0]
    return None


def _has_arrays(state: Mapping[object, object]) -> bool:
    return any(_as_tensor(value) is not None for value in state.values())


def _has_convolutions(state: Mapping[object, object]) -> bool:
    tensors = map(_as_tensor, state.values())
    return any(tensor is not None and len(tensor.shape) == 4 for tensor in tensors)


def _as_tensor(value: object) -> Tensor | Array | None:
    if isinstance(value, NumpyArray):
        return value.array
    return value if isinstance(value, Tensor) else None


def _tensors(
    state: Mapping[object, object], path: str
) -> tuple[dict[str, Tensor | Array], list[str]]:
    """Return the tensors of a state dict, and the names of what else it contains."""
    tensors: dict[str, Tensor | Array] = {}
    left_aside: list[str] = []
    for name, value in state.items():
        tensor = _as_tensor(value)
        if isinstance(name, str) and tensor is not None:
            tensors[name] = tensor
        elif isinstance(name, str) and isinstance(
            value, (Placeholder, dict, list, str, int, float)
        ):
            _refuse_quantised(name, value, path)
            left_aside.append(name)
        elif isinstance(name, str) and isinstance(value, tuple):
            for part in value:
                _refuse_quantised(name, part, path)
            left_aside.append(name)
        else:
            raise WeightsError(
                f"'{path}' has an entry {shorten(name)} that is not a parameter's tensor but a "
                f"{_kind(value)}; save only the network's state_dict()"
            )
    return tensors, left_aside


def _refuse_quantised(name: object, value: object, path: str) -> None:
    refusal = value.refusal if isinstance(value, Placeholder) else None
    if refusal is not None and _QUANTISED.search(str(refusal)):
        raise WeightsError(
            f"'{path}' is a quantised state dict ({shorten(name)} asks for {refusal}); resrt "
            "requires weights in floating point: save the network before it is quantised"
        )


def _refuse_object(value: object, path: str) -> None:
    """Raise WeightsError, or Refused, for an object where the weights should be."""
    refusal = value.refusal if isinstance(value, Placeholder) else None
    if refusal is None:
        return
    if refusal.is_object:
        raise WeightsError(
            f"'{path}' contains an object of the class {refusal}, probably a whole module "
            f"instead of only its weights; {_SAVE}"
        )
    raise refusal


def _architecture(checkpoint: Mapping[object, object]) -> str:
    """Return the name of the network that a training script stored, or an empty text."""
    arguments = (checkpoint.get(name) for name in _ARGUMENTS)
    for place in (checkpoint, *arguments):
        values = place.values if isinstance(place, Settings) else place
        if isinstance(values, dict):
            for name in _ARCHITECTURES:
                if isinstance(told := values.get(name), str):
                    return told
    return ""


def _kind(value: object) -> str:
    """Return what a value was when it was saved."""
    if isinstance(value, (Tensor, Storage)):
        return type(value).__name__.lower()
    if isinstance(value, Items):
        return "dict"
    return "Python object" if isinstance(value, Placeholder) else type(value).__name__


def _is_tar(content: memoryview) -> bool:
    name = bytes(content[:100]).rstrip(b"\0").decode("latin1")
    return bytes(content[257:262]) == b"ustar" and name.rstrip("/") in _TAR_MEMBERS
