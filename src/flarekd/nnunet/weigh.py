"""What a pickle would become, found by looking: a few bytes can stand for more than memory holds.

A pickle may use again what it has made. Tuples of twice the tuple before, forty times over, are a
hundred bytes; to hash, show or compare the last one takes as long as a tree of a million million
parts would. No plans and no weights come near these limits.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from typing import IO, Any

LONGEST_PICKLE = 1 << 26
"""Bytes, of the numbers of tensors nothing among them."""

MOST_OPCODES = 2_000_000
MOST_VALUES = 10_000_000
"""With everything that is used again counted again; a text or bytes count a value a letter."""

MOST_WORK = 10 * MOST_VALUES
DEEPEST = 100

_CHANGING = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}
"""What puts something into the first thing that it takes from the stack."""


class _Thing:
    """What lies on a pickle's stack: how many values it is, and how deep they are nested."""

    __slots__ = ("depth", "values")

    def __init__(self, values: int, depth: int) -> None:
        self.values, self.depth = values, depth

    def hold(self, values: int, depth: int) -> None:
        self.values += values
        self.depth = max(self.depth, depth + 1)
        if self.values > MOST_VALUES or self.depth > DEEPEST:
            message = f"more than {MOST_VALUES:,} values or {DEEPEST} levels"
            raise ValueError(message)


_MARK = _Thing(0, 0)


def check_pickle(file: IO[bytes]) -> None:
    """Go through the pickle that begins where the file stands; the file is then at its end.

    Raises:
        ValueError: If it is beyond the limits, or no pickle.
        IndexError: If it takes what is not there.
        KeyError: If it names what it has not kept.
    """
    start, machine = file.tell(), _Machine()
    for number, (opcode, argument, place) in enumerate(pickletools.genops(file)):
        length = (place or 0) - start
        if number > MOST_OPCODES or length > LONGEST_PICKLE:
            message = f"it goes on after {number:,} steps and {length:,} bytes"
            raise ValueError(message)
        # no honest pickle has more memos than bytes before them
        if opcode.name.endswith("PUT") and int(argument or 0) > length:
            message = f"memo {argument} at byte {place}"
            raise ValueError(message)
        machine.run(opcode, argument)


class _Machine:
    """Runs a pickle's opcodes on `_Thing`."""

    def __init__(self) -> None:
        self._stack: list[_Thing] = []
        self._memo: dict[int, _Thing] = {}
        self._work = 0

    def run(self, opcode: Any, argument: Any) -> None:
        stack, name = self._stack, opcode.name
        if name.endswith("PUT"):
            self._memo[int(argument)] = self._top()
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._top()
        elif name.endswith("GET"):
            stack.append(self._memo[int(argument)])
        elif name == "DUP":
            stack.append(self._top())
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "POP":
            stack.pop()
        else:
            self._make(opcode, argument)

    def _make(self, opcode: Any, argument: Any) -> None:
        """What takes some things from the stack and puts others there."""
        taken = list(self._take(opcode.stack_before))
        changed = [taken.pop()] if opcode.name in _CHANGING else []
        values = sum(thing.values for thing in taken)
        depth = max((thing.depth for thing in taken), default=0)
        self._work += values
        if self._work > MOST_WORK:
            message = f"more than {MOST_WORK:,} values, used again and again"
            raise ValueError(message)
        letters = len(argument) if isinstance(argument, str | bytes | bytearray) else 0
        letters += argument.bit_length() // 8 if isinstance(argument, int) else 0
        for thing in changed or [_Thing(1 + letters, 0) for _ in opcode.stack_after]:
            thing.hold(values, depth)
            self._stack.append(thing)

    def _take(self, wanted: list[Any]) -> Iterator[_Thing]:
        """The things that an opcode takes, the last one first."""
        names = [one.name for one in wanted]
        if "mark" in names:
            while (thing := self._stack.pop()) is not _MARK:
                yield thing
            del names[names.index("mark") :]
        for _ in names:
            yield self._top()
            self._stack.pop()

    def _top(self) -> _Thing:
        if self._stack[-1] is _MARK:
            raise ValueError("it takes what is not there")
        return self._stack[-1]


def check_values(value: Any) -> None:
    """Look at what a pickle has become: lists may hold what was put in later, or themselves.

    Raises:
        ValueError: If it is beyond the limits.
    """
    _count(value, {}, 0)


def _count(value: Any, known: dict[int, _Thing], level: int) -> _Thing:
    if not isinstance(value, dict | list | tuple | set | frozenset):
        return _Thing(1 + (len(value) if isinstance(value, str | bytes) else 0), 0)
    if id(value) in known:
        return known[id(value)]
    thing = _Thing(1, 0)
    known[id(value)] = _Thing(1, DEEPEST)  # what holds itself is deeper than any limit
    if level > DEEPEST:
        thing.hold(0, DEEPEST)
    for part in _parts(value):
        below = _count(part, known, level + 1)
        thing.hold(below.values, below.depth)
    known[id(value)] = thing
    return thing


def _parts(value: Any) -> Iterator[Any]:
    yield from value
    if isinstance(value, dict):
        yield from value.values()
