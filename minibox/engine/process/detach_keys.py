"""The keys by which a user leaves a container's terminal while the container goes on."""

from __future__ import annotations

from minibox.errors import UsageError

DETACH_KEYS = "ctrl-p,ctrl-q"


class DetachKeys:
    """Finds the keys that mean detach among those typed."""

    def __init__(self, text: str) -> None:
        """Parse.

        Args:
            text: as Docker's ``--detach-keys``: keys or ``ctrl-`` and one of ``a-z @ [ \\ ] ^ _``, between
                commas; "" for none.

        Raises:
            UsageError: it is none of that.
        """
        self._keys = b"".join(map(_key, text.split(","))) if text else b""
        self._held = bytearray()

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What of ``data`` is for the container, and whether it is time to detach.

        Keys that begin the sequence are held back until one comes that doesn't belong to it.
        """
        out = bytearray()
        for byte in data:
            self._held.append(byte)
            while self._held and not self._keys.startswith(self._held):
                out.append(self._held.pop(0))
            if self._keys and self._held == self._keys:
                self._held.clear()
                return bytes(out), True
        return bytes(out), False


def _key(word: str) -> bytes:
    if len(word) == 1 and word.isascii():
        return word.encode()
    letter = word.removeprefix("ctrl-")
    if word.startswith("ctrl-") and len(letter) == 1 and (letter.isascii() and letter.islower() or letter in "@[\\]^_"):
        return bytes([ord(letter.upper()) & 0x1F])
    raise UsageError(f"invalid detach keys: {word!r} is no key", "write them as in ctrl-p,ctrl-q")
