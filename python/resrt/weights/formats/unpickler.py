"""The only unpickler in resrt. It reads pickles of weights and executes nothing from them.

A pickle is a program for a small stack machine and may call any function that can be imported.
This machine imports nothing. The reader of a format lists the names that a pickle may ask for, with
what replaces each (inert.py, torch_tensors.py); any other name is an error.

The machine supports the opcodes that writers of weights use, from protocol 2 on. It accounts for
every object before it creates it, so that a small file cannot take much memory or time:

- Bytes are views of the file, and a long text is not decoded.
- Every opcode and every decoded text is charged to a fixed budget.
- Keys are short texts or 64-bit integers, so that nothing nested is ever hashed or compared.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from resrt.weights.formats.checkpoint import Malformed, Refused, shorten

# The memory that a file's structure may take besides the numbers in its arrays. The charge for an
# opcode exceeds the largest object that it creates, including its entries in the stack and memo.
BUDGET = 48 << 20
_CHARGE = 128
_CHARGE_OF_BYTES = 96  # for the view of them
_CHARGE_OF_FOREIGN = 1024  # for the exception that it holds, with its text
# A longer text is not a name. It may be the bytes of an array, as protocol 2 writes them.
_LONG = 1024
_ARGUMENTS = 16


@dataclass(frozen=True)
class Known:
    """A listed name of a module. `call` replaces a call of it; None: it must not be called."""

    name: str
    call: Callable[..., object] | None = None


class Placeholder:
    """An object that replaces one that the pickle names, and receives its state.

    `refusal` is why it is not what the pickle asks for, if the reader passes foreign objects.
    """

    __slots__ = ()
    refusal: Refused | None = None

    def build(self, state: object) -> None:
        """Receive the state; by default, ignore it."""

    def refuse(self, refusal: Refused) -> None:
        """Remember that the state was refused; by default, nothing depends on the state."""


class Foreign(Placeholder):
    """An object that weights do not need, in place of which nothing was created or called."""

    __slots__ = ("refusal",)

    def __init__(self, refusal: Refused) -> None:
        self.refusal = refusal


@dataclass(frozen=True)
class LongText:
    """A text that is not decoded."""

    utf8: memoryview


AllowList: TypeAlias = Mapping[str, Callable[..., object] | None]


class Unpickler:
    """Reads the pickles at the beginning of the content, one after another, within one budget.

    `known` lists the names that a pickle may ask for, as 'module.name', each with what replaces a
    call of it. `persistent` returns the object of a persistent id, in formats that have these. With
    `passes_foreign`, any other name stands for itself, and what is called by it becomes a Foreign
    without a call, for the reader to judge; otherwise it raises Refused.
    """

    def __init__(
        self,
        content: memoryview,
        known: AllowList,
        persistent: Callable[[object], object] | None = None,
        *,
        passes_foreign: bool = False,
    ) -> None:
        self.position = 0
        self.refused: Refused | None = None  # the first thing that was passed
        self._passes_foreign = passes_foreign
        self._content = content
        self._known = known
        self._found: dict[str, Known] = {}
        self._persistent = persistent
        self._budget = BUDGET
        self._memo: dict[int, object] = {}
        self._stack: list[object] = []
        self._marked: list[list[object]] = []  # the stacks below the marks

    def load(self) -> object:
        """Return the next pickle's object and move `position` to the pickle's end.

        Raises Malformed, or Refused if the pickle asks for a name that is not listed.
        """
        self._memo, self._stack, self._marked = {}, [], []
        try:
            while (opcode := self.take(1)[0]) != _STOP:
                self.charge(_CHARGE)
                if opcode not in _OPCODES:
                    raise Malformed(
                        f"its byte {self.position - 1}, {opcode:#04x}, is not a supported opcode"
                    )
                _OPCODES[opcode](self)
            return self.pop()
        except IndexError:
            raise Malformed("its pickle takes more from the stack than it contains") from None

    def take(self, size: int) -> memoryview:
        """Return the next bytes as a view."""
        left = len(self._content) - self.position
        if size > left:
            raise Malformed(
                f"it is truncated: expected {size} more bytes at byte {self.position}, found {left}"
            )
        self.position += size
        return self._content[self.position - size : self.position]

    def integer(self, size: int) -> int:
        """Return the next bytes as an unsigned integer."""
        return int.from_bytes(self.take(size), "little")

    def line(self) -> str:
        """Return the text up to the next line feed."""
        start = bytes(self._content[self.position : self.position + _LONG])
        end = start.find(b"\n")
        if end < 0:
            raise Malformed(
                f"it is truncated or damaged: the line at byte {self.position} has no end"
            )
        self.position += end + 1
        return _decode(memoryview(start[:end]))

    def charge(self, size: int) -> None:
        """Account for memory before it is allocated."""
        self._budget -= size
        if self._budget < 0:
            raise Malformed(
                f"its structure alone takes more than {BUDGET >> 20} MB of memory, which no "
                "weights do"
            )

    def push(self, value: object) -> None:
        """Put a value on the stack."""
        self._stack.append(value)

    def pop(self) -> object:
        """Remove the last value from the stack and return it."""
        return self._stack.pop()

    def top(self) -> object:
        """Return the last value, which stays on the stack."""
        return self._stack[-1]

    def mark(self) -> None:
        """Begin a group of values, which `pop_marked` ends."""
        self._marked.append(self._stack)
        self._stack = []

    def pop_marked(self) -> list[object]:
        """Remove the last mark and the values above it, and return these."""
        items, self._stack = self._stack, self._marked.pop()
        return items

    def memoize(self, index: int | None = None) -> None:
        """Store the last value in the memo."""
        self._memo[len(self._memo) if index is None else index] = self.top()

    def recall(self, index: int) -> None:
        """Push a value from the memo."""
        if index not in self._memo:
            raise Malformed(f"its pickle recalls object {index}, which is not in its memo")
        self.push(self._memo[index])

    def find(self, module: object, name: object) -> None:
        """Push a name of a module, if it is listed."""
        full = f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else ""
        if full not in self._known:
            named = shorten(full or "something without a name", 100)
            self.foreign(Refused(named, self._is_object()))
            return
        self.push(self._found.setdefault(full, Known(full, self._known[full])))

    def _is_object(self) -> bool:
        """Return whether the name just read is a class and an object of it follows."""
        following = bytes(self._content[self.position : self.position + 8])
        if following[:1] == b"\x94":  # MEMOIZE
            following = following[1:]
        elif following[:1] in (b"q", b"r"):  # BINPUT, LONG_BINPUT
            following = following[2 if following[:1] == b"q" else 5 :]
        # EMPTY_TUPLE and NEWOBJ: no arguments. PyTorch once wrote a module's class after "module".
        return following[:2] == b")\x81" or _is_text(self._stack[-1:], "module")

    def call(self, function: object, arguments: object) -> None:
        """Push the result of what replaces a call."""
        if isinstance(function, Foreign):
            self.push(function)
            return
        if not isinstance(function, Known):
            raise Malformed("its pickle calls something that is not a function")
        if not isinstance(arguments, tuple) or len(arguments) > _ARGUMENTS:
            raise Malformed(f"its pickle calls {function.name} with invalid arguments")
        if function.call is None:
            self.foreign(Refused(f"a call of {function.name}"))
            return
        try:
            self.push(function.call(*arguments))
        except Refused as refusal:
            self.foreign(refusal)
        except (TypeError, ValueError):
            raise Malformed(f"its pickle calls {function.name} with invalid arguments") from None

    def foreign(self, refusal: Refused) -> None:
        """Push a placeholder of what is refused, or raise the refusal."""
        if not self._passes_foreign:
            raise refusal
        self.charge(_CHARGE_OF_FOREIGN)
        self.refused = self.refused or refusal
        self.push(Foreign(refusal))

    def put(self, items: object, pairs: list[object]) -> None:
        """Set the items of a dict from alternating keys and values."""
        if isinstance(items, dict):
            for key, value in zip(pairs[::2], pairs[1::2], strict=True):
                if self._passes_foreign and not isinstance(key, (str, int)):
                    continue  # such as a parameter's tensor, which is a key in optimisers
                items[checked_key(key)] = value
        elif not isinstance(items, Placeholder):
            raise Malformed("its pickle sets items of something that is not a dict")

    def extend(self, items: object, values: list[object]) -> None:
        """Append to a list."""
        if isinstance(items, list):
            items.extend(values)
        elif not isinstance(items, Placeholder):
            raise Malformed("its pickle appends to something that is not a list")

    def build(self) -> None:
        """Set the state of an object."""
        state = self.pop()
        target = self.top()
        if not isinstance(target, Placeholder):
            raise Malformed("its pickle sets the state of something that has none")
        try:
            target.build(state)
        except Refused as refusal:
            if not self._passes_foreign:
                raise
            target.refuse(refusal)
        except (TypeError, ValueError):
            raise Malformed("its pickle sets an invalid state of an object") from None

    def refer(self) -> None:
        """Push the object of a persistent id."""
        if self._persistent is None:
            raise Refused("an object outside the pickle")
        self.push(self._persistent(self.pop()))

    def text(self, size: int) -> object:
        """Return the next text, decoded if it is short."""
        utf8 = self.take(size)
        if size > _LONG:
            return LongText(utf8)
        text = _decode(utf8)
        self.charge(sys.getsizeof(text))
        return text

    def string(self, size: int) -> object:
        """Return the next str of Python 2, which is a name or bytes."""
        string = self.take(size)
        return string if size > _LONG else str(string, "latin1")


def checked_key(key: object) -> str | int:
    """Return a dict's key if it is fast to hash and compare. Raises Malformed."""
    if isinstance(key, str) or (isinstance(key, int) and -(1 << 63) <= key < 1 << 64):
        return key
    raise Malformed(f"a dict in it has {shorten(key)} as a key, expected a name or a number")


def _is_text(values: list[object], text: str) -> bool:
    return len(values) == 1 and isinstance(values[0], str) and values[0] == text


def _decode(utf8: memoryview) -> str:
    try:
        return str(utf8, "utf-8")
    except UnicodeDecodeError:
        raise Malformed(f"{shorten(bytes(utf8))} in it is not valid UTF-8") from None


_Opcode: TypeAlias = Callable[[Unpickler], object]


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
    return lambda machine: machine.push(tuple([machine.pop() for _ in range(size)][::-1]))


def _protocol(machine: Unpickler) -> None:
    if (protocol := machine.integer(1)) > 5:
        raise Malformed(f"it is a pickle of protocol {protocol}; resrt supports 2 to 5")


def _frame(machine: Unpickler) -> None:
    # The frame's content is read as if there were no frame, which only reveals a truncated file.
    size = machine.integer(8)
    machine.take(size)
    machine.position -= size


def _int_line(machine: Unpickler) -> None:
    # Python 2 wrote integers of more than 32 bits this way.
    line = machine.line()
    if len(line) > 20 or not line.removeprefix("-").isdecimal():
        raise Malformed(f"{shorten(line)} in it is not an integer")
    machine.push(int(line))


def _long(machine: Unpickler) -> None:
    machine.push(int.from_bytes(machine.take(machine.integer(1)), "little", signed=True))


def _long_of_any_size(machine: Unpickler) -> None:
    number = machine.take(machine.integer(4))
    machine.charge(len(number))
    machine.push(int.from_bytes(number, "little", signed=True))


def _global(machine: Unpickler) -> None:
    machine.find(machine.line(), machine.line())


def _stack_global(machine: Unpickler) -> None:
    name = machine.pop()
    machine.find(machine.pop(), name)


def _call(machine: Unpickler) -> None:
    arguments = machine.pop()
    machine.call(machine.pop(), arguments)


def _call_with_names(machine: Unpickler) -> None:
    machine.pop()  # the named arguments, which nothing that is listed has
    _call(machine)


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
    0x8B: _long_of_any_size,
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
    # Written for a tuple that contains itself.
    ord("0"): Unpickler.pop,
    ord("1"): Unpickler.pop_marked,
    # Sets, as lists and tuples.
    0x8F: lambda machine: machine.push([]),
    0x90: _appends,
    0x91: lambda machine: machine.push(tuple(machine.pop_marked())),
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
    0x81: _call,  # NEWOBJ: a class, called like a function
    0x92: _call_with_names,
    ord("b"): Unpickler.build,
    ord("Q"): Unpickler.refer,
}
