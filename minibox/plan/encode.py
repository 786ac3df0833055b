"""Encode a Plan's operations into the flat buffer that ``native/plan.c`` checks and ``native/child/`` runs."""

from __future__ import annotations

from os import fsencode
from struct import Struct, pack, pack_into

from minibox.errors import UsageError
from minibox.plan.operations import NONE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from minibox.plan.operations import Op

MAGIC = 0x314E4C50584F424D  # plan.h: "MBOXPLN1"
HEAD = Struct("=QII")
OP = Struct("=I4x7Q")  # struct mb_op
pack_op = OP.pack


def encode(ops: Iterable[Op], signatures: dict[str, tuple[int, str]]) -> bytearray:
    """Serialise ``ops``; layout in ``native/plan.h``.

    Args:
        signatures: code and argument kinds by operation name, from `linux.process.signatures`.

    Raises:
        UsageError: a string contains a NUL or can't be encoded.
    """
    ops = tuple(ops)
    vectors = [arg for op in ops for arg in op.args if type(arg) is tuple]
    blob = _Blob(sum(8 * (len(vector) + 1) for vector in vectors))
    offsets, string = blob.offsets, blob.string
    heads: list[bytes] = []
    parts: list[bytes] = []
    vector_offset = 0
    for op in ops:
        code, kinds = signatures[op.name]
        if len(kinds) != len(op.args):
            raise TypeError(f"{op.name} takes {len(kinds)} arguments, got {op.args!r}")
        words = [code, 0, 0, 0, 0, 0, 0, 0]
        for place, arg in enumerate(op.args, 1):
            if arg is None:
                words[place] = NONE
            elif type(arg) is str:
                words[place] = offsets[arg] if arg in offsets else string(arg)
            elif type(arg) is tuple:
                heads.append(pack(f"={len(arg) + 1}Q", len(arg), *map(string, arg)))
                words[place] = vector_offset
                vector_offset += len(heads[-1])
            elif type(arg) is bytes:
                words[place] = len(arg) << 32 | blob.append(arg)
            else:
                number: Any = arg
                words[place] = number & NONE
        parts.append(pack_op(*words))
    content = b"".join(heads) + blob.data
    return bytearray(b"".join((HEAD.pack(MAGIC, len(ops), len(content)), *parts, content)))


def count_of(buffer: bytes | bytearray) -> int:
    """Return the number of operations in an encoded plan."""
    return int(HEAD.unpack_from(buffer)[1])


def put_numbers(buffer: bytearray, index: int, *numbers: int) -> None:
    """Replace the arguments of the operation ``index`` in an encoded plan; all must be numbers."""
    pack_into(f"={len(numbers)}Q", buffer, HEAD.size + index * OP.size + 8, *numbers)


class _Blob:
    """Strings and bytes after the vectors; equal strings are stored once."""

    def __init__(self, base: int) -> None:
        self.base = base
        self.data = bytearray()
        self.offsets: dict[str, int] = {}

    def string(self, text: str) -> int:
        if text not in self.offsets:
            if "\0" in text:
                raise UsageError(f"NUL character in {text!r}")
            try:
                data = fsencode(text)
            except UnicodeEncodeError:
                raise UsageError(f"can't encode the string: {text!a}") from None
            self.offsets[text] = self.append(data + b"\0")
        return self.offsets[text]

    def append(self, data: bytes) -> int:
        offset = self.base + len(self.data)
        self.data += data
        return offset
