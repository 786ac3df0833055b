"""A Plan's operations as the flat buffer that ``native/plan.c`` checks and ``native/child.c`` runs."""

from __future__ import annotations

from os import fsencode
from struct import pack

from minibox.errors import UsageError
from minibox.plan.operations import NONE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from minibox.plan.operations import Argument, Op

MAGIC = 0x314E4C50584F424D  # plan.h: "MBOXPLN1"
ARGUMENTS = 6


def encode(ops: Iterable[Op], signatures: dict[str, tuple[int, str]]) -> bytearray:
    """Serialise ``ops``; layout in ``native/plan.h``.

    Args:
        signatures: code and argument kinds by operation name, from `linux.process.signatures`.

    Raises:
        UsageError: a string holds what no system call can take: a NUL, or half of a surrogate pair.
    """
    ops = tuple(ops)
    vectors = [arg for op in ops for arg in op.args if isinstance(arg, tuple)]
    blob = _Blob(sum(8 * (len(vector) + 1) for vector in vectors))
    heads: list[bytes] = []
    out = bytearray(pack("=QII", MAGIC, len(ops), 0))
    vector_offset = 0
    for op in ops:
        code, kinds = signatures[op.name]
        if len(kinds) != len(op.args):
            raise TypeError(f"{op.name} takes {len(kinds)} arguments, got {op.args!r}")
        words = []
        for kind, arg in zip(kinds, op.args):
            if isinstance(arg, tuple):
                heads.append(pack(f"={len(arg) + 1}Q", len(arg), *(blob.string(item) for item in arg)))
                words.append(vector_offset)
                vector_offset += len(heads[-1])
            else:
                words.append(blob.word(kind, arg))
        out += pack("=II6Q", code, 0, *words, *(0,) * (ARGUMENTS - len(words)))
    content = b"".join(heads) + blob.data
    out[12:16] = pack("=I", len(content))
    return out + content


class _Blob:
    """Strings and bytes behind the vectors; equal strings are stored once."""

    def __init__(self, base: int) -> None:
        self.base = base
        self.data = bytearray()
        self._offsets: dict[str, int] = {}

    def word(self, kind: str, arg: Argument) -> int:
        if kind == "b":
            assert isinstance(arg, bytes)
            return len(arg) << 32 | self._append(arg)
        if arg is None:
            return NONE
        if isinstance(arg, str):
            return self.string(arg)
        assert isinstance(arg, int)
        return arg & NONE

    def string(self, text: str) -> int:
        if text not in self._offsets:
            if "\0" in text:
                raise UsageError(f"a NUL character in {text!r}")
            try:
                data = fsencode(text)
            except UnicodeEncodeError:
                raise UsageError(f"not a string that can be encoded: {text!a}") from None
            self._offsets[text] = self._append(data + b"\0")
        return self._offsets[text]

    def _append(self, data: bytes) -> int:
        offset = self.base + len(self.data)
        self.data += data
        return offset
