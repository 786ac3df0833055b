"""A socket for ``RUN --mount=type=ssh``: it passes requests on to an ssh agent.

An agent answers only its own user, and root of a container is another one. So this program connects to the agent. As in
BuildKit, a RUN may list keys and sign, and can't add, remove or lock any. Source: draft-ietf-sshm-ssh-agent.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from threading import Thread

from minibox.base.files import closing

ALLOWED = (11, 13)  # SSH_AGENTC_REQUEST_IDENTITIES, SSH_AGENTC_SIGN_REQUEST
FAILURE = b"\0\0\0\1\5"  # SSH_AGENT_FAILURE
LENGTH_BYTES = 4
MESSAGE_BYTES_MAX = 256 << 10  # as OpenSSH's agent


class AgentSocket:
    """A socket that answers for the agent at ``agent_path``, until `close`."""

    def __init__(self, path: str, agent_path: str) -> None:
        """Make the socket.

        Args:
            path: of the new socket, in a directory that nobody else can write to.

        Raises:
            OSError: the kernel refused.
        """
        self._agent_path = agent_path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with closing(os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
                self._listener.bind(f"/proc/self/fd/{fd}/{os.path.basename(path)}")  # a path may be too long for bind
            self._listener.listen()
        except BaseException:
            self._listener.close()
            raise
        Thread(target=self._accept, name="ssh agent", daemon=True).start()

    def close(self) -> None:
        """Accept no more connections. Those that there are end with their commands."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread, which closes it

    def _accept(self) -> None:
        with self._listener:
            while True:
                try:
                    connection, _ = self._listener.accept()
                except OSError:
                    return
                Thread(target=self._answer, args=(connection,), name="ssh agent's client", daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
            agent.connect(self._agent_path)
            while request := _message(client):
                if request[LENGTH_BYTES] not in ALLOWED:
                    client.sendall(FAILURE)
                    continue
                agent.sendall(request)
                reply = _message(agent)
                if not reply:
                    return
                client.sendall(reply)


def _message(connection: socket.socket) -> bytes:
    """Read a message with its length; return b"" at the end, and if it is invalid."""
    head = _exactly(connection, LENGTH_BYTES)
    size = int.from_bytes(head, "big")
    if not 0 < size <= MESSAGE_BYTES_MAX:
        return b""
    body = _exactly(connection, size)
    return head + body if body else b""


def _exactly(connection: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        data = connection.recv(count - len(found))
        if not data:
            return b""
        found += data
    return found
