"""Operations -> the buffer that the interpreter loads: nothing that can be encoded is refused or changed on the way."""

from __future__ import annotations

import os
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from minibox._native import ffi, lib

from minibox.errors import UsageError
from minibox.linux.process import signatures
from minibox.plan import operations as op
from minibox.plan import parent
from minibox.plan.encode import HEAD, OP, encode
from minibox.plan.operations import HOST, NONE, Op

SIGNATURES = signatures()


def load(buffer: bytearray) -> int:
    """Load as `Child` does; the number of operations."""
    plan, bad_op = ffi.new("struct mb_plan *"), ffi.new("uint32_t *")
    if lib.mb_plan_load(ffi.from_buffer(buffer), len(buffer), plan, bad_op) < 0:
        raise ValueError(f"refused at operation {bad_op[0]}")
    count: int = plan.op_count
    return count


def decode(buffer: bytes) -> list[tuple[str, tuple[Any, ...]]]:
    """The operations of a buffer that was not loaded, by plan.h's description."""
    by_code = {code: (name, kinds) for name, (code, kinds) in SIGNATURES.items()}
    words = lambda at, count: [int.from_bytes(buffer[at + 8 * n : at + 8 * n + 8], "little") for n in range(count)]  # noqa: E731
    count = int.from_bytes(buffer[8:12], "little")
    blob = buffer[16 + 64 * count :]
    assert len(blob) == int.from_bytes(buffer[12:16], "little")

    def text(offset: int) -> str:
        return os.fsdecode(blob[offset : blob.index(0, offset)])

    def vector(offset: int) -> tuple[str, ...]:
        base = 16 + 64 * count + offset
        return tuple(map(text, words(base + 8, words(base, 1)[0])))

    found = []
    for number in range(count):
        at = 16 + 64 * number
        name, kinds = by_code[int.from_bytes(buffer[at : at + 4], "little")]
        args: list[Any] = []
        for kind, word in zip(kinds, words(at + 8, 7)):
            if kind == "b":
                args.append(bytes(blob[word & 0xFFFFFFFF :][: word >> 32]))
            elif kind == "v":
                args.append(vector(word))
            elif kind in "sz":
                args.append(None if word == NONE else text(word))
            else:
                args.append(word)
        found.append((name, tuple(args)))
    return found


def strings() -> st.SearchStrategy[str]:
    """What a command line can give: any bytes but NUL, decoded as Python decodes argv."""
    return st.binary(max_size=40).map(lambda data: os.fsdecode(data.replace(b"\0", b"?")))


ARGUMENTS: dict[str, st.SearchStrategy[Any]] = {
    "u": st.integers(0, (1 << 64) - 1),
    "s": strings(),
    "z": st.none() | strings(),
    "b": st.binary(max_size=40),
    "v": st.lists(strings(), max_size=4).map(tuple),
    "f": st.integers(0, op.SLOTS - 1),
    "o": st.integers(0, op.SLOTS - 1),
    "r": st.integers(0, op.SLOTS - 1) | st.integers(op.NO_LINKS, op.NO_LINKS + op.SLOTS - 1) | st.just(HOST),
}


@st.composite
def operations(draw: st.DrawFn) -> Op:
    name = draw(st.sampled_from([*SIGNATURES, "exec", "exec"]))
    return Op(name, tuple(draw(ARGUMENTS[kind]) for kind in SIGNATURES[name][1]), "")


@given(st.lists(operations(), max_size=12))
def test_any_operations_load_and_say_the_same(ops: list[Op]):
    buffer = encode(ops, SIGNATURES)
    assert decode(bytes(buffer)) == [(step.name, step.args) for step in ops]
    assert load(buffer) == len(ops)


@given(st.lists(operations(), min_size=1, max_size=6), st.data())
def test_a_buffer_that_is_cut_is_refused(ops: list[Op], data: st.DataObject):
    buffer = encode(ops, SIGNATURES)
    with pytest.raises(ValueError, match="refused"):
        load(buffer[: data.draw(st.integers(0, len(buffer) - 1))])


def test_equal_strings_are_stored_once():
    buffer = encode(
        [op.chdir("/where", ""), op.chdir("/where", ""), op.exec_(("/where",), ("/where",), (), "")], SIGNATURES
    )
    assert buffer.count(b"/where\0") == 1


@pytest.mark.parametrize(
    "text", ["a\0b", "\0", "half a pair: \ud800"], ids=["a NUL within", "a NUL", "a lone surrogate"]
)
@pytest.mark.parametrize(
    "make", [lambda text: op.chdir(text, ""), lambda text: op.exec_(("sh",), ("sh", text), (), "")]
)
def test_what_no_system_call_can_take_is_refused(make: Any, text: str):
    with pytest.raises(UsageError):
        encode([make(text)], SIGNATURES)


def test_a_slot_too_many_and_an_operation_too_many_are_refused():
    assert load(encode([op.chdir("/", "")] * 4096, SIGNATURES)) == 4096
    for ops in (
        [op.chdir("/", "")] * 4097,
        [op.mkdir(op.SLOTS, "/", "")],
        [op.mkdir(op.SLOTS | op.NO_LINKS, "/", "")],
        [op.mkdir(2 * op.NO_LINKS, "/", "")],
        [op.stdio(0, 1, HOST, "")],
    ):
        with pytest.raises(ValueError, match="refused"):
            load(encode(ops, SIGNATURES))


def test_a_wrong_number_of_arguments_is_a_mistake_of_ours():
    with pytest.raises(TypeError, match="mkdir takes 3"):
        encode([Op("mkdir", (HOST, "/"), "")], SIGNATURES)


# ---- the parent's ---------------------------------------------------------------------------------


def decoded(buffer: bytes, signatures_: dict[str, tuple[int, str]]) -> list[Op]:
    """The operations of an encoded plan, by their kinds."""
    by_code = {code: (name, kinds) for name, (code, kinds) in signatures_.items()}
    _, count, _ = HEAD.unpack_from(buffer)
    blob = buffer[HEAD.size + count * OP.size :]

    def text(offset: int) -> str:
        return os.fsdecode(blob[offset : blob.index(b"\0", offset)])

    def value(kind: str, word: int) -> Any:
        if kind == "u":
            return word
        if kind == "b":
            return bytes(blob[word & 0xFFFFFFFF : (word & 0xFFFFFFFF) + (word >> 32)])
        if kind == "v" and word != op.NONE:
            (length,) = struct.unpack_from("=Q", blob, word)
            return tuple(map(text, struct.unpack_from(f"={length}Q", blob, word + 8)))
        return None if word == op.NONE else text(word)

    found = []
    for number in range(count):
        code, *words = OP.unpack_from(buffer, HEAD.size + number * OP.size)
        name, kinds = by_code[code]
        found.append(Op(name, tuple(map(value, kinds, words)), "", op.PARENT))
    return found


EXAMPLES: dict[str, Any] = {"u": 1 << 40, "s": "/a b", "z": None, "b": b"\0a", "v": ("a:/b", "")}


@pytest.mark.parametrize("none", [True, False])
def test_each_operation_of_the_parents_goes_into_the_buffer_and_comes_out(none: bool):
    steps = [
        Op(name, tuple("" if kind == "z" and not none else EXAMPLES[kind] for kind in row[1]), "", op.PARENT)
        for name, row in parent.OPERATIONS.items()
    ]
    both = {**signatures(), **parent.signatures()}
    assert len({code for code, _ in both.values()}) == len(both)
    assert decoded(bytes(encode(steps, both)), both) == steps
