"""All exceptions of minibox, in one tree.

A message says what was tried, on what, and what the kernel or the peer answered; lower case, no
full stop. ``hint`` says what the user can do. ``status`` is the exit status of the command line:
125 if minibox itself failed, 126 if the command can't be executed, 127 if it was not found.
`CalledProcessError` is in `minibox.engine.process.completed`, next to `CompletedRun`, because each needs the other.
"""

from __future__ import annotations

from errno import errorcode
from os import strerror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minibox.outcome import Usage, Verdict


HINT = "hint: "


class MiniboxError(Exception):
    """Base class of all errors that minibox raises on purpose.

    Attributes:
        status: the exit status of the command line for this error.
    """

    status = 125
    __notes__: list[str]

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    @property
    def hint(self) -> str | None:
        """What the user can do, or None. It is a note, too, so that tracebacks show it."""
        return self.__dict__.get("hint")

    @hint.setter
    def hint(self, hint: str | None) -> None:
        old, self.__dict__["hint"] = self.__dict__.get("hint"), hint
        if old and HINT + old in self.__notes__:
            self.__notes__.remove(HINT + old)
        if hint:
            self.add_note(HINT + hint)

    def __reduce__(self) -> tuple[Any, ...]:
        """Support pickle, which multiprocessing and pytest-xdist use, whatever arguments a subclass takes."""
        return _unpickle, (type(self), self.args, self.__dict__)


def _unpickle(kind: type[MiniboxError], args: tuple[Any, ...], fields: dict[str, Any]) -> MiniboxError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


class UsageError(MiniboxError):
    """An option or argument is invalid."""


class WrongArgument(UsageError, TypeError, ValueError):
    """An argument of the Python API has a wrong type or value. It is a TypeError and a ValueError, as Python's are."""


class DockerfileError(MiniboxError):
    """A Dockerfile has a mistake.

    Attributes:
        file: the Dockerfile's name.
        line: the line, from 1; 0 if it is about the whole file.
        column: the column in that line, from 1; 0 if it is about the whole line.
        reason: what is wrong, without the place.
    """

    status = 1

    def __init__(self, file: str, line: int, column: int, reason: str, hint: str | None = None) -> None:
        place = ":".join([file, *(str(number) for number in (line, column) if number)])
        super().__init__(f"{place}: {reason}", hint)
        self.file, self.line, self.column, self.reason = file, line, column, reason


class ConfigError(MiniboxError):
    """An image config, an OCI Spec or a configuration file is invalid, or asks for something impossible."""


class InvalidReference(UsageError):
    """An image reference is malformed."""


class ImageNotFound(MiniboxError):
    """The image store has no image of that name."""


class BuildError(MiniboxError):
    """A Dockerfile, or the files that it reads, can't be built."""

    status = 1


class StoreError(MiniboxError):
    """The image store or a layer is damaged, full or unreadable."""


class Unreadable(MiniboxError):
    """minibox can't use one of its own files: `Damaged` or `NewerFormat`.

    Attributes:
        path: the file.
        reason: what is wrong with it.
    """

    def __init__(self, path: str, reason: str, hint: str) -> None:
        super().__init__(f"{path} {reason}", hint)
        self.path, self.reason = path, reason


class Damaged(Unreadable):
    """One of minibox's own files is damaged: it is incomplete, or has other contents than minibox wrote.

    Attributes:
        why: what is wrong, without "is damaged".
    """

    def __init__(self, path: str, why: str, hint: str = "minibox system check --repair fixes it") -> None:
        super().__init__(path, f"is damaged: {why}", hint)
        self.why = why


class NewerFormat(Unreadable):
    """A newer minibox wrote this file. It isn't damaged, but this version can't read it.

    Attributes:
        found: the version of the file's format.
        known: the highest version that this minibox reads.
    """

    def __init__(self, path: str, found: int, known: int) -> None:
        reason = f"was written by a newer minibox (format {found}, this one reads up to {known})"
        super().__init__(path, reason, "use the minibox that wrote it, or a newer one")
        self.found, self.known = found, known


class IndexDamaged(Damaged, StoreError):
    """The file with the names of all images is damaged; the images are still there."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(
            path, why, "minibox system check --repair rebuilds it; the images are still there, but lose their names"
        )


class DamageWarning(UserWarning):
    """One of minibox's own files is damaged and was skipped."""


class ImageInUse(MiniboxError):
    """An image can't be removed: a container uses it or it has several names."""


class StoreBusy(MiniboxError):
    """Nothing can be removed from the image store while another process adds to it."""


class RegistryError(MiniboxError):
    """A registry can't be reached, refuses the request, or sends an invalid answer."""


class Unauthorized(RegistryError):
    """A registry doesn't accept our credentials."""


class NameTaken(MiniboxError):
    """Another container has that name."""


class ContainerNotFound(MiniboxError):
    """There is no container of that name or id."""


class ContainerExists(MiniboxError):
    """Another container has that id."""


class ContainerNotRunning(MiniboxError):
    """The container isn't running, but the operation needs a running one."""


class OwnedByParent(ContainerNotRunning):
    """A forked child used a sandbox, a command, a network or a snapshot that belongs to its parent process."""


class VolumeNotFound(MiniboxError):
    """There is no volume of that name."""


class VolumeInUse(MiniboxError):
    """A volume can't be removed: a container uses it."""


class TimedOut(MiniboxError):
    """Waiting for something took too long."""

    status = 124  # like timeout(1)


class TimeoutExpired(TimedOut):
    """A command did not end before its timeout. `minibox.run` and `Sandbox.run` have killed it.

    Attributes:
        cmd: the command.
        timeout: seconds.
        stdout, stderr: the output so far if it was captured, else None.
        verdict: the verdict on a sandboxed function, else None.
    """

    verdict: Verdict | None = None

    def __init__(self, cmd: object, timeout: float, stdout: Any = None, stderr: Any = None) -> None:
        super().__init__(f"command {cmd!r} did not end within {timeout:g} s")
        self.cmd, self.timeout, self.stdout, self.stderr = cmd, timeout, stdout, stderr

    @property
    def output(self) -> Any:
        """Same as ``stdout``; the name that `subprocess` uses, too."""
        return self.stdout


class SandboxCrashed(MiniboxError):
    """A sandboxed function ended without a result.

    Attributes:
        verdict: how it ended.
        usage: the CPU time, memory and so on that it used.
    """

    def __init__(self, message: str, verdict: Verdict, usage: Usage) -> None:
        super().__init__(message, verdict.hint or None)
        self.verdict, self.usage = verdict, usage


class LimitExceeded(SandboxCrashed):
    """A sandboxed function hit a limit and was ended; ``verdict.kind`` says which limit."""


class RemoteError(MiniboxError):
    """A sandboxed function raised an exception whose type isn't allowed here. The ``__cause__`` has the traceback."""


class UntrustedResult(MiniboxError):
    """A sandboxed function sent a result that is too large, malformed, or of a type that isn't allowed."""


class LimitError(MiniboxError):
    """This host can't apply a resource limit."""


class NetworkError(MiniboxError):
    """A network can't be created or changed."""


class PortTaken(NetworkError):
    """A port of this host is in use.

    Attributes:
        address, port, protocol: the port that is taken. Port 0 means that no port is free.
    """

    def __init__(self, message: str, address: str, port: int, protocol: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.address, self.port, self.protocol = address, port, protocol


class NetworkNotFound(MiniboxError):
    """There is no network of that name or id."""


class NetworkInUse(MiniboxError):
    """A network can't be removed: a container is on it."""


class Unsupported(MiniboxError):
    """The kernel or the host doesn't support what was asked for."""


class UnsafeDirectory(MiniboxError):
    """Another user could change the directory for minibox's state."""


class ProbeFailed(MiniboxError):
    """A probe of a host feature had no clear result: it neither worked nor did the kernel refuse it."""


class IsolationWarning(UserWarning):
    """A container is less isolated than the defaults promise, because this host lacks a feature."""


class StepError(MiniboxError):
    """A step of a Plan failed.

    Attributes:
        index: the position of the step in the Plan, from 0.
        errno: the kernel's answer; 0 if the process died in this step.
    """

    def __init__(self, message: str, hint: str | None = None, *, index: int = -1, errno: int = 0) -> None:
        super().__init__(message, hint)
        self.index = index
        self.errno = errno


class ExecFailed(Exception):
    """The last step of a Plan, exec, failed: the fault is the command's. The front that runs it words the error.

    Attributes:
        errno: of execve(2).
        paths: where we looked for it.
        root_fd: the container's root directory, to look for the reason. Valid until the execution is closed.
    """

    def __init__(self, errno: int, paths: tuple[str, ...], root_fd: int) -> None:
        super().__init__(errno, paths)
        self.errno, self.paths, self.root_fd = errno, paths, root_fd


class CgroupRefused(MiniboxError):
    """The kernel refuses to start a process in a cgroup."""


class CommandNotExecutable(MiniboxError):
    """The command exists but can't be executed."""

    status = 126


class HookFailed(MiniboxError):
    """An OCI hook of a bundle failed or took too long."""


class CommandNotFound(MiniboxError):
    """The command is not in the image."""

    status = 127


class NotFromKernel(OSError):
    """An OSError that minibox raises itself. ``strerror`` says what is wrong; ``errno`` gives only the kind."""

    not_from_kernel = True


def kernel_says(error: OSError | int) -> str:
    """Return the kernel's answer in words, with its name: ``Invalid argument (EINVAL)``."""
    if getattr(error, "not_from_kernel", False):
        return str(getattr(error, "strerror", ""))
    number = error if isinstance(error, int) else error.errno or 0
    return f"{strerror(number)} ({errorcode.get(number, number)})"


class trying:
    """A ``with`` block in which an OSError becomes an error of minibox: what was tried, and what the kernel said."""

    def __init__(self, kind: type[MiniboxError], what: str, hint: str | None = None) -> None:
        self._kind, self._what, self._hint = kind, what, hint

    def __enter__(self) -> None:
        return

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError):
            raise self._kind(f"{self._what}: {kernel_says(error)}", self._hint) from error


class suppress:
    """`contextlib.suppress`, without an import that takes milliseconds."""

    def __init__(self, *kinds: type[BaseException]) -> None:
        self._kinds = kinds

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, self._kinds)


class on_failure:
    """A ``with`` block that calls ``undo`` with ``args`` if it is left by an exception, which goes on."""

    def __init__(self, undo: Callable[..., object], *args: object) -> None:
        self._undo, self._args = undo, args

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self._undo(*self._args)
