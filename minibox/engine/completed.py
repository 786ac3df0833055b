"""What became of a command that the calling program had run."""

from __future__ import annotations

from typing import Generic, TypeVar

from minibox.errors import CalledProcessError
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.engine.outcome import Usage
    from minibox.engine.verdict import Verdict

T = TypeVar("T")


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
