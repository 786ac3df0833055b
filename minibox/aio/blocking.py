"""Run blocking calls in the event loop's default executor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")
STARTS_AT_ONCE = 4
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


async def in_thread(function: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
    """Call ``function`` in a thread of the executor. A cancellation waits until it has returned.

    Args:
        undo: called with the result, also in a thread, if the caller was cancelled.
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
    """Like `in_thread`, but for starts: only a few at once, so that tasks of ended containers find a free thread."""
    async with _turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(STARTS_AT_ONCE)):
        return await in_thread(function, undo)


async def _until(future: asyncio.Future[T]) -> None:
    """Wait until ``future`` is done, however often the task is cancelled."""
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            continue
