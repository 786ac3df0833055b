"""Wait until a container of the calling program is ready: for a port, its log, an HTTP answer, a file or a command."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from time import monotonic, sleep

from minibox.base.files import closing
from minibox.engine.container.logs import LogReader
from minibox.engine.host.interrupts import uninterrupted
from minibox.engine.resources.network_socket import tcp_socket
from minibox.errors import ContainerNotRunning, MiniboxError, TimedOut, UsageError, kernel_says
from minibox.linux.files import open_in_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from minibox.engine.container.embedded import Embedded

POLL_FIRST_S, POLL_MOST_S = 0.002, 0.1
REQUEST_S = 5.0
LISTENS = "0A"  # TCP_LISTEN, in proc_pid_net(5)
WINDOW = 1 << 16  # the longest match in a log, in characters
HTTP_PORT = 80
LINES_SHOWN = 10


class Condition(ABC):
    """A condition to wait for.

    Attributes:
        words: its name for messages.
        blocks: whether `is_met` may take long, because it waits for another program.
        last: what the last check found; "" for nothing to add.
    """

    words = last = ""
    blocks = False

    @abstractmethod
    def is_met(self) -> bool:
        """Check the condition."""

    def close(self) -> None:  # noqa: B027, most hold nothing
        """Close what it holds open."""


class Port(Condition):
    """A program listens on a TCP port. This reads the kernel's table of the container's network and doesn't connect."""

    def __init__(self, box: Embedded, port: int) -> None:
        if not 0 < port < 1 << 16:
            raise UsageError(f"port {port} is out of range", "use 1 to 65535")
        self._box, self._port = box, f":{port:04X}"
        self.words = f"port {port}"

    def is_met(self) -> bool:
        for table in ("tcp", "tcp6"):
            try:
                with open(f"/proc/{self._box.pid}/net/{table}", encoding="ascii") as file:
                    if any(words[1].endswith(self._port) and words[3] == LISTENS for words in map(str.split, file)):
                        return True
            except OSError:
                continue  # there is no IPv6, or the container has ended, which `pauses` checks
        return False


class Log(Condition):
    """The output of the main process contains a text, or matches a regular expression."""

    def __init__(self, box: Embedded, wanted: str | re.Pattern[str]) -> None:
        if box.log is None:
            raise UsageError(f"sandbox {box.name} has no main process, so it has no log", "give it args, or service")
        self._pattern = re.compile(re.escape(wanted)) if isinstance(wanted, str) else wanted
        self.words = f"{wanted if isinstance(wanted, str) else wanted.pattern!r} in its log"
        self._reader, self._seen = LogReader(box.log.path), ""

    def is_met(self) -> bool:
        for more in self._reader.pieces(WINDOW):
            self._seen += more
            if self._pattern.search(self._seen):
                return True
            self._seen = self._seen[-WINDOW:]
        return False

    def close(self) -> None:
        self._reader.close()


class Http(Condition):
    """A GET request is answered with a status below 400. It is sent from inside, so that no network is needed."""

    blocks = True

    def __init__(self, box: Embedded, where: str, port: int | None) -> None:
        from urllib.parse import urlsplit

        url = urlsplit(where)
        if url.scheme not in ("", "http") or not (url.path or url.netloc):
            raise UsageError(f"wait for {where!r}: expected a path or an http:// URL")
        self._box, self._host = box, url.hostname or "127.0.0.1"
        self._port = port or url.port or HTTP_PORT
        self._path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        self.words = f"http://{self._host}:{self._port}{self._path}"

    def is_met(self) -> bool:
        from http.client import HTTPConnection, HTTPException

        connection = HTTPConnection(self._host, self._port, timeout=REQUEST_S)
        try:
            with tcp_socket(self._box.pid) as socket:
                socket.settimeout(REQUEST_S)
                host = "127.0.0.1" if self._host == "localhost" else self._host
                socket.connect((host, self._port))
                connection.sock = socket
                connection.request("GET", self._path)
                answer = connection.getresponse()
                self.last = f"{answer.status} {answer.reason}"
                return answer.status < 400
        except (OSError, HTTPException, MiniboxError) as error:
            self.last = kernel_says(error) if isinstance(error, OSError) and error.errno else str(error)
            return False
        finally:
            connection.close()


class File(Condition):
    """A path exists."""

    def __init__(self, box: Embedded, path: str) -> None:
        self._box, self._path = box, path
        self.words = f"the file {path}"

    def is_met(self) -> bool:
        try:
            with closing(os.open(f"/proc/{self._box.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
                os.close(open_in_root(root, self._path, os.O_PATH))
        except OSError:
            return False
        return True


class Succeeds(Condition):
    """A command succeeds."""

    blocks = True

    def __init__(self, command: tuple[str, ...], run: Callable[[], bool]) -> None:
        self.words = f"{' '.join(command)} to succeed"
        self._run = run

    def is_met(self) -> bool:
        return self._run()


def wait_until(box: Embedded, condition: Condition, timeout_s: float) -> None:
    """Wait until a condition is met.

    Raises:
        TimedOut: it wasn't met within ``timeout_s``.
        ContainerNotRunning: the main process has ended.
    """
    try:
        for pause_s in pauses(box, condition, timeout_s):
            look = condition.is_met
            if look() if isinstance(condition, Succeeds) else uninterrupted(look):  # a command may never end
                return
            sleep(pause_s)
    finally:
        condition.close()


def pauses(box: Embedded, condition: Condition, timeout_s: float) -> Iterator[float]:
    """Yield how long to sleep after each check. Raises the errors of `wait_until` when waiting is useless."""
    deadline, pause_s = monotonic() + timeout_s, POLL_FIRST_S
    while True:
        ended = not box.is_running()
        yield pause_s  # check once more after its end: its last action may have met the condition
        if ended:
            raise ContainerNotRunning(f"wait for {condition.words}: sandbox {box.name} has ended: {_account(box)}")
        if monotonic() > deadline:
            last = f" ({condition.last})" if condition.last else ""
            raise TimedOut(f"wait for {condition.words}: sandbox {box.name} was not ready after {timeout_s:g} s{last}"
                           f"{_wrote(box)}")  # fmt: skip
        pause_s = min(1.5 * pause_s, POLL_MOST_S)


def _account(box: Embedded) -> str:
    return box.verdict().summary + _wrote(box)


def _wrote(box: Embedded) -> str:
    lines = box.last_lines(LINES_SHOWN)
    return "; it wrote:\n" + "\n".join(f"  {line}" for line in lines) if lines else ""
