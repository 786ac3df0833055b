"""`CompletedRun`, the result of a command that has ended, and the error of one that failed."""

from __future__ import annotations

from typing import Generic, TypeVar

from minibox.errors import MiniboxError
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.outcome import Usage, Verdict

T = TypeVar("T")
LINE_SHOWN = 200  # characters of a command's last line of output


@record
class CompletedRun(Generic[T]):
    """The result of a command that has ended, like `subprocess.CompletedProcess` with a verdict and usage.

    Attributes:
        args: the command; () for the image's own.
        returncode: the exit status, or the negative number of the signal that ended it.
        stdout, stderr: the output if it was captured, else None: bytes, or str in text mode.
        verdict: how it ended, and why.
        usage: the time, memory and so on that it used.
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
            CalledProcessError: the command failed.
        """
        if self.returncode:
            raise CalledProcessError(self)


class CalledProcessError(MiniboxError):
    """A command failed, and the caller asked for ``check=True``.

    Attributes:
        completed: the `minibox.CompletedRun`, with output, verdict and usage.
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
        """The exit status, or the negative number of the signal that ended the command."""
        return self.completed.returncode

    @property
    def stdout(self) -> Any:
        """The standard output if it was captured, else None."""
        return self.completed.stdout

    @property
    def output(self) -> Any:
        """Same as ``stdout``; the name that `subprocess` uses, too."""
        return self.completed.stdout

    @property
    def stderr(self) -> Any:
        """The standard error if it was captured, else None."""
        return self.completed.stderr
