"""`minibox.sandboxed`: a function that runs in a sandbox, on the calling interpreter's own files."""

from __future__ import annotations

import functools
import os
import sys

from minibox.errors import LimitExceeded, RemoteError, SandboxCrashed, TimeoutExpired, UntrustedResult, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing isn't imported inside: it would cost each call
    from collections.abc import Callable, Iterable
    from typing import Any, ParamSpec, TypeVar, Unpack, overload

    from minibox.api.options import ContainerOptions
    from minibox.engine.embedded import Embedded

    P = ParamSpec("P")
    R = TypeVar("R")
RESULT_BYTES = 64 << 20
LENGTH_BYTES = 8
CHUNK = 1 << 20
GENERATORS = 0x20 | 0x80 | 0x200  # of co_flags: generators, coroutines and both; inspect
INSIDE = "_minibox_sandbox"  # of sys.modules, set in the sandbox


class RemoteTraceback(Exception):
    """Where in the sandbox an exception was raised; the cause of that exception here."""

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
    """Have each call of a function run in a sandbox of its own, in a new interpreter.

    It sees, read-only, what this interpreter is made of (its own directories, the system's libraries and programs, and
    what `sys.path` names; of a home only the modules that were imported) and a /tmp of its own; it has no network, no
    capability, and nothing else of the host. It is found by its module and name, as multiprocessing finds it: a program
    that is a script is run again there, without ``__name__ == "__main__"``. Called inside a sandbox, it is just called.

    Arguments go by pickle. So does what comes back, from who isn't trusted: it may be made of Python's plain types,
    dates, paths and the like, and of the types in ``allow``, whose constructors and ``__setstate__`` are then called with
    whatever it likes.

    Args:
        timeout: seconds that a call may take, with its start.
        allow: types that a result or an exception may have.
        trusted: load whatever it sends. It can then do here whatever you can: for code that is only limited.
        result_bytes: more than that is not read.
        options: see `ContainerOptions`; ``memory="256m", processes=16, cpu_time=5, output="1m", disk="16m"``.

    Raises:
        UsageError: by the decorator: the function can't be found by its name, as a lambda's or an inner one's.

    A call raises what the function raises, with the traceback in the sandbox as its cause; and:
        TimeoutExpired, LimitExceeded: with the verdict that says which limit.
        SandboxCrashed: it ended without a result.
        RemoteError: an exception of a type that isn't allowed.
        UntrustedResult: a result of a type that isn't allowed.
        MiniboxError: the sandbox can't be made.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        _check(function)
        call = _Call(function, timeout, tuple(allow), trusted, result_bytes, options)

        @functools.wraps(function)
        def wrapper(*arguments: P.args, **keywords: P.kwargs) -> R:
            if INSIDE in sys.modules:
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
        raise UsageError(f"sandbox {name}: what a generator or a coroutine returns goes on here", "return a list")
    if "<" in name:
        raise UsageError(
            f"sandbox {name}: a {'lambda' if name.endswith('<lambda>') else 'function in a function'} has no name by which "
            "another interpreter finds it",
            "write it with def at the top of a module, and give it what it needs as arguments",
        )


class _Call:
    """A function, and how it is to be called."""

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
        from socket import socketpair

        from minibox.api.place import place
        from minibox.api.run import Owner

        packed = self._packed(arguments, keywords)
        where = place(self._options)
        ours, theirs = socketpair()
        with ours:
            owner = Owner(self._run_options(), where)
            with owner as box:
                with theirs:
                    owner.begin(lambda: box.start((theirs.fileno(), 1, 2), socket=True))
                try:
                    ours.sendall(packed)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # it has ended already: of what, the verdict says
                answer = self._read(ours)
                if answer is not None:
                    return self._value(answer)
                raise self._ended(box)

    def _packed(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> bytes:
        import pickle

        from minibox.api.interpreter import search_path

        function, main = self._function, ""
        if function.__module__ == "__main__":
            main = os.path.abspath(getattr(sys.modules["__main__"], "__file__", "") or "")
            if not os.path.isfile(main):
                raise UsageError(
                    f"sandbox {function.__qualname__}: this program is no file, which another interpreter could run",
                    "put the function into a module",
                )
        call = pickle.dumps((arguments, keywords), 5)
        prefixes = sys.prefix, sys.exec_prefix
        data = pickle.dumps((search_path(), prefixes, function.__module__, main, function.__qualname__, call), 5)
        return len(data).to_bytes(LENGTH_BYTES, "little") + data

    def _run_options(self) -> Any:
        from minibox.api import interpreter
        from minibox.api.options import run_options

        options: Any = dict(self._options)
        # Process 1 is an init, since signals that a process sends itself, as by abort(3), are lost on process 1.
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
        """What it has answered; None when it has ended before."""
        data = bytearray()
        while True:
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
                    words = f"the result has {length} bytes, and {self._result_bytes} are read"
                    raise UntrustedResult(words, "raise result_bytes")
                if len(data) >= LENGTH_BYTES + length:
                    return bytes(data[LENGTH_BYTES : LENGTH_BYTES + length])

    def _value(self, answer: bytes) -> Any:
        from minibox.api.received import load

        match load(answer, self._allow, trusted=self._trusted):
            case (True, result):
                return result
            case (False, bytes(packed), str(kind), str(text), str(traceback)):
                raise self._error(packed, kind, text, traceback)
        raise UntrustedResult("what the sandbox has sent is no answer")

    def _error(self, packed: bytes, kind: str, text: str, traceback: str) -> Exception:
        from minibox.api.received import load

        cause = RemoteTraceback(traceback)
        try:
            error = load(packed, self._allow, trusted=self._trusted)
        except UntrustedResult:
            error = None
        if not isinstance(error, Exception):
            error = RemoteError(f"{kind}: {text}", f"to have it as it is: allow=[{kind.rpartition('.')[2]}]")
        error.__cause__ = cause
        return error

    def _ended(self, box: Embedded) -> Exception:
        """It has ended without an answer."""
        from minibox.engine.ends import LIMITS, WALL_TIME

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
