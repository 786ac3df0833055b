"""Shorten a seccomp program that decides most system calls by their number alone.

libseccomp compares one number after the other. Loading a filter costs the kernel time for each instruction: it checks
and translates all of them, and runs them for every number to learn which are always allowed. We join neighbouring
numbers with the same result to ranges, and find the range by binary search. Parts that look at arguments stay as they
are.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Instruction = tuple[int, int, int, int]  # struct sock_filter: code, jump if true, if false, value
    #: The result for a number: "return" a value, "look" at arguments from an instruction on, or "no": we can't tell.
    Outcome = tuple[str, int]

LOAD, AND, JUMP, EQUAL, GREATER, GREATER_EQUAL, BITS, RETURN = 0x20, 0x54, 0x05, 0x15, 0x25, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE = 0, 4  # offsets in struct seccomp_data
_KNOWN = {LOAD, AND, JUMP, EQUAL, GREATER, GREATER_EQUAL, BITS, RETURN}
_ANY = 0  # no architecture has this number
_END = 1 << 32
_REACH = 255  # the most instructions that a comparison can jump over
_INSTRUCTION = struct.Struct("=HBBI")


def shorten(program: bytes) -> bytes:
    """Return an equivalent program that is shorter, or the same program if there is none.

    Args:
        program: ``struct sock_filter`` after ``struct sock_filter``, as exported by libseccomp.
    """
    code: list[Instruction] = list(_INSTRUCTION.iter_unpack(program))
    if not {each[0] for each in code} <= _KNOWN:
        return program
    found = [(arch, list(_ranges(code, arch))) for arch in (*_architectures(code), _ANY)]
    if any(kind == "no" for _, ranges in found for _, (kind, _) in ranges):
        return program
    writer = _Writer(code)
    entries = {where for _, ranges in found for _, (kind, where) in ranges if kind == "look"}
    writer.keep(entries)
    *sections, other = [writer.section(ranges) for _, ranges in reversed(found)][::-1]
    for (arch, _), section in reversed(list(zip(found, sections, strict=False))):
        other = writer.compare(EQUAL, arch, section, other)
    writer.put(LOAD, 0, 0, ARCHITECTURE)
    return min(writer.program(), program, key=len)


def _architectures(code: list[Instruction]) -> list[int]:
    """Return the architectures that the program compares with."""
    found: dict[int, None] = {}
    seen, open_ = set(), [(0, -1)]
    while open_:
        at, loaded = state = open_.pop()
        if state not in seen:
            seen.add(state)
            op, _, _, value = code[at]
            if op == EQUAL and loaded == ARCHITECTURE:
                found[value] = None
            open_ += [(after, value if op == LOAD else loaded) for after in _after(code, at)]
    return list(found)


def _after(code: list[Instruction], at: int) -> list[int]:
    """Return the indices of the instructions that may run after one."""
    op, if_true, if_false, value = code[at]
    if op == RETURN:
        return []
    if op == JUMP:
        return [at + 1 + value]
    if op in (LOAD, AND):
        return [at + 1]
    return [at + 1 + if_true, at + 1 + if_false]


def _ranges(code: list[Instruction], arch: int) -> Iterator[tuple[int, Outcome]]:
    """Yield the first number of each range of an architecture, and the result for the range."""
    first, last = {0}, None
    for op, _, _, value in code:
        if op in (EQUAL, GREATER, GREATER_EQUAL):
            first |= {value, value + 1}
    for number in sorted(first - {_END}):
        outcome = _outcome(code, arch, number)
        if outcome != last:
            yield number, outcome
        last = outcome


def _outcome(code: list[Instruction], arch: int, number: int) -> Outcome:
    at = loaded = 0
    while True:
        op, if_true, if_false, value = code[at]
        if op == RETURN:
            return "return", value
        if op == LOAD and value not in (NUMBER, ARCHITECTURE):
            return "look", at
        if op in (AND, BITS):
            return "no", at  # we find ranges only by comparisons
        at += 1
        if op == LOAD:
            loaded = arch if value == ARCHITECTURE else number
        elif op == JUMP:
            at += value
        else:
            holds = loaded == value if op == EQUAL else loaded > value if op == GREATER else loaded >= value
            at += if_true if holds else if_false


class _Writer:
    """Writes a program from its end to its beginning: jumps go forward, so their targets are written before them.

    A place is the number of instructions from it to the end.
    """

    def __init__(self, code: list[Instruction]) -> None:
        self._code = code
        self._written: list[Instruction] = []
        self._returns: dict[int, int] = {}  # the nearest place that returns a value
        self._kept: dict[int, int] = {}  # the places of copied instructions, by their index

    def program(self) -> bytes:
        return b"".join(_INSTRUCTION.pack(*each) for each in reversed(self._written))

    def put(self, op: int, if_true: int, if_false: int, value: int) -> int:
        self._written.append((op, if_true, if_false, value))
        return len(self._written)

    def returns(self, value: int) -> int:
        """Return a place that returns ``value``, near enough for the next comparison to jump to."""
        place = self._returns.get(value)
        if place is None or len(self._written) - place > _REACH - 2:
            place = self._returns[value] = self.put(RETURN, 0, 0, value)
        return place

    def near(self, place: int) -> int:
        """Return the place, or a jump to it, near enough for a comparison after one more instruction."""
        distance = len(self._written) - place
        return place if distance < _REACH else self.put(JUMP, 0, 0, distance)

    def compare(self, op: int, value: int, if_true: int, if_false: int) -> int:
        if_true = self.near(if_true)
        if_false = self.near(if_false)
        return self.put(op, len(self._written) - if_true, len(self._written) - if_false, value)

    def then(self, place: int) -> None:
        """Make the next written instruction continue at a place."""
        if place != len(self._written):
            self.put(JUMP, 0, 0, len(self._written) - place)

    def keep(self, entries: set[int]) -> None:
        """Copy all instructions that can be reached from these indices."""
        reached, open_ = set(), list(entries)
        while open_:
            index = open_.pop()
            if index not in reached:
                reached.add(index)
                open_ += _after(self._code, index)
        for index in sorted(reached, reverse=True):
            op, _, _, value = self._code[index]
            after = [self._kept[each] for each in _after(self._code, index)]
            if op == RETURN:
                self._kept[index] = self.returns(value)
            elif op == JUMP:
                self._kept[index] = after[0]
            elif len(after) == 1:
                self.then(after[0])
                self._kept[index] = self.put(op, 0, 0, value)
            else:
                self._kept[index] = self.compare(op, value, *after)

    def section(self, ranges: list[tuple[int, Outcome]]) -> int:
        """Write code that finds the range of the call's number, and goes to its result."""
        self.then(self._halve(ranges))
        return self.put(LOAD, 0, 0, NUMBER)

    def _halve(self, ranges: list[tuple[int, Outcome]]) -> int:
        if len(ranges) == 1:
            kind, value = ranges[0][1]
            return self.returns(value) if kind == "return" else self._kept[value]
        middle = len(ranges) // 2
        above = self._halve(ranges[middle:])
        below = self._halve(ranges[:middle])
        return self.compare(GREATER_EQUAL, ranges[middle][0], above, below)
