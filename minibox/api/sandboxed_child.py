"""What runs in the sandbox of a sandboxed function: it gets the call by the socket that is its standard input, and answers.

Its text is given to the interpreter by ``-c``: it imports nothing of minibox, which may not be there.

A message is its length, 8 bytes, and a pickle. The call: the module search path, how to find the module, the function's
qualified name, its arguments. The answer: True and the result; or False, the exception's pickle (b"" where it can't be
pickled), its type's name, its text and its traceback.
"""

import _pickle as pickle  # without its Python part, which imports much
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing isn't imported inside: it would cost each call
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
    """As multiprocessing does for a new interpreter: the program, but not as the one that is run."""
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
    for _ in range(2):  # of `call`, and of this module
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
sys.modules["_minibox_sandbox"] = sys  # a sandboxed function that is called in here is in a sandbox already
sent: "tuple[object, ...]"
try:
    sent = (True, call(*where))
except Exception as error:
    sent = (False, *failure(error))
try:
    answer(*sent)
except Exception as error:  # the result can't be pickled
    answer(False, *failure(error))
