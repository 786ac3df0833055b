"""Attach this process's streams to a container that runs under a supervisor.

As for a container in the foreground, two threads copy, and the main thread waits and forwards signals.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SHUT_RDWR, SOCK_SEQPACKET
from _thread import allocate_lock, start_new_thread
from socket import socket

from minibox.base.files import closing
from minibox.base.sockets import check_peer
from minibox.engine.container import collection, lifecycle
from minibox.engine.process.attach_socket import socket_path
from minibox.engine.process.detach_keys import DETACH_KEYS, DetachKeys
from minibox.engine.process.signals import SignalForwarder, block
from minibox.engine.process.streams import write_all
from minibox.engine.process.terminal import Terminal
from minibox.engine.state import claim, containers, events
from minibox.errors import ContainerNotRunning, MiniboxError, kernel_says, suppress
from minibox.linux.process import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from minibox.base.home import Home

CHUNK = 8192  # native/parent/supervisor.c
# enum mb_client_packet
INPUT, CLOSE, SIZE, OUTPUT, ERROR, EXIT = b"icwoex"


def attach(
    home: Home,
    name_or_id: str,
    *,
    stdin: bool = True,
    detach_keys: str = DETACH_KEYS,
    sig_proxy: bool = True,
    on_note: Callable[[str], None] | None = None,
) -> int:
    """Attach this process's streams to a running container, until it ends or the user detaches.

    Args:
        stdin: pass input on to the container, if it was made with ``-i``.
        sig_proxy: forward signals to the container, unless it has a terminal.

    Returns:
        Its exit status, or 0 if the user has detached.

    Raises:
        ContainerNotFound, ContainerNotRunning
        MiniboxError: it is paused, or runs in the foreground of another command.
    """
    with lifecycle.Process(home.root, name_or_id, "attach to") as process:
        process.refuse_paused(name_or_id)
        if not process.live.supervisor:
            raise MiniboxError(
                f"container {name_or_id} runs in the foreground of another command, which uses its streams",
                f"open a shell in it: minibox exec -it {name_or_id} sh",
            )
        attachment = attachment_to(
            home.root, process.id, stdin=stdin, detach_keys=detach_keys, sig_proxy=sig_proxy, redraw=True
        )
        try:
            attachment.connect(socket_path(home.runroot, process.id))
            events.note_container(home.runroot, containers.read(home.root, process.id), "attach")
            return attachment.follow(home, process.id, on_note)
        finally:
            attachment.close()


def attachment_to(
    root: str, container_id: str, *, stdin: bool, detach_keys: str, sig_proxy: bool, redraw: bool = False
) -> Attachment:
    """Make an attachment that fits the container's options. It isn't connected yet."""
    options = containers.read(root, container_id).get("Options", {})
    return Attachment(
        stdin=stdin and bool(options.get("interactive")),
        tty=bool(options.get("tty")),
        detach_keys=detach_keys,
        sig_proxy=sig_proxy,
        redraw=redraw,
    )


class Attachment:
    """A client of a supervisor's socket.

    Attributes:
        terminal: the user's, if the container has a terminal. Changes of its size are passed on.
    """

    def __init__(
        self, *, stdin: bool, tty: bool, detach_keys: str = DETACH_KEYS, sig_proxy: bool = True, redraw: bool = False
    ) -> None:
        """Make a client; `connect` connects it.

        Args:
            stdin: pass input on to the container.
            tty: the container has a terminal.
            sig_proxy: forward signals to the container; never with a terminal, as in Docker.
            redraw: make a full-screen program redraw the terminal.

        Raises:
            UsageError: the detach keys are invalid, or the container has a terminal and standard input isn't one.
        """
        self._keys = DetachKeys(detach_keys if tty else "")
        self.terminal = _RemoteTerminal(stdin, self._send) if tty else None
        self._stdin, self._redraw = stdin, redraw
        self._proxies = sig_proxy and not tty
        self._status: int | None = None
        self._detached = False
        self._left_by = 0  # the signal
        self._failure: OSError | None = None
        self._ended = os.eventfd(0, os.EFD_CLOEXEC)
        self._input_done = os.eventfd(0, os.EFD_CLOEXEC)
        self._running = allocate_lock()
        self._socket: socket | None = None

    def connect(self, path: str) -> None:
        """Connect to a supervisor's socket, or to one that the supervisor will get.

        It goes through the directory's descriptor, because an address holds only 107 bytes.

        Raises:
            MiniboxError: nobody listens.
        """
        self._socket = socket(AF_UNIX, SOCK_SEQPACKET)
        try:
            with closing(os.open(os.path.dirname(path), os.O_PATH | os.O_CLOEXEC)) as directory:
                self._socket.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
            check_peer(self._socket, path)
        except (FileNotFoundError, ConnectionRefusedError):
            raise ContainerNotRunning("attach: the container has just ended") from None
        except OSError as error:
            raise MiniboxError(f"attach to {path}: {kernel_says(error)}") from error

    def follow(self, home: Home, container_id: str, on_note: Callable[[str], None] | None) -> int:
        """Copy until the container ends or the user detaches.

        Returns:
            The container's exit status; 0 if the user has detached; 128+N if signal N ended us, but not the container.
        """

        def send_signal(number: int) -> None:
            if not self._proxies:
                self._left_by = number
                os.eventfd_write(self._ended, 1)
                return
            with suppress(MiniboxError):  # it has just ended
                lifecycle.kill(home, container_id, number, wait=False)

        with SignalForwarder() as forwarding:
            self._copy_until_the_end(forwarding, send_signal)
        if self._failure and not self._left_by:
            raise self._failure
        if self._detached:
            found = containers.read(home.root, container_id)
            events.note_container(home.runroot, found, "detach")
            if on_note:
                on_note(f"detached: minibox attach {found['Name']} attaches again")
            return 0
        if self._left_by:
            return 128 + self._left_by
        watch = claim.OwnerWatch(home.root, container_id)
        try:
            if self._status is None:
                # Its supervisor was killed, and so was the container.
                self._status = 128 + SIGKILL
            if containers.read(home.root, container_id).get("Options", {}).get("restart", "no") == "no":
                lifecycle.wait_for_owner(watch)
            collection.collect_one(home, container_id)
        finally:
            watch.close()
        return self._status

    def _copy_until_the_end(self, forwarding: SignalForwarder, send_signal: Callable[[int], None]) -> None:
        if self.terminal:
            if self._redraw:
                self.terminal.send_size(1)  # a different size first: programs redraw only if the size changes
            self.terminal.copy_size(-1)
            self.terminal.enter_raw()
        self._running.acquire()
        start_new_thread(self._copy_output, ())
        if self._stdin:
            start_new_thread(self._copy_input, ())
        try:
            forwarding.wait(self._ended, send_signal, self.terminal)
        finally:
            if self.terminal:
                self.terminal.restore()

    def close(self) -> None:
        """Disconnect from the container."""
        os.eventfd_write(self._input_done, 1)
        if self._socket:
            with suppress(OSError):  # it was never connected, or the supervisor is gone
                self._socket.shutdown(SHUT_RDWR)
            if self._running.locked():
                self._running.acquire()
            self._socket.close()
        os.close(self._ended)
        os.close(self._input_done)

    def _send(self, kind: int, data: bytes = b"") -> bool:
        assert self._socket
        try:
            self._socket.send(bytes([kind]) + data)
        except OSError:
            return False  # the supervisor is gone: `_copy_output` notices
        return True

    def _copy_output(self) -> None:
        block()
        assert self._socket
        try:
            while packet := self._socket.recv(CHUNK + 1):
                kind, data = packet[0], packet[1:]
                if kind == EXIT:
                    self._status = int.from_bytes(data, "little", signed=True)
                    break
                write_all(1 if kind == OUTPUT else 2, data)
        except ConnectionResetError:
            pass  # the supervisor is gone
        except OSError as error:
            self._failure = error  # our output can't be written
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
            except BlockingIOError:  # another program that shares the terminal was faster
                continue
            except OSError:
                data = b""
            if not data:
                self._send(CLOSE)
                return
            data, detach = self._keys.feed(data)
            if data and not self._send(INPUT, data):
                return
            if detach:
                self._detached = True
                os.eventfd_write(self._ended, 1)
                return


class _RemoteTerminal(Terminal):
    """The user's terminal. Its size is sent to a supervisor."""

    def __init__(self, interactive: bool, send: Callable[[int, bytes], bool]) -> None:
        super().__init__(interactive)
        self._send = send

    def copy_size(self, _pty_master: int) -> None:
        self.send_size()

    def send_size(self, more_rows: int = 0) -> None:
        if self.fd >= 0:
            rows, columns = self.size()
            self._send(SIZE, (rows + more_rows).to_bytes(2, "little") + columns.to_bytes(2, "little"))
