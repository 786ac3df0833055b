"""What can go wrong: one tree of exceptions.

A message says what was tried, on what, and what the kernel or the peer answered; lower case, no
full stop. ``hint`` says what the user can do about it. ``status`` is the exit status of the
command line: 125 minibox itself failed, 126 the command can't be executed, 127 it was not found. `CalledProcessError` stands
beside `CompletedRun` in `minibox.engine.completed`, since each needs the other.
"""

from __future__ import annotations

from errno import errorcode
from os import strerror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.outcome import Usage, Verdict


class MiniboxError(Exception):
    """Base of all errors that minibox raises on purpose.

    Attributes:
        hint: what the user can do, or None.
        status: the exit status that the command line gives it.
    """

    status = 125

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """By pickle, whatever arguments a class takes: it goes to another process of multiprocessing's or pytest-xdist's."""
        return _remade, (type(self), self.args, self.__dict__)


def _remade(kind: type[MiniboxError], args: tuple[Any, ...], fields: dict[str, Any]) -> MiniboxError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


class UsageError(MiniboxError):
    """An option or argument has a value that can't be meant."""


class ConfigError(MiniboxError):
    """An image config, an OCI Spec or a configuration file says something that can't be done."""


class InvalidReference(UsageError):
    """An image reference is malformed."""


class ImageNotFound(MiniboxError):
    """No image of that name is in the store."""


class StoreError(MiniboxError):
    """The image store or a layer is damaged, full or unreadable."""


class Unreadable(MiniboxError):
    """A file that minibox keeps can't be used: `Damaged` or `NewerFormat`.

    Attributes:
        path: of the file.
        reason: what is wrong with it.
    """

    def __init__(self, path: str, reason: str, hint: str) -> None:
        super().__init__(f"{path} {reason}", hint)
        self.path, self.reason = path, reason


class Damaged(Unreadable):
    """A file that minibox keeps is not what was written: half a one, another's, of other types.

    Attributes:
        why: what is wrong with it, alone.
    """

    def __init__(self, path: str, why: str, hint: str = "minibox system check --repair mends it") -> None:
        super().__init__(path, f"is damaged: {why}", hint)
        self.why = why


class NewerFormat(Unreadable):
    """A newer minibox has written a file: it is right, and can't be read.

    Attributes:
        found, known: the number of its format, and the highest that can be read.
    """

    def __init__(self, path: str, found: int, known: int) -> None:
        reason = f"was written by a newer minibox (format {found}, this one reads up to {known})"
        super().__init__(path, reason, "use the minibox that wrote it, or a newer one")
        self.found, self.known = found, known


class IndexDamaged(Damaged, StoreError):
    """The file with the names of all images is damaged; the images are still there."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(
            path, why, "minibox system check --repair makes it anew; the images are there still, without names"
        )


class DamageWarning(UserWarning):
    """Something that minibox keeps is damaged, and was left out."""


class ImageInUse(MiniboxError):
    """An image can't be removed: a container uses it, or it has several names."""


class StoreBusy(MiniboxError):
    """Somebody else is adding to the image store, and nothing can be removed from it meanwhile."""


class RegistryError(MiniboxError):
    """A registry can't be reached, refuses, or sends what is wrong."""


class Unauthorized(RegistryError):
    """A registry wants other credentials, or none of ours will do."""


class NameTaken(MiniboxError):
    """Another container has that name."""


class ContainerNotFound(MiniboxError):
    """No container of that name or id."""


class ContainerExists(MiniboxError):
    """Another container has that id."""


class ContainerNotRunning(MiniboxError):
    """It needs a process, and has none."""


class VolumeNotFound(MiniboxError):
    """No volume of that name."""


class VolumeInUse(MiniboxError):
    """A volume can't be removed: a container has it."""


class TimedOut(MiniboxError):
    """What was waited for took too long."""

    status = 124  # as timeout(1) has it


class TimeoutExpired(TimedOut):
    """A command ran longer than it may; one of `minibox.run` was killed for it.

    Attributes:
        cmd: the command.
        timeout: seconds.
        stdout, stderr: what it has written so far, where that was captured; None where not.
        verdict: of a sandboxed function; else None.
    """

    verdict: Verdict | None = None

    def __init__(self, cmd: object, timeout: float, stdout: Any = None, stderr: Any = None) -> None:
        super().__init__(f"command {cmd!r} has not ended after {timeout:g} s")
        self.cmd, self.timeout, self.stdout, self.stderr = cmd, timeout, stdout, stderr

    @property
    def output(self) -> Any:
        """``stdout``, as `subprocess` calls it too."""
        return self.stdout


class SandboxCrashed(MiniboxError):
    """A sandboxed function ended without a result.

    Attributes:
        verdict: how.
        usage: what it had used.
    """

    def __init__(self, message: str, verdict: Verdict, usage: Usage) -> None:
        super().__init__(message, verdict.hint or None)
        self.verdict, self.usage = verdict, usage


class LimitExceeded(SandboxCrashed):
    """A sandboxed function was ended by a limit: ``verdict.kind`` says by which."""


class RemoteError(MiniboxError):
    """A sandboxed function has raised an exception of a type that isn't taken from there; its cause has the traceback."""


class UntrustedResult(MiniboxError):
    """A sandboxed function has sent what isn't taken from there."""


class LimitError(MiniboxError):
    """A resource limit was asked for that this host can't apply."""


class NetworkError(MiniboxError):
    """The network that was asked for can't be made."""


class PortTaken(NetworkError):
    """A port of this host is in use.

    Attributes:
        address, port, protocol: which; port 0: all that there are.
    """

    def __init__(self, message: str, address: str, port: int, protocol: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.address, self.port, self.protocol = address, port, protocol


class NetworkNotFound(MiniboxError):
    """No network of that name or id."""


class NetworkInUse(MiniboxError):
    """A network can't be removed: a container is on it."""


class Unsupported(MiniboxError):
    """The kernel or the host lacks something that was asked for."""


class UnsafeDirectory(MiniboxError):
    """A directory where we would keep our state is one that somebody else could change."""


class ProbeFailed(MiniboxError):
    """Whether this host can do something could not be found out: neither that it works nor that the kernel refuses it."""


class IsolationWarning(UserWarning):
    """A container is shut in less than it is by default elsewhere, because this host can't do it, and nobody asked for that."""


class StepError(MiniboxError):
    """A step of a Plan failed.

    Attributes:
        index: the step's position in the Plan, from 0.
        errno: what the kernel answered; 0 when the process died in the step.
    """

    def __init__(self, message: str, hint: str | None = None, *, index: int = -1, errno: int = 0) -> None:
        super().__init__(message, hint)
        self.index = index
        self.errno = errno


class CommandNotExecutable(MiniboxError):
    """The command is there and can't be executed."""

    status = 126


class HookFailed(MiniboxError):
    """A hook of a bundle ended with an error, or took too long."""


class CommandNotFound(MiniboxError):
    """The command is not in the image."""

    status = 127


class NotFromKernel(OSError):
    """An OSError of our own making: its words say what is wrong, its number only of what kind that is."""

    not_from_kernel = True


def kernel_says(error: OSError | int) -> str:
    """The kernel's answer in words and by name: ``Invalid argument (EINVAL)``."""
    if getattr(error, "not_from_kernel", False):
        return str(getattr(error, "strerror", ""))
    number = error if isinstance(error, int) else error.errno or 0
    return f"{strerror(number)} ({errorcode.get(number, number)})"
