"""Run a command on several names, each with its own success or error."""

from __future__ import annotations

from minibox.cli.messages import echo
from minibox.errors import MiniboxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

AT_ONCE = 32


def for_each(names: Iterable[str], act: Callable[[str], object], *, at_once: bool = False) -> int:
    """Call ``act`` for each name, and print what it returns; None prints the name.

    After an error it goes on with the other names. All errors are printed except the last, which is raised.

    Args:
        at_once: call ``act`` for all names in parallel; for actions that mostly wait.

    Returns:
        0, the exit status.
    """
    failed: MiniboxError | None = None
    for name, outcome in _outcomes(list(names), act, at_once):
        if isinstance(outcome, MiniboxError):
            if failed is not None:
                echo(f"minibox: {failed}", err=True)
            failed = outcome
        elif outcome != "":
            echo(name if outcome is None else outcome)
    if failed is not None:
        raise failed
    return 0


def for_each_name(names: Iterable[str], act: Callable[[str], object], *, at_once: bool = False) -> int:
    """Like `for_each`, but print the names, whatever ``act`` returns."""

    def silent(name: str) -> None:
        act(name)

    return for_each(names, silent, at_once=at_once)


def _outcomes(
    names: list[str], act: Callable[[str], object], at_once: bool
) -> Iterable[tuple[str, object | MiniboxError]]:
    def attempt(name: str) -> object | MiniboxError:
        try:
            return act(name)
        except MiniboxError as error:
            return error

    if not at_once or len(names) < 2:
        return ((name, attempt(name)) for name in names)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(AT_ONCE, len(names))) as pool:
        return zip(names, pool.map(attempt, names))
