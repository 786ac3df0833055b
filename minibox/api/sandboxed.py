"""`minibox.sandboxed`: run a Python function in a sandbox that sees this interpreter's own files."""

from __future__ import annotations

import functools
import os
import sys

from minibox.api.arguments import DURATION, OPTIONS, Argument, checked
from minibox.api.inside import INSIDE, Unguarded, refuse_in_loading
from minibox.base.files import wait_readable
from minibox.errors import (
    LimitExceeded,
    RemoteError,
    SandboxCrashed,
    TimeoutExpired,
    UntrustedResult,
    UsageError,
    suppress,
)

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing isn't imported inside: it would cost each call
    from collections.abc import Callable, Iterable
    from typing import Any, ParamSpec, TypeVar, Unpack, overload

    from minibox.api.options import ContainerOptions
    from minibox.engine.container.embedded import Embedded

    P = ParamSpec("P")
    R = TypeVar("R")
RESULT_BYTES = 64 << 20
LENGTH_BYTES = 8
CHUNK = 1 << 20
GENERATORS = 0x20 | 0x80 | 0x200  # bits of co_flags: generator, coroutine, async generator; see `inspect`


class RemoteTraceback(Exception):
    """The traceback from inside the sandbox, as the ``__cause__`` of the exception raised here."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


if TYPE_CHECKING:

    @overload
    def sandboxed(function: Callable[P, R], /) -> Callable[P, R]: ...

    @overload
    def sandboxed(
        *,
        timeout: float | None = None,
        allow: Iterable[type] = (),
        trusted: bool = False,
        result_bytes: int = RESULT_BYTES,
        **options: Unpack[ContainerOptions],
    ) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


@checked(OPTIONS, timeout=Argument(DURATION, "timeout=10", "no limit"))
def sandboxed(
    function: Callable[..., Any] | None = None,
    /,
    *,
    timeout: float | None = None,
    allow: Iterable[type] = (),
    trusted: bool = False,
    result_bytes: int = RESULT_BYTES,
    **options: Unpack[ContainerOptions],
) -> Any:
    """Decorator: run each call of a function in its own sandbox, in a new interpreter.

    The function sees this interpreter's files read-only: its own directories, the system's libraries and programs, and
    the entries of `sys.path` (of a home, only the modules that you have imported). It has its own /tmp, no network, no
    capabilities, and sees nothing else of the host. The sandbox finds the function by module and name, as multiprocessing
    does: if your program is a script, it runs again there, but without ``__name__ == "__main__"``. So guard what it does
    at module level: neither sandboxed functions nor minibox can be used while it runs again. A function that was written
    in a notebook or at a prompt is sent as a whole; that needs the package cloudpickle. Inside a sandbox, a call is an
    ordinary call.

    Arguments and results are pickled. Results come from code that isn't trusted: they may hold Python's plain types,
    dates, paths and the like, and the types in ``allow``. The sandbox can call the constructors and ``__setstate__`` of
    allowed types with any arguments.

    Args:
        timeout: seconds for a call, including the start of the sandbox.
        allow: further types that results and exceptions may have.
        trusted: load anything that the sandbox sends. The function can then do here whatever you can, so use this only
            for code that you trust and just want to limit.
        result_bytes: the maximum size of a result.
        options: see `ContainerOptions`; ``memory="256m", processes=16, cpu_time=5, output="1m", disk="16m"``.

    Raises:
        UsageError: from the decorator: the function can't be found by name, for example a lambda or a nested function.

    A call raises what the function raises, with the traceback in the sandbox as ``__cause__``. It can also raise:
        TimeoutExpired, LimitExceeded: a limit was hit; the verdict says which.
        SandboxCrashed: the function ended without a result.
        RemoteError: the function raised an exception whose type isn't allowed.
        UntrustedResult: the result is too large, malformed, or has a type that isn't allowed.
        MiniboxError: the sandbox can't be made.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        _check(function)
        call = _Call(function, timeout, tuple(allow), trusted, result_bytes, options)

        @functools.wraps(function)
        def wrapper(*arguments: P.args, **keywords: P.kwargs) -> R:
            if INSIDE in sys.modules:
                refuse_in_loading(f"call sandboxed {function.__qualname__}")
                return function(*arguments, **keywords)
            result: R = call(arguments, keywords)
            return result

        return wrapper

    return decorate if function is None else decorate(function)


def _check(function: Callable[..., Any]) -> None:
    name = getattr(function, "__qualname__", "")
    if not callable(function) or not name or not hasattr(function, "__module__"):
        raise UsageError(f"sandbox {function!r}: not a function")
    if getattr(getattr(function, "__code__", None), "co_flags", 0) & GENERATORS:
        raise UsageError(f"sandbox {name}: generators and coroutines can't be sandboxed", "return a list")
    if "<" in name:
        raise UsageError(
            f"sandbox {name}: another interpreter can't import a "
            f"{'lambda' if name.endswith('<lambda>') else 'nested function'} by name",
            "define it with def at the top level of a module, and pass what it needs as arguments",
        )


class _Call:
    """A sandboxed function with its options."""

    def __init__(
        self,
        function: Callable[..., Any],
        timeout: float | None,
        allow: tuple[type, ...],
        trusted: bool,
        result_bytes: int,
        options: ContainerOptions,
    ) -> None:
        self._function, self._timeout, self._allow, self._trusted = function, timeout, allow, trusted
        self._result_bytes, self._options = result_bytes, options

    def __call__(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        from _socket import socketpair  # gevent's and eventlet's don't block, and neither would the end in the sandbox

        from minibox.api.place import place
        from minibox.api.run import Owner

        packed = self._packed(arguments, keywords)
        where = place(self._options)
        ours, theirs = socketpair()
        try:
            owner = Owner(self._run_options(), where)
            with owner as box:
                owner.begin(lambda: box.start((theirs.fileno(), 1, 2), socket=True))
                theirs.close()
                with suppress(BrokenPipeError, ConnectionResetError):  # it has ended already; the verdict will say why
                    ours.sendall(packed)
                answer = self._read(ours)
                if answer is not None:
                    return self._value(answer)
                raise self._ended(box)
        finally:
            ours.close()
            theirs.close()

    def _packed(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> bytes:
        import pickle

        from minibox.api.interpreter import search_path

        function, main, whole = self._function, "", b""
        dumps: Callable[[object, int], bytes] = pickle.dumps
        if function.__module__ == "__main__":
            main = os.path.abspath(getattr(sys.modules["__main__"], "__file__", "") or "")
            if not os.path.isfile(main) or not os.path.isfile(function.__code__.co_filename):
                dumps, main = self._by_value(), ""
                whole = dumps(function, 5)
        call = dumps((arguments, keywords), 5)
        prefixes = sys.prefix, sys.exec_prefix
        where = function.__module__, main, function.__qualname__
        data = pickle.dumps((search_path(), prefixes, *where, whole, call), 5)
        return len(data).to_bytes(LENGTH_BYTES, "little") + data

    def _by_value(self) -> Callable[[object, int], bytes]:
        """Return what pickles functions and classes that no file has: those of a notebook or a prompt."""
        try:
            from cloudpickle import dumps
        except ImportError:
            raise UsageError(
                f"sandbox {self._function.__qualname__}: this program is not a file that another interpreter can run",
                "pip install cloudpickle, which can send functions of a notebook; or move the function to a module",
            ) from None
        found: Callable[[object, int], bytes] = dumps
        return found

    def _run_options(self) -> Any:
        from minibox.api import interpreter
        from minibox.api.options import run_options

        options: Any = dict(self._options)
        # Process 1 is an init, because process 1 ignores signals that it sends itself, for example by abort(3).
        defaults: Any = {"init": True, "read_only": True, "cwd": "/tmp", "cap_drop": ["ALL"]}
        if not any(word.partition(":")[0] == "/tmp" for word in options.get("tmpfs") or ()):
            options["tmpfs"] = [*(options.get("tmpfs") or ()), "/tmp:size=64m,exec"]
        options["mounts"] = [*interpreter.mounts(), *(options.get("mounts") or ())]
        options["security_opt"] = ["no-new-privileges", *(options.get("security_opt") or ())]
        if self._timeout is not None:
            options["wall_time"] = self._timeout
        with open(f"{os.path.dirname(__file__)}/sandboxed_child.py", encoding="utf-8") as file:
            argv = (interpreter.command(), "-I", "-S", "-B", "-c", file.read())
        return run_options("scratch", argv, defaults | options)

    def _read(self, ours: Any) -> bytes | None:
        """Read the answer; None if the sandbox ended without one."""
        data = bytearray()
        while True:
            wait_readable(ours.fileno())  # where the hub of greenlets runs meanwhile
            try:
                part = ours.recv(CHUNK)
            except ConnectionResetError:
                return None
            if not part:
                return None
            data += part
            length = int.from_bytes(data[:LENGTH_BYTES], "little")
            if len(data) >= LENGTH_BYTES:
                if length > self._result_bytes:
                    words = f"the result has {length} bytes, more than the limit of {self._result_bytes}"
                    raise UntrustedResult(words, "set a larger result_bytes")
                if len(data) >= LENGTH_BYTES + length:
                    return bytes(data[LENGTH_BYTES : LENGTH_BYTES + length])

    def _value(self, answer: bytes) -> Any:
        from minibox.api.received import load

        match load(answer, self._allow, trusted=self._trusted):
            case (True, result):
                return result
            case (False, bytes(packed), str(kind), str(text), str(traceback)):
                raise self._error(packed, kind, text, traceback)
        raise UntrustedResult("the sandbox sent a malformed answer")

    def _error(self, packed: bytes, kind: str, text: str, traceback: str) -> Exception:
        from minibox.api.received import load

        cause = RemoteTraceback(traceback)
        if kind == f"{Unguarded.__module__}.{Unguarded.__qualname__}":
            unguarded = Unguarded(f"sandboxed {self._function.__qualname__}")
            unguarded.__cause__ = cause
            return unguarded
        error: object
        try:
            error = load(packed, self._allow, trusted=self._trusted)
        except UntrustedResult:
            error = None
        if not isinstance(error, Exception):
            error = RemoteError(f"{kind}: {text}", f"to get the original exception: allow=[{kind.rpartition('.')[2]}]")
        error.__cause__ = cause
        return error

    def _ended(self, box: Embedded) -> Exception:
        """Return the exception for a sandbox that ended without an answer."""
        from minibox.engine.verdict.end_kinds import LIMITS, WALL_TIME

        assert box.main
        box.main.wait()
        verdict, usage = box.verdict(), box.usage()
        name = self._function.__qualname__
        if verdict.kind == WALL_TIME and self._timeout is not None:
            error = TimeoutExpired(name, self._timeout)
            error.verdict = verdict
            return error
        words = f"sandboxed {name}: {verdict.summary}"
        return (LimitExceeded if verdict.kind in LIMITS else SandboxCrashed)(words, verdict, usage)
