"""The methods of `minibox.Sandbox` about its main process: what it is, how it does, and to end it."""

from __future__ import annotations

from minibox.api.ownership import Owned, anywhere
from minibox.engine.host.interrupts import uninterrupted
from minibox.errors import TimeoutExpired

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.engine.container.embedded import Embedded
    from minibox.outcome import Usage, Verdict


class SandboxLife(Owned):
    """What a sandbox says of itself and its main process, and the signals for that."""

    _box: Embedded

    @property
    @anywhere
    def id(self) -> str:
        return self._box.id

    @property
    @anywhere
    def name(self) -> str:
        return self._box.name

    @property
    @anywhere
    def pid(self) -> int:
        assert self._box.main
        return self._box.main.pid

    @property
    def address(self) -> str | None:
        """The IPv4 address on its network, or None."""
        return self._box.address()

    @property
    def verdict(self) -> Verdict:
        """How the sandbox ended, or that it is running."""
        return uninterrupted(self._box.verdict)

    @property
    def usage(self) -> Usage:
        """The CPU time, memory and so on that the sandbox has used so far."""
        return uninterrupted(self._box.usage)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the main process has ended, and return its return code.

        Raises:
            TimeoutExpired: it did not end within ``timeout`` seconds.
        """
        assert self._box.main
        code = self._box.main.wait(timeout)
        if code is None:
            raise TimeoutExpired(self._box.options.command, timeout or 0.0)
        return code

    def kill(self, signal: int = 9) -> None:
        """Send a signal to the main process. SIGKILL, the default, ends everything in the sandbox."""
        self._box.send_signal(signal)

    def keep(self) -> None:
        """Keep the files after the sandbox ends. Look at them with ``minibox shell``, remove them with ``minibox rm``."""
        self._box.check_open("keep")
        uninterrupted(self._box.keep_files)
