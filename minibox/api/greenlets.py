"""minibox in a process that gevent or eventlet has patched: their hub runs while a greenlet waits for a command.

Such a process has other functions in `select`, `_thread`, `threading` and so on, which switch between greenlets instead of
blocking. minibox blocks for milliseconds only, beside real threads, and under real locks: a switch there would let
another greenlet wait for a lock for ever. So minibox's modules see those modules as they were (`_Finder`), and the places
where it waits for long (`WAITS`) ask the hub. `use` is called before each start; it does nothing in other processes.
"""

from __future__ import annotations

import builtins
import os
import posix
import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from select import POLLIN, POLLOUT
from time import monotonic
from types import ModuleType

from minibox.base.files import close_descriptors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from typing import Any, Protocol

    class Poll(Protocol):
        def register(self, fd: Any, events: int = ..., /) -> object: ...
        def unregister(self, fd: Any, /) -> object: ...
        def poll(self, timeout_ms: float | None = ..., /) -> list[tuple[int, int]]: ...


#: Modules that are patched, each behind those it needs. The first are in C; of the others a second copy is made.
IN_C = ("_thread", "select", "time", "_queue", "os")
IN_PYTHON = ("selectors", "threading", "queue", "socket", "subprocess")
#: Where minibox waits for long: a module, a name in it, and what it is in a patched process.
WAITS = {
    ("minibox.api.process", "poll"): "HubPoll",
    ("minibox.api.sandboxed", "wait_readable"): "wait_readable",
    ("minibox.engine.process.command", "wait_readable"): "wait_readable",
    ("minibox.engine.report.readiness", "sleep"): "sleep",
}
_originals: dict[str, ModuleType] = {}


def use() -> None:
    """Make minibox work in this process if gevent or eventlet has patched it by now."""
    if not _originals and _patched() is not None:
        for name in IN_C:
            _originals[name] = _as_it_was(name)
        for name in IN_PYTHON:
            _originals[name] = _copy_of(name)
        sys.meta_path.insert(0, _Finder())
        for name, module in list(sys.modules.items()):
            if name.startswith("minibox."):
                _rebind(module)


def _patched() -> str | None:
    """Return which library has patched this process."""
    if (monkey := sys.modules.get("gevent.monkey")) and monkey.is_module_patched("select"):
        return "gevent"
    if (patcher := sys.modules.get("eventlet.patcher")) and patcher.is_monkey_patched("select"):
        return "eventlet"
    return None


def _as_it_was(name: str) -> ModuleType:
    """Return a module of the interpreter's with its own functions, whatever was put in their place."""
    if name == "os":  # a copy of its own would have another `environ`
        found = ModuleType(name)
        vars(found).update(
            vars(os) | {each: getattr(posix, each) for each in dir(posix) if each != "environ" and each[0] != "_"}
        )
        return found
    if _patched() == "eventlet":
        original: ModuleType = sys.modules["eventlet.patcher"].original(name)
        return original
    monkey, patched = sys.modules["gevent.monkey"], __import__(name)
    found = ModuleType(name)
    for each in {*vars(patched), *monkey.saved.get(name, {})}:
        setattr(found, each, monkey.get_original(name, each))
    return found


def _copy_of(name: str) -> ModuleType:
    """Return a second copy of a module, made on the originals of those that it imports."""
    spec = find_spec(name)
    assert spec and spec.loader
    made = module_from_spec(spec)
    hidden = {each: sys.modules.get(each) for each in (*_originals, name)}
    sys.modules.update(_originals, **{name: made})
    try:
        spec.loader.exec_module(made)
    finally:
        for each, module in hidden.items():
            if module is None:
                del sys.modules[each]
            else:
                sys.modules[each] = module
    return made


def _import(name: str, globals: Any = None, locals: Any = None, fromlist: Sequence[str] = (), level: int = 0) -> Any:
    """``import`` as minibox's modules have it."""
    return _originals.get(name) or builtins.__import__(name, globals, locals, fromlist, level)


class _Finder:
    """Finds minibox's modules, and lets them import the originals."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not name.startswith("minibox."):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec and spec.loader and hasattr(spec.loader, "get_code"):
            spec.loader.exec_module = _executing(spec.loader.exec_module)  # type: ignore[method-assign, assignment]
        return spec


def _executing(execute: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
    def exec_module(module: ModuleType) -> None:
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": _import}
        execute(module)
        _rebind(module)

    return exec_module


def _rebind(module: ModuleType) -> None:
    """Replace what a module has imported of patched ones, as far as it was imported before."""
    for name, value in list(vars(module).items()):
        if isinstance(value, ModuleType) and value.__name__ in _originals:
            setattr(module, name, _originals[value.__name__])
    for (place, name), ours in WAITS.items():
        if module.__name__ == place:
            setattr(module, name, globals()[ours])
    if module.__name__ == "minibox.base.files":
        vars(module)["new_poll"] = _originals["select"].poll


# ---- waiting --------------------------------------------------------------------------------------


def _hub() -> str | None:
    """Return whose hub this thread has; None where there is none, as in a thread of minibox's own."""
    if (local := sys.modules.get("gevent._hub_local")) and local.get_hub_if_exists():
        return "gevent"
    if (hubs := sys.modules.get("eventlet.hubs")) and getattr(hubs._threadlocal, "hub", None):
        return "eventlet"
    return None


def sleep(seconds: float) -> None:
    hub = _hub()
    if hub is None:
        _originals["time"].sleep(seconds)
    else:
        sys.modules[hub].sleep(seconds)


def wait_readable(fd: int, timeout_s: float | None = None) -> bool:
    """As `minibox.base.files.wait_readable`."""
    waiting = HubPoll()
    waiting.register(fd, POLLIN)
    return bool(waiting.poll(None if timeout_s is None else max(0.0, timeout_s) * 1000))


class HubPoll:
    """`select.poll`, in which the hub runs if this thread has one."""

    def __init__(self) -> None:
        self._events: dict[int, int] = {}

    def register(self, fd: Any, events: int = POLLIN) -> None:
        self._events[fd if isinstance(fd, int) else fd.fileno()] = events

    def unregister(self, fd: Any) -> None:
        del self._events[fd if isinstance(fd, int) else fd.fileno()]

    def poll(self, timeout_ms: float | None = None) -> list[tuple[int, int]]:
        """A look without waiting never switches to another greenlet."""
        hub = _hub()
        if hub is None or timeout_ms == 0:
            return self._look(timeout_ms)
        deadline = None if timeout_ms is None else monotonic() + timeout_ms / 1000
        while not (found := self._look(0.0)):
            left_s = None if deadline is None else deadline - monotonic()
            if left_s is not None and left_s <= 0:
                break
            self._wait(hub, left_s)
        return found

    def _look(self, timeout_ms: float | None) -> list[tuple[int, int]]:
        waiting: Poll = _originals["select"].poll()
        for fd, events in self._events.items():
            waiting.register(fd, events)
        return waiting.poll(timeout_ms)

    def _wait(self, hub: str, timeout_s: float | None) -> None:
        """Let the hub run until a descriptor is ready."""
        readers = [fd for fd, events in self._events.items() if events & POLLIN]
        writers = [fd for fd, events in self._events.items() if events & POLLOUT]
        if hub == "gevent":
            from gevent.select import select

            select(readers, writers, [], timeout_s)
            return
        from eventlet.green.select import select

        copies = list(map(os.dup, readers))  # of one descriptor only one greenlet may wait
        try:
            select(copies, writers, [], timeout_s)
        finally:
            close_descriptors(*copies)
