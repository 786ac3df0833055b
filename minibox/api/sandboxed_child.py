"""The program inside the sandbox of a sandboxed function: it reads the call from a socket, its standard input, and answers.

The interpreter gets its source by ``-c``. It imports nothing from minibox, which may not be installed there.

A message is its length, 8 bytes, and a pickle. A call has the module search path, the prefixes, the module, the main
program's path, the function's qualified name, and the pickled arguments. An answer is True and the result; or False, the
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
    import types

    main = types.ModuleType("__mp_main__")
    main.__dict__.update(runpy.run_path(path, run_name="__mp_main__"))
    sys.modules["__main__"] = sys.modules["__mp_main__"] = main


def call(module: str, main_path: str, qualified_name: str, packed: bytes) -> object:
    from importlib import import_module

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
sys.modules["_minibox_sandbox"] = sys  # sandboxed functions that are called from here run directly
sent: "tuple[object, ...]"
try:
    sent = (True, call(*where))
except Exception as error:
    sent = (False, *failure(error))
try:
    answer(*sent)
except Exception as error:  # the result can't be pickled
    answer(False, *failure(error))
