"""The keys that detach the user from a container's terminal. The container keeps running."""

from __future__ import annotations

from minibox.errors import UsageError

DETACH_KEYS = "ctrl-p,ctrl-q"


class DetachKeys:
    """Find the detach keys in what the user types."""

    def __init__(self, text: str) -> None:
        """Parse the keys.

        Args:
            text: as in Docker's ``--detach-keys``, separated by commas: a key, or ``ctrl-`` and one of
                ``a-z @ [ \\ ] ^ _``; "" for none.

        Raises:
            UsageError: ``text`` is invalid.
        """
        self._keys = b"".join(map(_key, text.split(","))) if text else b""
        self._held = bytearray()

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Take what the user typed. Return what to pass on to the container, and whether to detach.

        Keys that may begin the sequence are held back until the next key decides.
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
    raise UsageError(f"invalid detach keys: {word!r} is not a key", "write them like ctrl-p,ctrl-q")
