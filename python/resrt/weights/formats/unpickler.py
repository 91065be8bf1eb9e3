"""The one unpickler of resrt: it reads the pickles that weights come in, and executes nothing.

A pickle is a program for a small stack machine, which may call any function that can be imported.
This machine imports nothing. A name that a pickle asks for stands for what the reader of the
format lists under it (stand_ins.py, pytorch.py), and a name outside that list ends the reading.

It knows the opcodes that writers of weights use, from protocol 2 on; and what it makes is measured
before it is made, so that a small file cannot ask for much memory or time:

- bytes are views of the file, and a long text stays the bytes that it is in the file;
- every opcode, and every text that is decoded, is charged to a fixed budget;
- keys are short texts or 64-bit integers, so that nothing nested is ever hashed or compared.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from resrt.weights.formats.checkpoint import Malformed, shorten

# What the structure of a file may take, beside the numbers in its arrays. An opcode's charge is
# more than the largest object that one opcode makes, with its places on the stack and in the memo.
BUDGET = 48 << 20
_CHARGE = 128
_CHARGE_OF_BYTES = 96  # what a view of them takes beside
# A longer text is no name; it may be the bytes of an array, as protocol 2 writes them.
_LONG = 1024
_ARGUMENTS = 16


class Refused(Exception):
    """A pickle that asks for something outside the list.

    `is_object`: what is asked for is the class of an object, as where a network was saved whole.
    """

    def __init__(self, what: str, is_object: bool = False) -> None:
        super().__init__(what)
        self.is_object = is_object


@dataclass(frozen=True)
class Known:
    """A listed name of a module. `call`: what stands in for calling it, where that is listed."""

    name: str
    call: Callable[..., object] | None = None


class StandIn:
    """An object that takes its state from a pickle, in place of one that the pickle names."""

    __slots__ = ()

    def build(self, state: object) -> None:
        """Take the state; by default, ignore it."""


@dataclass(frozen=True)
class LongText:
    """A text that is not decoded."""

    utf8: memoryview


AllowList: TypeAlias = Mapping[str, Callable[..., object] | None]


class Unpickler:
    """Reads the pickles that the content begins with, one after another, out of one budget.

    `known` lists the names a pickle may ask for, as 'module.name', with what stands in for calling
    each. `persistent` makes an object from a persistent id, in formats that have such.
    """

    def __init__(
        self,
        content: memoryview,
        known: AllowList,
        persistent: Callable[[object], object] | None = None,
    ) -> None:
        self.position = 0
        self._content = content
        self._known = known
        self._found: dict[str, Known] = {}
        self._persistent = persistent
        self._budget = BUDGET
        self._memo: dict[int, object] = {}
        self._stack: list[object] = []
        self._marked: list[list[object]] = []  # the stacks below the marks

    def load(self) -> object:
        """Return the next pickle's object, and leave `position` behind it.

        Raises Malformed, or Refused where the pickle asks for a name outside the list.
        """
        self._memo, self._stack, self._marked = {}, [], []
        try:
            while (opcode := self.take(1)[0]) != _STOP:
                self.charge(_CHARGE)
                if opcode not in _OPCODES:
                    raise Malformed(
                        f"its byte {self.position - 1}, {opcode:#04x}, is no opcode that a "
                        "pickle of weights has"
                    )
                _OPCODES[opcode](self)
            return self.pop()
        except IndexError:
            raise Malformed("its pickle takes more from the stack than there is") from None

    def take(self, size: int) -> memoryview:
        """The next bytes, where they lie."""
        left = len(self._content) - self.position
        if size > left:
            raise Malformed(
                f"it is cut off: {size} more bytes are due at byte {self.position}, "
                f"and {left} are there"
            )
        self.position += size
        return self._content[self.position - size : self.position]

    def integer(self, size: int) -> int:
        """The next bytes, as an unsigned integer."""
        return int.from_bytes(self.take(size), "little")

    def line(self) -> str:
        """The next bytes up to a line's end, as names are written."""
        start = bytes(self._content[self.position : self.position + _LONG])
        end = start.find(b"\n")
        if end < 0:
            raise Malformed(
                f"it is cut off, or damaged: the line at byte {self.position} has no end"
            )
        self.position += end + 1
        return _decode(memoryview(start[:end]))

    def charge(self, size: int) -> None:
        """Account for memory before it is taken."""
        self._budget -= size
        if self._budget < 0:
            raise Malformed(
                f"its structure alone takes more than {BUDGET >> 20} MB of memory, as that of no "
                "weights does"
            )

    def push(self, value: object) -> None:
        """Put a value on the stack."""
        self._stack.append(value)

    def pop(self) -> object:
        """Take the last value off the stack."""
        return self._stack.pop()

    def top(self) -> object:
        """The last value, which stays on the stack."""
        return self._stack[-1]

    def mark(self) -> None:
        """Begin what `pop_marked` will end."""
        self._marked.append(self._stack)
        self._stack = []

    def pop_marked(self) -> list[object]:
        """Everything above the last mark, and the mark."""
        items, self._stack = self._stack, self._marked.pop()
        return items

    def memoize(self, index: int | None = None) -> None:
        """Keep the last value, to be recalled by its index."""
        self._memo[len(self._memo) if index is None else index] = self.top()

    def recall(self, index: int) -> None:
        """Put a kept value on the stack once more."""
        if index not in self._memo:
            raise Malformed(f"its pickle recalls object {index}, which it never kept")
        self.push(self._memo[index])

    def find(self, module: object, name: object) -> None:
        """Push what stands for a name of a module."""
        full = f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else ""
        if full not in self._known:
            raise Refused(shorten(full or "what no name says", 100), self._is_object())
        self.push(self._found.setdefault(full, Known(full, self._known[full])))

    def _is_object(self) -> bool:
        """Whether the name just asked for is of a class, of which an object follows."""
        following = bytes(self._content[self.position : self.position + 8])
        if following[:1] == b"\x94":  # MEMOIZE
            following = following[1:]
        elif following[:1] in (b"q", b"r"):  # BINPUT, LONG_BINPUT
            following = following[2 if following[:1] == b"q" else 5 :]
        # EMPTY_TUPLE, NEWOBJ: no arguments. The other is how PyTorch once noted a module's class.
        return following[:2] == b")\x81" or _is_text(self._stack[-1:], "module")

    def call(self, function: object, arguments: object) -> None:
        """Push what stands in for a call."""
        if not isinstance(function, Known):
            raise Malformed("its pickle calls what is no function")
        if not isinstance(arguments, tuple) or len(arguments) > _ARGUMENTS:
            raise Malformed(f"its pickle calls {function.name} with odd arguments")
        if function.call is None:
            raise Refused(f"a call of {function.name}")
        try:
            self.push(function.call(*arguments))
        except (TypeError, ValueError):
            raise Malformed(f"its pickle calls {function.name} with odd arguments") from None

    def put(self, items: object, pairs: list[object]) -> None:
        """Set the items of a dict: keys and values by turns."""
        if isinstance(items, dict):
            for key, value in zip(pairs[::2], pairs[1::2], strict=True):
                items[checked_key(key)] = value
        elif not isinstance(items, StandIn):
            raise Malformed("its pickle sets items of what is no dict")

    def extend(self, items: object, values: list[object]) -> None:
        """Append to a list."""
        if isinstance(items, list):
            items.extend(values)
        elif not isinstance(items, StandIn):
            raise Malformed("its pickle appends to what is no list")

    def build(self) -> None:
        """Set the state of an object."""
        state = self.pop()
        target = self.top()
        if not isinstance(target, StandIn):
            raise Malformed("its pickle sets the state of what has none")
        try:
            target.build(state)
        except (TypeError, ValueError):
            raise Malformed("its pickle sets an odd state of an object") from None

    def refer(self) -> None:
        """Push the object of a persistent id."""
        if self._persistent is None:
            raise Refused("an object outside the pickle")
        self.push(self._persistent(self.pop()))

    def text(self, size: int) -> object:
        """A text: decoded where it is short."""
        utf8 = self.take(size)
        if size > _LONG:
            return LongText(utf8)
        text = _decode(utf8)
        self.charge(sys.getsizeof(text))
        return text

    def string(self, size: int) -> object:
        """A str of Python 2: a name, or bytes."""
        string = self.take(size)
        return string if size > _LONG else str(string, "latin1")


def checked_key(key: object) -> str | int:
    """A dict's key, if it is one that cannot take long to hash or compare. Raises Malformed."""
    if isinstance(key, str) or (isinstance(key, int) and -(1 << 63) <= key < 1 << 64):
        return key
    raise Malformed(f"a dict in it has {shorten(key)} for a key, where names or numbers are due")


def _is_text(values: list[object], text: str) -> bool:
    return len(values) == 1 and isinstance(values[0], str) and values[0] == text


def _decode(utf8: memoryview) -> str:
    try:
        return str(utf8, "utf-8")
    except UnicodeDecodeError:
        raise Malformed(f"{shorten(bytes(utf8))} in it is no text") from None


_Opcode: TypeAlias = Callable[[Unpickler], None]


def _constant(value: object) -> _Opcode:
    return lambda machine: machine.push(value)


def _number(form: str) -> _Opcode:
    number = struct.Struct(form)
    return lambda machine: machine.push(number.unpack(machine.take(number.size))[0])


def _bytes(size: int) -> _Opcode:
    def push(machine: Unpickler) -> None:
        machine.charge(_CHARGE_OF_BYTES)
        machine.push(machine.take(machine.integer(size)))

    return push


def _text(size: int) -> _Opcode:
    return lambda machine: machine.push(machine.text(machine.integer(size)))


def _string(size: int) -> _Opcode:
    return lambda machine: machine.push(machine.string(machine.integer(size)))


def _put(size: int) -> _Opcode:
    return lambda machine: machine.memoize(machine.integer(size))


def _get(size: int) -> _Opcode:
    return lambda machine: machine.recall(machine.integer(size))


def _tuple(size: int) -> _Opcode:
    def push(machine: Unpickler) -> None:
        machine.push(tuple([machine.pop() for _ in range(size)][::-1]))

    return push


def _protocol(machine: Unpickler) -> None:
    if (protocol := machine.integer(1)) > 5:
        raise Malformed(f"it is a pickle of protocol {protocol}; resrt knows 2 to 5")


def _frame(machine: Unpickler) -> None:
    # What follows is read as if it were in no frame; only a file that is cut off shows here.
    size = machine.integer(8)
    machine.take(size)
    machine.position -= size


def _int_line(machine: Unpickler) -> None:
    # How Python 2 wrote integers of more than 32 bits.
    line = machine.line()
    if len(line) > 20 or not line.removeprefix("-").isdecimal():
        raise Malformed(f"{shorten(line)} in it is no integer")
    machine.push(int(line))


def _long(machine: Unpickler) -> None:
    machine.push(int.from_bytes(machine.take(machine.integer(1)), "little", signed=True))


def _global(machine: Unpickler) -> None:
    machine.find(machine.line(), machine.line())


def _stack_global(machine: Unpickler) -> None:
    name = machine.pop()
    machine.find(machine.pop(), name)


def _call(machine: Unpickler) -> None:
    arguments = machine.pop()
    machine.call(machine.pop(), arguments)


def _append(machine: Unpickler) -> None:
    value = machine.pop()
    machine.extend(machine.top(), [value])


def _appends(machine: Unpickler) -> None:
    values = machine.pop_marked()
    machine.extend(machine.top(), values)


def _set_item(machine: Unpickler) -> None:
    value = machine.pop()
    key = machine.pop()
    machine.put(machine.top(), [key, value])


def _set_items(machine: Unpickler) -> None:
    pairs = machine.pop_marked()
    if len(pairs) % 2:
        raise Malformed("a dict in it has a key without a value")
    machine.put(machine.top(), pairs)


def _discard(machine: Unpickler) -> None:
    machine.pop()


def _discard_marked(machine: Unpickler) -> None:
    machine.pop_marked()


_STOP = ord(".")
_OPCODES: dict[int, _Opcode] = {
    0x80: _protocol,
    0x95: _frame,
    # Values.
    ord("N"): _constant(None),
    0x88: _constant(True),
    0x89: _constant(False),
    ord("K"): _number("<B"),
    ord("M"): _number("<H"),
    ord("J"): _number("<i"),
    ord("G"): _number(">d"),
    ord("I"): _int_line,
    0x8A: _long,
    ord("C"): _bytes(1),
    ord("B"): _bytes(4),
    0x8E: _bytes(8),
    0x96: _bytes(8),  # a bytearray
    0x8C: _text(1),
    ord("X"): _text(4),
    0x8D: _text(8),
    ord("U"): _string(1),
    ord("T"): _string(4),
    # Containers.
    ord("("): Unpickler.mark,
    ord(")"): _constant(()),
    0x85: _tuple(1),
    0x86: _tuple(2),
    0x87: _tuple(3),
    ord("t"): lambda machine: machine.push(tuple(machine.pop_marked())),
    ord("]"): lambda machine: machine.push([]),
    ord("a"): _append,
    ord("e"): _appends,
    ord("}"): lambda machine: machine.push({}),
    ord("s"): _set_item,
    ord("u"): _set_items,
    # What a tuple that contains itself makes of the stack.
    ord("0"): _discard,
    ord("1"): _discard_marked,
    # The memo.
    ord("q"): _put(1),
    ord("r"): _put(4),
    0x94: Unpickler.memoize,
    ord("h"): _get(1),
    ord("j"): _get(4),
    # Objects.
    ord("c"): _global,
    0x93: _stack_global,
    ord("R"): _call,
    0x81: _call,  # NEWOBJ: of a class, as if it were a function
    ord("b"): Unpickler.build,
    ord("Q"): Unpickler.refer,
}
