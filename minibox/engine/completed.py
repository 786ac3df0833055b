"""What became of a command that the calling program ran, and the error that carries it."""

from __future__ import annotations

from typing import Generic, TypeVar

from minibox.errors import MiniboxError
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.outcome import Usage, Verdict

T = TypeVar("T")
LINE_SHOWN = 200  # characters of the last line that a command wrote


@record
class CompletedRun(Generic[T]):
    """A command that has ended, as `subprocess.CompletedProcess`, and how and at what cost it did.

    Attributes:
        args: the command; () for the image's own.
        returncode: its exit status, or the negative number of the signal that ended it.
        stdout, stderr: what it wrote, where that was captured: bytes, or str in text mode; None where it wasn't.
        verdict: how it came to its end, in words too.
        usage: time, memory and the like.
    """

    args: tuple[str, ...]
    returncode: int
    stdout: T
    stderr: T
    verdict: Verdict
    usage: Usage

    def __repr__(self) -> str:
        return (
            f"CompletedRun(args={self.args!r}, returncode={self.returncode}, stdout={self.stdout!r}, "
            f"stderr={self.stderr!r}, verdict={self.verdict.summary!r})"
        )

    def check_returncode(self) -> None:
        """
        Raises:
            CalledProcessError: it did not succeed.
        """
        if self.returncode:
            raise CalledProcessError(self)


class CalledProcessError(MiniboxError):
    """A command that was to succeed didn't: ``check=True``.

    Attributes:
        completed: the `minibox.CompletedRun`: its streams, its verdict, what it used.
    """

    def __init__(self, completed: CompletedRun[Any]) -> None:
        verdict = completed.verdict
        said = f": {verdict.log[-1][:LINE_SHOWN]}" if verdict.log else ""
        super().__init__(f"command {completed.args!r}: {verdict.summary}{said}", verdict.hint or None)
        self.completed = completed

    @property
    def cmd(self) -> tuple[str, ...]:
        """The command."""
        return self.completed.args

    @property
    def returncode(self) -> int:
        """The exit status, or the negative number of the signal that ended it."""
        return self.completed.returncode

    @property
    def stdout(self) -> Any:
        """What it wrote to standard output, where that was captured; None where not."""
        return self.completed.stdout

    @property
    def output(self) -> Any:
        """The same, as `subprocess` calls it too."""
        return self.completed.stdout

    @property
    def stderr(self) -> Any:
        """The same of standard error."""
        return self.completed.stderr
