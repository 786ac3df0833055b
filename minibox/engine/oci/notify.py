"""sd_notify(3) for a container: a socket of its own, whose READY=1 is passed on to $NOTIFY_SOCKET.

The service manager accepts messages only from the service's own processes, which the container's aren't, and messages
from inside have pids of the container's namespace. So we send the message ourselves, with the pid on the host.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_DGRAM, socket
from select import POLLIN, poll

from minibox.errors import MiniboxError, kernel_says

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from minibox.oci.runtime import Spec

SOCK_CLOEXEC = 0o2000000
DIRECTORY, NAME = "notify", "notify.sock"
INSIDE = "/run/notify"
MESSAGE_BYTES_MAX = 4096
READY = b"READY=1"


def host_socket(environ: Mapping[str, str]) -> str:
    """Return the service manager's socket; "" if there is none."""
    return environ.get("NOTIFY_SOCKET", "")


def show(spec: Spec, directory: str) -> None:
    """Make a directory for the socket, and show the container the directory and the socket's path."""
    source = f"{directory}/{DIRECTORY}"
    os.mkdir(source, 0o755)
    options = ["bind", "nosuid", "noexec", "nodev", "ro"]
    spec["mounts"] = [*spec.get("mounts", ()), {"destination": INSIDE, "source": source, "options": options}]
    process = spec["process"]
    env = [word for word in process.get("env", ()) if not word.startswith("NOTIFY_SOCKET=")]
    process["env"] = [*env, f"NOTIFY_SOCKET={INSIDE}/{NAME}"]


class NotifyProxy:
    """The container's socket, connected to the service manager's."""

    def __init__(self, directory: str, host: str) -> None:
        """Listen.

        Raises:
            MiniboxError: the kernel refuses.
        """
        self._host = f"\0{host[1:]}" if host[:1] == "@" else host
        self._socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC)
        fd = os.open(f"{directory}/{DIRECTORY}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            path = f"/proc/self/fd/{fd}/{NAME}"  # the directory's own path may be too long for a socket address
            self._socket.bind(path)
            os.chmod(path, 0o777)  # for any user inside
        except OSError as error:
            self._socket.close()
            raise MiniboxError(f"listen at {directory}/{DIRECTORY}/{NAME}: {kernel_says(error)}") from error
        finally:
            os.close(fd)

    def wait_ready(self, pid: int, pidfd: int) -> None:
        """Wait until the container is ready, and pass that on with its pid; return too if it ends first."""
        waiting = poll()
        waiting.register(self._socket.fileno(), POLLIN)
        waiting.register(pidfd, POLLIN)
        while True:
            if self._socket.fileno() not in [fd for fd, _ in waiting.poll()]:
                return
            if READY in self._socket.recv(MESSAGE_BYTES_MAX).split(b"\n"):
                self._tell(READY + b"\nMAINPID=%d\n" % pid)
                return

    def _tell(self, message: bytes) -> None:
        with_host = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC)
        try:
            with_host.sendto(message, self._host)
        except OSError as error:
            raise MiniboxError(f"tell {self._host} that the container is ready: {kernel_says(error)}") from error
        finally:
            with_host.close()

    def close(self) -> None:
        self._socket.close()
