"""What blocks, done by the event loop's default executor."""

from __future__ import annotations

import asyncio
from typing import TypeVar
from weakref import WeakKeyDictionary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
STARTS_AT_ONCE = 4
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


async def in_thread(function: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
    """Call ``function`` in a thread of the executor; nobody is cancelled before it has ended.

    Args:
        undo: called with its result in the same way, when the caller was cancelled meanwhile.
    """
    loop = asyncio.get_running_loop()
    future = loop.run_in_executor(None, function)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await _until(future)
        if undo and not future.exception():
            await _until(loop.run_in_executor(None, undo, future.result()))
        raise


async def started(function: Callable[[], T], undo: Callable[[T], object]) -> T:
    """`in_thread` for the start of a container: few at once, so that those that have ended aren't left waiting."""
    async with _turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(STARTS_AT_ONCE)):
        return await in_thread(function, undo)


async def _until(future: asyncio.Future[T]) -> None:
    """Until it is done, however often the task is cancelled."""
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            continue
