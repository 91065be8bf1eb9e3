"""The unpickler: what it loads, what it rejects, and that no pickle takes much memory or time."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from resrt.weights.formats import unpickler
from resrt.weights.formats.checkpoint import Malformed, Refused, shorten
from resrt.weights.formats.inert import containers, inert, numpy_arrays
from resrt.weights.formats.unpickler import Unpickler
from support.samples import bounded_memory, text

KNOWN = {
    **containers(),
    **numpy_arrays(limit=1000),
    "argparse.Namespace": inert,
    "builtins.float": None,
}


def load(content: bytes) -> object:
    return Unpickler(memoryview(content), KNOWN).load()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        [0, 255, 256, 65536, -1, 1 << 40, -(1 << 300), 1.5, float("inf")],
        {"a": [1], 2: (), "three": (1,), "é€😀": (1, 2, 3, 4)},
        [[]] * 300,
        list(range(3000)),
        {str(n): n for n in range(3000)},
    ],
)
def test_values(value: object, protocol: int) -> None:
    assert load(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_bytes_are_views_of_the_content(protocol: int) -> None:
    kinds = (bytes, bytearray) if protocol == 5 else (bytes,)
    values = [kind(b"x" * size) for kind in kinds for size in (0, 10, 300, 70_000)]
    content = pickle.dumps(values, protocol)
    loaded = load(content)
    assert isinstance(loaded, list)
    assert loaded == values
    assert all(isinstance(view, memoryview) and view.obj is content for view in loaded)


def test_python_2() -> None:
    """It wrote strs and long integers differently, and an OrderedDict as a list of items."""
    content = b"\x80\x02ccollections\nOrderedDict\n]](U\x01aI-4294967296\nea\x85R."
    assert load(content) == {"a": -(1 << 32)}


def test_several_pickles_in_a_row() -> None:
    first, second = pickle.dumps([1], 2), pickle.dumps([2], 2)
    machine = Unpickler(memoryview(first + second), KNOWN)
    assert machine.load() == [1]
    assert machine.position == len(first)


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n.",
        b"\x8c\x02os\x8c\x06system\x93.",
        b"cbuiltins\nfloat\n)R.",
        b"cnumpy\ndtype\n\x8c\x01O\x85R.",
        b"K\x01Q.",
        b"K\x01K\x02\x93.",
        b"c_codecs\nencode\n\x8c\x01x\x8c\x05utf-8\x86R.",
    ],
)
def test_names_that_are_not_listed(content: bytes) -> None:
    with pytest.raises(Refused):
        load(content)


def test_objects_are_distinguished_from_calls() -> None:
    for content in (b"cnet\nNet\n)\x81.", b"cnet\nNet\nq\x00)\x81.", b"cnet\nNet\n\x94)\x81."):
        with pytest.raises(Refused) as caught:
            load(content)
        assert caught.value.is_object
    with pytest.raises(Refused) as caught:
        load(b"cos\nsystem\n\x8c\x02ls\x85R.")
    assert not caught.value.is_object


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated"),
        (b"cnumpy\n", "line at byte 7 has no end"),
        (b"]", "truncated"),
        (b".", "more from the stack"),
        (b"t.", "more from the stack"),
        (b"]0e.", "more from the stack"),
        (b"h\x00.", "recalls object 0"),
        (b"2.", "0x32, is not a supported opcode"),
        (b"\x82\x01.", "0x82, is not a supported opcode"),
        (b"\x80\x06.", "protocol 6"),
        (b"\x8c\x01\xff.", r"b'\\xff' in it is not valid UTF-8"),
        (b"\x95" + b"\xff" * 8 + b".", "truncated: expected 18446744073709551615 more bytes"),
        (b"X\xff\xff\xff\xff.", "truncated: expected 4294967295 more bytes"),
        (b"\x8d" + b"\xff" * 7 + b"\x7f.", "truncated"),
        (b"\x96\x00\x00\x00\x00\x01\x00\x00\x00.", "truncated"),
        (b"I" + b"9" * 2000 + b"\n.", "truncated|not an integer"),
        (b"I1e5\n.", "'1e5' in it is not an integer"),
        (b"}K\x01s.", "more from the stack"),
        (b"}(K\x01u.", "key without a value"),
        (b"}]Ns.", "a list as a key"),
        (b"}))s.", "a tuple as a key"),
        (b"}" + b"\x8a\x09" + b"\xff" * 8 + b"\x7fNs.", "huge number as a key"),
        (b"NNNs.", "not a dict"),
        (b"NNa.", "not a list"),
        (b"NNb.", "state of something that has none"),
        (b"N)R.", "not a function"),
        (b"ccollections\nOrderedDict\nNR.", "invalid arguments"),
        (b"ccollections\nOrderedDict\nNN\x86R.", "invalid arguments"),
        (b"ccollections\nOrderedDict\n]K\x01a\x85R.", "from something other than items"),
        (b"cnumpy\nndarray\n)RNb.", "five items"),
        (b"c" + b"x" * 2000 + b"\n\n.", "truncated"),
    ],
)
def test_malformed(content: bytes, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        load(content)


def _bombs() -> Iterator[tuple[str, bytes]]:
    yield "a memo's index", b"Nr" + b"\xff" * 4 + b"."
    yield "empty dicts", b"(" + b"}" * 100_000 + b"t."
    yield "marks", b"(" * 100_000 + b"."
    yield "a memo", b"}" + b"\x94" * 100_000 + b"."
    yield "kept dicts", b"}\x94" * 100_000 + b"."
    yield "dicts of one item", b"(" + b"}K\x01Ns" * 100_000 + b"t."
    yield "floats", b"(" + (b"G" + b"\x01" * 8) * 100_000 + b"t."
    yield "views", b"(" + b"C\x00" * 100_000 + b"t."
    yield "names", b"(" + b"\x8c\x01x" * 100_000 + b"t."
    yield "wide names", b"(" + (b"\x8c\xff" + b"x" * 251 + "😀".encode()) * 100_000 + b"t."
    yield "wide text", text("x" * 10_000_000 + "😀") + b"."
    yield "objects", b"(" + b"ccollections\nOrderedDict\n)R" * 100_000 + b"t."
    yield "deep tuples", b")" + b"\x85" * 100_000 + b"."
    yield "deep lists", b"]" * 100_000 + b"a" * 999_999 + b"."
    # A tuple that contains itself twice, many times over, could not be hashed or compared in time.
    doubled = b")" + b"q\x00h\x00\x86" * 1000
    yield "a doubled tuple as a key", b"}" + doubled + b"Ns."
    yield "a doubled tuple as a dtype", b"cnumpy\ndtype\n" + doubled + b"\x85R."
    yield "a doubled tuple as a codec", b"c_codecs\nencode\n\x8c\x01x" + doubled + b"\x86R."
    yield "a doubled tuple as a shape", b"cnumpy\nndarray\n)R(K\x01" + doubled + b"NNNtb."
    # Long objects are stored once in the memo and used often.
    kept = text("x" * 1000) + b"q\x000"
    yield (
        "text encoded often",
        kept + b"(" + 100_000 * (b"c_codecs\nencode\nh\x00\x8c\x06latin1\x86R") + b"t.",
    )
    arguments = b"(" + b"N" * 100_000 + b"tq\x000"
    yield "many arguments", arguments + b"ccollections\nOrderedDict\nq\x010" + b"h\x01h\x00R" * 1000
    items = b"](" + b"]q\x01(K\x01Neh\x01" * 10_000 + b"eq\x000"
    yield (
        "items used often",
        items + b"ccollections\nOrderedDict\nq\x010(" + (b"h\x01h\x00\x85R" * 10_000 + b"t."),
    )
    big = b"\x8a\xff" + b"\x7f" * 255
    yield "huge keys", b"}" + (big + b"Ns") * 1000 + b"."


_BOMBS = dict(_bombs())


@pytest.mark.parametrize("name", _BOMBS)
def test_bombs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = _BOMBS[name]
    start = time.process_time()
    monkeypatch.setattr(unpickler, "BUDGET", 4 << 20)  # measuring is slow
    with bounded_memory(len(content) + (6 << 20)), suppress(Malformed, Refused):
        load(content)
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    "content",
    [
        b")" + b"\x85" * 300_000 + b".",
        b"]" * 150_000 + b"a" * 149_999 + b".",
        b"}" + b"K\x01}" * 90_000 + b"s" * 90_000 + b".",
    ],
)
def test_deep_nesting(content: bytes) -> None:
    """A deep object is created and freed without deep recursion."""
    loaded = load(content)
    assert loaded
    assert len(shorten(loaded)) < 20
    del loaded
