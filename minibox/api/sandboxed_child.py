"""The program inside the sandbox of a sandboxed function: it reads the call from a socket, its standard input, and answers.

The interpreter gets its source by ``-c``. It imports nothing from minibox, which may not be installed there.

A message is its length, 8 bytes, and a pickle. A call has the module search path, the prefixes, the module, the main
program's path, the function's qualified name, the pickled function if it isn't found by name, and the pickled arguments. An answer is True and the result; or False, the
pickled exception (b"" if it can't be pickled), the name of its type, its text and its traceback.
"""

import _pickle as pickle  # only the C part: the Python part imports a lot
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing in the sandbox would slow down each call
    from typing import Any


def read_all(count: int) -> bytes:
    parts = []
    while count:
        part = os.read(SOCKET, min(count, 1 << 20))
        if not part:
            raise SystemExit("the call was cut off")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def answer(*values: object) -> None:
    data = pickle.dumps(values, 5)
    view = memoryview(len(data).to_bytes(8, "little") + data)
    while view:
        view = view[os.write(SOCKET, view) :]


def load_main(path: str) -> None:
    """Load the main program under another name than ``__main__``, as multiprocessing does in a new interpreter."""
    import runpy

    STATE.is_loading = True
    try:
        found = runpy.run_path(path, run_name="__mp_main__")
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit):
            error = RuntimeError(f"the program called sys.exit({error.code!r})")
        error.add_note(
            "hint: this was raised by the program's module-level code, which runs again in the sandbox; "
            'put what only the program itself should do below if __name__ == "__main__":'
        )
        raise error
    finally:
        STATE.is_loading = False
    main = type(sys)("__mp_main__")
    main.__dict__.update(found)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = main


def call_whole(whole: bytes, packed: bytes) -> object:
    """Call a function that was sent as a whole. Its classes can then be found by their names, in results too."""
    function = pickle.loads(whole)
    main = sys.modules["__main__"]
    for name, value in function.__globals__.items():
        if isinstance(value, type) and value.__module__ == "__main__":
            setattr(main, name, value)
    arguments, keywords = pickle.loads(packed)
    return function(*arguments, **keywords)


def call(module: str, main_path: str, qualified_name: str, whole: bytes, packed: bytes) -> object:
    from importlib import import_module

    if whole:
        return call_whole(whole, packed)
    if main_path:
        load_main(main_path)
    function: Any = sys.modules["__main__"] if main_path else import_module(module)
    for name in qualified_name.split("."):
        function = getattr(function, name)
    arguments, keywords = pickle.loads(packed)
    return function.__wrapped__(*arguments, **keywords)


def failure(error: BaseException) -> "tuple[bytes, str, str, str]":
    import traceback

    kind = type(error)
    tail = error.__traceback__
    for _ in range(2):  # skip the frames of this module and of `call`
        tail = tail.tb_next if tail and tail.tb_next else tail
    try:
        packed = pickle.dumps(error, 5)
    except Exception:
        packed = b""
    lines = traceback.format_exception(kind, error, tail)
    return packed, f"{kind.__module__}.{kind.__qualname__}", str(error), "".join(lines)


SOCKET = os.dup(0)
os.dup2(os.open("/dev/null", os.O_RDWR), 0)
search_path, prefixes, *where = pickle.loads(read_all(int.from_bytes(read_all(8), "little")))
sys.path[:] = search_path
sys.prefix, sys.exec_prefix = prefixes
STATE: "Any" = type(sys)("_minibox_sandbox")
sys.modules["_minibox_sandbox"] = STATE  # sandboxed functions that are called from here run directly
sent: "tuple[object, ...]"
try:
    sent = (True, call(*where))
except Exception as error:
    sent = (False, *failure(error))
try:
    answer(*sent)
except Exception as error:  # the result can't be pickled
    answer(False, *failure(error))
