"""The caller's streams joined to those of a container that a supervisor looks after.

Two threads copy, as for a container in the foreground; the main thread waits, and passes signals on.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SHUT_RDWR, SOCK_SEQPACKET
from _thread import allocate_lock, start_new_thread
from socket import socket

from minibox.base.sockets import check_peer
from minibox.engine.container import lifecycle, removal
from minibox.engine.process.attach_socket import socket_path
from minibox.engine.process.detach_keys import DETACH_KEYS, DetachKeys
from minibox.engine.process.signals import Forwarding, block
from minibox.engine.process.streams import write_all
from minibox.engine.process.terminal import Terminal
from minibox.engine.state import claim, containers, events
from minibox.errors import ContainerNotRunning, MiniboxError, kernel_says

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SIGKILL = 9
CHUNK = 8192  # native/supervisor.c
# enum mb_client_packet
INPUT, CLOSE, SIZE, OUTPUT, ERROR, EXIT = b"icwoex"


def attach(
    name_or_id: str,
    *,
    root: str,
    runroot: str,
    stdin: bool = True,
    detach_keys: str = DETACH_KEYS,
    sig_proxy: bool = True,
    on_note: Callable[[str], None] | None = None,
) -> int:
    """Join this process's streams to those of a container that runs.

    Args:
        stdin: what is typed goes to the container, where that was made with ``-i``.
        sig_proxy: signals to this process are the container's, unless that has a terminal.

    Returns:
        Its exit status, or 0 when the user has detached.

    Raises:
        ContainerNotFound, ContainerNotRunning
        MiniboxError: it is paused, or runs in the foreground of another command.
    """
    with lifecycle.Process(root, name_or_id, "attach to") as process:
        if process.group.is_frozen():
            raise MiniboxError(f"container {name_or_id} is paused", f"minibox unpause {name_or_id}")
        if not process.live.supervisor:
            raise MiniboxError(
                f"container {name_or_id} runs in the foreground of another command, which has its streams",
                f"minibox exec -it {name_or_id} sh opens a shell in it",
            )
        attachment = attachment_to(
            root, process.id, stdin=stdin, detach_keys=detach_keys, sig_proxy=sig_proxy, redraw=True
        )
        try:
            attachment.connect(socket_path(runroot, process.id))
            events.note_container(runroot, containers.read(root, process.id), "attach")
            return attachment.follow(root, runroot, process.id, on_note)
        finally:
            attachment.close()


def attachment_to(
    root: str, container_id: str, *, stdin: bool, detach_keys: str, sig_proxy: bool, redraw: bool = False
) -> Attachment:
    """One that fits what the container was made with; not connected yet."""
    options = containers.read(root, container_id).get("Options", {})
    return Attachment(
        stdin=stdin and bool(options.get("interactive")),
        tty=bool(options.get("tty")),
        detach_keys=detach_keys,
        sig_proxy=sig_proxy,
        redraw=redraw,
    )


class Attachment:
    """One client of a supervisor's socket.

    Attributes:
        terminal: the user's, where the container has one; a change of its size is passed on.
    """

    def __init__(
        self, *, stdin: bool, tty: bool, detach_keys: str = DETACH_KEYS, sig_proxy: bool = True, redraw: bool = False
    ) -> None:
        """Prepare; `connect` follows.

        Args:
            stdin: what is typed goes to the container.
            tty: the container has a terminal.
            sig_proxy: signals to this process are the container's; with a terminal they never are, as in Docker.
            redraw: a program that fills the terminal shall do it anew.

        Raises:
            UsageError: the detach keys are none; input to a terminal comes from none.
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
        """Connect to a supervisor's socket, or one that is going to be a supervisor's.

        By way of the directory's descriptor: an address holds 107 bytes.

        Raises:
            MiniboxError: nobody listens.
        """
        self._socket = socket(AF_UNIX, SOCK_SEQPACKET)
        try:
            directory = os.open(os.path.dirname(path), os.O_PATH | os.O_CLOEXEC)
            try:
                self._socket.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
            finally:
                os.close(directory)
            check_peer(self._socket, path)
        except (FileNotFoundError, ConnectionRefusedError):
            raise ContainerNotRunning("attach: the container has just ended") from None
        except OSError as error:
            raise MiniboxError(f"attach to {path}: {kernel_says(error)}") from error

    def follow(self, root: str, runroot: str, container_id: str, on_note: Callable[[str], None] | None) -> int:
        """Copy until the container ends, or the user has had enough of it.

        Returns:
            The container's exit status; 0 when the user has detached; 128+N when signal N ended us and not it.
        """

        def send_signal(number: int) -> None:
            if not self._proxies:
                self._left_by = number
                os.eventfd_write(self._ended, 1)
                return
            try:
                lifecycle.kill(container_id, number, root=root, runroot=runroot, wait=False)
            except MiniboxError:
                pass  # it has just ended

        with Forwarding() as forwarding:
            self._copy_until_the_end(forwarding, send_signal)
        if self._failure and not self._left_by:
            raise self._failure
        if self._detached:
            found = containers.read(root, container_id)
            events.note_container(runroot, found, "detach")
            if on_note:
                on_note(f"detached: minibox attach {found['Name']} comes back")
            return 0
        if self._left_by:
            return 128 + self._left_by
        watch = claim.Watch(root, container_id)
        try:
            if self._status is None:
                # Its supervisor was killed, and the container with it.
                self._status = 128 + SIGKILL
            if containers.read(root, container_id).get("Options", {}).get("restart", "no") == "no":
                lifecycle.wait_for_owner(watch)
            removal.collect_one(root, runroot, container_id)
        finally:
            watch.close()
        return self._status

    def _copy_until_the_end(self, forwarding: Forwarding, send_signal: Callable[[int], None]) -> None:
        if self.terminal:
            if self._redraw:
                self.terminal.send_size(1)  # one that is told the size it has already draws nothing
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
        """Let go of the container."""
        os.eventfd_write(self._input_done, 1)
        if self._socket:
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
        assert self._socket
        try:
            self._socket.send(bytes([kind]) + data)
        except OSError:
            return False  # the supervisor has gone, and tells by its end of the output
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
            pass  # the supervisor has gone
        except OSError as error:
            self._failure = error  # nobody reads our output any more
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
            except BlockingIOError:  # another program that has the file has read it
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
    """The user's terminal, whose size a supervisor is told."""

    def __init__(self, interactive: bool, send: Callable[[int, bytes], bool]) -> None:
        super().__init__(interactive)
        self._send = send

    def copy_size(self, _pty_master: int) -> None:
        self.send_size()

    def send_size(self, more_rows: int = 0) -> None:
        if self.fd >= 0:
            rows, columns = self.size()
            self._send(SIZE, (rows + more_rows).to_bytes(2, "little") + columns.to_bytes(2, "little"))
