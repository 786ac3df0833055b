"""Do something in a process of its own, with a session keyring that may be attacked."""

from __future__ import annotations

import os
import signal
import sys

from minibox.errors import MiniboxError, suppress
from minibox.lab.attacks.stand_ins import new_session_keyring
from minibox.linux.process import die_with_parent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any


def apart(make: Callable[[], Iterable[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Yield what ``make`` yields, from a fork. It ends with this process, and when the iterator is closed.

    Args:
        make: yields what JSON can say.

    Raises:
        MiniboxError: what ``make`` raised, or the process was killed.
    """
    import json

    reading, writing = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    sys.stdout.flush()
    child = os.fork()
    if not child:
        os.close(reading)
        _work(make, writing, parent)
    os.close(writing)
    try:
        finished = False
        with os.fdopen(reading, "r", encoding="utf-8") as lines:
            for line in lines:
                said: dict[str, Any] = json.loads(line)
                if "error" in said:
                    raise MiniboxError(said["error"], said["hint"])
                finished = finished or "finished" in said
                if not finished:
                    yield said
        if not finished:
            raise MiniboxError("the process that starts the attackers was killed")
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)


def _work(make: Callable[[], Iterable[dict[str, Any]]], writing: int, parent: int) -> None:
    import json

    def tell(**what: object) -> None:
        os.write(writing, json.dumps(what).encode() + b"\n")

    try:
        signal.signal(signal.SIGTERM, _end)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        die_with_parent(parent)
        new_session_keyring()
        for each in make():
            tell(**each)
        tell(finished=True)
    except MiniboxError as error:
        tell(error=str(error), hint=error.hint)
    except OSError as error:
        tell(error=str(error), hint="")
    finally:
        os._exit(0)


def _end(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit
