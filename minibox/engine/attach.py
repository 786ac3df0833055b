"""The caller's streams joined to those of a container that a supervisor looks after.

Two threads copy, as for a container in the foreground; the main thread waits, and passes signals on.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SHUT_RDWR, SOCK_SEQPACKET
from _thread import allocate_lock, start_new_thread
from socket import socket

from minibox.engine.signals import block
from minibox.engine.terminal import Terminal
from minibox.errors import MiniboxError, UsageError, kernel_says

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from minibox.engine.signals import Forwarding

DETACH_KEYS = "ctrl-p,ctrl-q"
CHUNK = 8192  # native/supervisor.c
# enum mb_client_packet
INPUT, CLOSE, SIZE, OUTPUT, ERROR, EXIT = b"icwoex"


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


class Attachment:
    """One client of a supervisor's socket.

    Attributes:
        status: the container's exit status; None when it goes on without us.
        terminal: the user's, where the container has one; a change of its size is passed on.
    """

    def __init__(self, path: str, *, stdin: bool, tty: bool, detach_keys: str = DETACH_KEYS) -> None:
        """Connect.

        Args:
            path: of the supervisor's socket; a long one is fine.
            stdin: what is typed goes to the container.
            tty: the container has a terminal.

        Raises:
            UsageError: the detach keys are none; input to a terminal comes from none.
            MiniboxError: nobody listens.
        """
        self._keys = DetachKeys(detach_keys if tty else "")
        self.terminal = _RemoteTerminal(stdin, self._send) if tty else None
        self.status: int | None = None
        self._stdin = stdin
        self._ended = os.eventfd(0, os.EFD_CLOEXEC)
        self._input_done = os.eventfd(0, os.EFD_CLOEXEC)
        self._running = allocate_lock()
        self._socket = socket(AF_UNIX, SOCK_SEQPACKET)
        try:
            self._connect(path)
        except OSError as error:
            self.close()
            raise MiniboxError(f"attach to {path}: {kernel_says(error)}") from error

    def _connect(self, path: str) -> None:
        """By way of the directory's descriptor: an address holds 107 bytes."""
        directory = os.open(os.path.dirname(path), os.O_PATH | os.O_CLOEXEC)
        try:
            self._socket.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
        finally:
            os.close(directory)

    def run(self, forwarding: Forwarding, send_signal: Callable[[int], None], stop_timeout_s: int) -> int | None:
        """Copy until the container ends (its exit status) or the user detaches (None).

        Args:
            send_signal: sends the container a signal that this process got.
        """
        if self.terminal:
            self.terminal.copy_size(-1)
            self.terminal.enter_raw()
        self._running.acquire()
        start_new_thread(self._copy_output, ())
        if self._stdin:
            start_new_thread(self._copy_input, ())
        try:
            forwarding.wait(self._ended, send_signal, self.terminal, -1, stop_timeout_s)
        finally:
            if self.terminal:
                self.terminal.restore()
        return self.status

    def close(self) -> None:
        """Let go of the container."""
        os.eventfd_write(self._input_done, 1)
        try:
            self._socket.shutdown(SHUT_RDWR)
        except OSError:
            pass  # it never was connected, or the supervisor has gone
        if self._running.locked():
            self._running.acquire()
        self._socket.close()
        os.close(self._ended)
        os.close(self._input_done)

    def _send(self, kind: int, data: bytes = b"") -> bool:
        try:
            self._socket.send(bytes([kind]) + data)
        except OSError:
            return False  # the supervisor has gone, and tells by its end of the output
        return True

    def _copy_output(self) -> None:
        block()
        try:
            while packet := self._socket.recv(CHUNK + 1):
                kind, data = packet[0], packet[1:]
                if kind == EXIT:
                    self.status = int.from_bytes(data, "little", signed=True)
                    break
                view = memoryview(data)
                while view:
                    view = view[os.write(1 if kind == OUTPUT else 2, view) :]
        except OSError:
            pass  # nobody reads our output any more, or we were told to let go
        finally:
            os.eventfd_write(self._ended, 1)
            self._running.release()

    def _copy_input(self) -> None:
        from select import POLLIN, poll

        block()
        waiting = poll()
        waiting.register(0, POLLIN)
        waiting.register(self._input_done, POLLIN)
        while all(fd == 0 for fd, _ in waiting.poll()):
            try:
                data = os.read(0, CHUNK)
            except OSError:
                data = b""
            if not data:
                self._send(CLOSE)
                return
            data, detach = self._keys.feed(data)
            if data and not self._send(INPUT, data):
                return
            if detach:
                os.eventfd_write(self._ended, 1)
                return


class _RemoteTerminal(Terminal):
    """The user's terminal, whose size a supervisor is told."""

    def __init__(self, interactive: bool, send: Callable[[int, bytes], bool]) -> None:
        super().__init__(interactive)
        self._send = send

    def copy_size(self, _pty_master: int) -> None:
        if self.fd >= 0:
            rows, columns = self.size()
            self._send(SIZE, rows.to_bytes(2, "little") + columns.to_bytes(2, "little"))
