"""Mutations that keep enough of a file's structure to reach the code behind the first checks.

Each takes the bytes of a file and a source of randomness, and returns other bytes. Content in
another format than the mutator's is mutated as bytes.
"""

from __future__ import annotations

import io
import json
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Callable
from random import Random

Mutator = Callable[[bytes, Random], bytes]

_NUMBERS = (0, 1, 2, 7, 8, 15, 16, 17, 127, 128, 255, 1 << 15, 1 << 16, 1 << 31, (1 << 32) - 1)
_LARGE = (1 << 32, 1 << 40, 1 << 47, 1 << 48, 1 << 62, (1 << 63) - 1, (1 << 64) - 1)


def mutate_bytes(data: bytes, random: Random) -> bytes:
    """Flip, set, insert, remove, repeat or cut off some bytes, or write a number into them."""
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(out) + 1)
        size = random.choice((1, 1, 2, 4, 8, 32))
        kind = random.randrange(8)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << random.randrange(8)
        elif kind == 1 and at < len(out):
            out[at] = random.randrange(256)
        elif kind == 2:
            out[at:at] = random.randbytes(size)
        elif kind == 3:
            del out[at : at + size]
        elif kind == 4:
            out[at:at] = out[at : at + size] * random.choice((1, 2, 100))
        elif kind == 5:
            del out[at:]
        elif kind == 6:
            number = random.choice(_NUMBERS + _LARGE)
            width = random.choice((1, 2, 4, 8))
            out[at : at + width] = (number & ((1 << 8 * width) - 1)).to_bytes(width, "little")
        else:
            other = random.randrange(len(out) + 1)
            out[at : at + size] = out[other : other + size]
    return bytes(out)


def mutate_pickle(data: bytes, random: Random) -> bytes:
    """Remove, repeat, move, swap or insert opcodes of a pickle, and keep what follows it."""
    opcodes, rest = _opcodes(data)
    if len(opcodes) < 3 or random.random() < 0.2:
        return mutate_bytes(data, random)
    for _ in range(random.choice((1, 1, 2, 3, 8))):
        at, other = random.randrange(len(opcodes)), random.randrange(len(opcodes))
        size = random.choice((1, 1, 2, 5, 20))
        kind = random.randrange(6)
        if kind == 0:
            del opcodes[at : at + size]
        elif kind == 1:
            opcodes[at:at] = opcodes[at : at + size] * random.choice((1, 2, 50))
        elif kind == 2:
            opcodes[at:at] = opcodes[other : other + size]
        elif kind == 3:
            opcodes[at], opcodes[other] = opcodes[other], opcodes[at]
        elif kind == 4:
            opcodes.insert(at, _some_opcode(random))
        else:
            opcodes[at] = _some_opcode(random)
        opcodes = opcodes or [b"."]
    return b"".join(opcodes) + rest


def _opcodes(data: bytes) -> tuple[list[bytes], bytes]:
    """Return the opcodes of a pickle, each with its argument, and what follows it."""
    starts = []
    try:
        starts.extend(at for _, _, at in pickletools.genops(data) if at is not None)
    except Exception:
        return [], data
    end = starts[-1] + 1
    return [data[a:b] for a, b in zip(starts, [*starts[1:], end], strict=True)], data[end:]


def _some_opcode(random: Random) -> bytes:
    small = bytes((random.randrange(256),))
    return random.choice(
        (
            *(
                bytes((code,))
                for code in b"(.01NRQabdestu)]}2lo\x81\x85\x86\x87\x88\x89\x8f\x94\x97"
            ),
            *(bytes((code,)) + small for code in b"Khq\x80\x82"),
            b"J" + struct.pack("<I", random.choice(_NUMBERS)),
            b"M" + struct.pack("<H", random.randrange(1 << 16)),
            b"\x8a\x08" + struct.pack("<Q", random.choice(_LARGE)),
            b"r" + struct.pack("<I", random.choice(_NUMBERS)),
            b"G" + random.randbytes(8),
            b"X" + struct.pack("<I", 3) + b"abc",
            b"B" + struct.pack("<I", random.choice(_NUMBERS)),
            b"\x96" + struct.pack("<Q", random.choice(_LARGE)),
            b"X\x04\x00\x00\x00\xf0\x9f\x98\x80",
            b"cos\nsystem\n",
            b"ccollections\nOrderedDict\n",
            b"ctorch._utils\n_rebuild_tensor_v2\n",
            b"ctorch._utils\n_rebuild_tensor_v3\n",
            b"ctorch\nBFloat16Storage\n",
            b"ctorch\nUntypedStorage\n",
            b"ctorch\nbfloat16\n",
            b"cnumpy.core.multiarray\n_reconstruct\n",
            b"cnumpy.core.numeric\n_frombuffer\n",
            b"cnumpy\ndtype\n",
            b"c_codecs\nencode\n",
            b"X\x06\x00\x00\x00latin1",
        )
    )


def mutate_legacy(data: bytes, random: Random) -> bytes:
    """Mutate one of the pickles at the beginning of a file in PyTorch's legacy format."""
    pickles, rest = [], data
    for _ in range(5):
        opcodes, rest = _opcodes(rest)
        pickles.append(b"".join(opcodes))
    if not all(pickles) or random.random() < 0.2:
        return mutate_bytes(data, random)
    index = random.choice((2, 3, 3, 3, 3, 4))
    pickles[index] = mutate_pickle(pickles[index], random)
    return b"".join(pickles) + rest


def mutate_torch_zip(data: bytes, random: Random) -> bytes:
    """Mutate the pickle of an archive, its storages, or its list of members."""
    return _mutate_zip(data, random, lambda name: mutate_pickle if "pkl" in name else mutate_bytes)


def mutate_npz(data: bytes, random: Random) -> bytes:
    """Mutate the headers of an archive's arrays, their bytes, or the list of members."""
    return _mutate_zip(data, random, lambda _: _mutate_npy)


def _mutate_zip(data: bytes, random: Random, mutator: Callable[[str], Mutator]) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as opened:
            members = [(info, opened.read(info)) for info in opened.infolist()]
    except Exception:
        members = []
    if not members or random.random() < 0.3:
        return mutate_bytes(data, random)
    at = random.randrange(len(members))
    if random.random() < 0.6:  # mostly the first member, PyTorch's pickle
        at = 0
    info, content = members[at]
    kind = random.randrange(12)
    if kind == 0:
        del members[at]
    elif kind == 1:
        members.append((info, content))
    elif kind == 2:
        info.compress_type = zipfile.ZIP_DEFLATED ^ info.compress_type
    else:
        members[at] = (info, mutator(info.filename)(content, random))
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as opened:
        warnings.simplefilter("ignore")  # zipfile warns of two members with the same name
        for info, content in members:
            opened.writestr(info.filename, content, info.compress_type)
    return file.getvalue()


def _mutate_npy(data: bytes, random: Random) -> bytes:
    if len(data) < 12 or random.random() < 0.2:
        return mutate_bytes(data, random)
    size = int.from_bytes(data[8:10], "little")
    header = mutate_text(data[10 : 10 + size], random)
    return data[:8] + struct.pack("<H", len(header) & 0xFFFF) + header + data[10 + size :]


def mutate_text(data: bytes, random: Random) -> bytes:
    """Replace numbers and punctuation of a text."""
    out = bytearray(data)
    for _ in range(random.choice((1, 2, 4))):
        at = random.randrange(len(out) + 1)
        token = random.choice(
            (
                *b"0123456789",
                *b"(){}[],:'\" \n<>=-",
                *map(str, _NUMBERS + _LARGE),
                "f2",
                "V2",
                "True",
            )
        )
        piece = bytes((token,)) if isinstance(token, int) else token.encode()
        out[at : at + random.choice((0, 1, len(piece)))] = piece
    return bytes(out)


def mutate_safetensors(data: bytes, random: Random) -> bytes:
    """Mutate the header's text or its entries, and update its length."""
    size = int.from_bytes(data[:8], "little")
    if size > len(data) - 8 or random.random() < 0.3:
        return mutate_bytes(data, random)
    header, rest = data[8 : 8 + size], data[8 + size :]
    try:
        entries = json.loads(header)
        name, entry = random.choice(list(entries.items()))
        kind = random.randrange(4)
        if kind == 0:
            entry["dtype"] = random.choice(("F64", "BF16", "BOOL", "U8", "F8_E4M3", "U64", ""))
        elif kind == 1:
            entry["shape"].insert(0, random.choice((*_NUMBERS, *_LARGE, -1, 1.5)))
        elif kind == 2:
            entry["data_offsets"][random.randrange(2)] = random.choice(_NUMBERS + _LARGE)
        else:
            entries[random.choice(("", "x", "é" * 100, name + name))] = entry
        header = json.dumps(entries).encode()
    except Exception:
        header = mutate_text(header, random)
    return struct.pack("<Q", len(header)) + header + rest
