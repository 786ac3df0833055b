"""What each argument of the Python API takes: the one place that checks them. docs/api.md shows the same table.

`checked` checks a function's arguments by their names. What needs the image or the host to be judged, such as the name
of a user, is left to the engine, and so are the words inside a value, such as those of a mount.
"""

from __future__ import annotations

import os
from codecs import lookup, lookup_error

from minibox.base.sizes import parse_size
from minibox.errors import MiniboxError, UsageError, WrongArgument
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, NoReturn, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])

MEMORY_LEAST = 6 << 20  # the engine's: a container can't start with less
SIGNAL_MOST, PORT_MOST, ID_MOST = 64, (1 << 16) - 1, (1 << 32) - 2
SHOWN = 80  # characters of a wrong value in an error
TAKES_MORE, IS_COROUTINE = 0x08, 0x80  # bits of co_flags: **options, and async def; see `inspect`


@record
class Kind:
    """What an argument may be.

    Attributes:
        type: in Python's words.
        expected: what it is, its unit and its bounds, in words.
        accepts: says whether a value is one.
        unit: "" for none.
    """

    type: str
    expected: str
    accepts: Callable[[Any], bool]
    unit: str = ""


@record
class Argument:
    """An argument of that name, of whichever function.

    Attributes:
        example: a right one, as it is written in a call.
        default: what happens without it, for keywords of `ContainerOptions`.
        errors: what else can be wrong with it, beside `UsageError`.
    """

    kind: Kind
    example: str
    default: str = ""
    errors: str = ""


# ---- kinds ----------------------------------------------------------------------------------------


def _is_number(value: Any) -> bool:
    kind = type(value)
    if kind is not int and kind is not float:
        if isinstance(value, (bool, str, bytes)) or not hasattr(kind, "__float__"):  # a number of numpy's is one, too
            return False
        value = float(value)
    return bool(-1e18 < value < 1e18)  # neither inf nor nan


def _is_integer(value: Any) -> bool:
    return hasattr(type(value), "__index__") and not isinstance(value, bool)


def _between(least: int, most: float = 1e18) -> Callable[[Any], bool]:
    return lambda value: _is_integer(value) and least <= value <= most


def _is_size(value: Any, least: int = 0) -> bool:
    if isinstance(value, str):
        try:
            return parse_size(value) >= least
        except UsageError:
            return False
    return _is_integer(value) and bool(least <= value < 1 << 63)


def _is_path(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, os.PathLike) and isinstance(os.fspath(value), str))


def _is_iterable(value: Any) -> bool:
    return hasattr(type(value), "__iter__") and not isinstance(value, (str, bytes)) and not hasattr(type(value), "keys")


def _is_mapping(value: Any) -> bool:
    return hasattr(type(value), "keys") and hasattr(type(value), "__getitem__")


def _is_mapping_to_words(value: Any) -> bool:
    return _is_mapping(value) and all(isinstance(name, str) and _is_word(value[name]) for name in value)


def _is_word(value: Any) -> bool:
    return isinstance(value, str) or _is_integer(value)


def _is_ports(value: Any) -> bool:
    return _is_mapping(value) and all(_is_word(inside) and _is_word(value[inside]) for inside in value)


def _is_limit(value: Any) -> bool:
    return _is_integer(value) or (isinstance(value, tuple) and len(value) == 2 and all(map(_is_integer, value)))


def _is_network(value: Any) -> bool:
    return isinstance(value, str) or hasattr(
        type(value), "joinable_name"
    )  # a minibox.Network, which imports this module


def _is_stream(value: Any) -> bool:
    if not hasattr(value, "fileno"):
        return _is_integer(value) and value >= -3  # PIPE, STDOUT, DEVNULL
    try:
        return _is_integer(value.fileno())
    except (OSError, ValueError):  # it has none, or is closed
        return False


def _is_input(value: Any) -> bool:
    if isinstance(value, (str, bytes)):
        return True
    try:
        memoryview(value)
    except TypeError:
        return False
    return True


def _is_encoding(value: Any) -> bool:
    return isinstance(value, str) and _is_known(lookup, value)


def _is_error_handler(value: Any) -> bool:
    return isinstance(value, str) and _is_known(lookup_error, value)


def _is_known(look: Callable[[str], object], name: str) -> bool:
    try:
        look(name)
    except (LookupError, ValueError):
        return False
    return True


TEXT = Kind("str", "a string", lambda value: isinstance(value, str))
PATH = Kind("str or path", "a path: a string or a pathlib.Path", _is_path)
USER = Kind("str or int", 'a user\'s number, or "name|uid[:group|gid]"',
            lambda value: isinstance(value, str) or (_is_integer(value) and 0 <= value <= ID_MOST))  # fmt: skip
FLAG = Kind("bool", "True or False", lambda value: value is True or value is False)
SIZE = Kind("int or str", 'a size: bytes as an int, or a string with a unit such as "64m"', _is_size, "bytes")
SIZE_ABOVE_0 = Kind("int or str", 'a size above 0: bytes as an int, or a string with a unit such as "64m"',
                    lambda value: _is_size(value, 1), "bytes")  # fmt: skip
MEMORY = Kind("int or str", 'a size of at least 6 MiB: bytes as an int, or a string with a unit such as "64m"',
              lambda value: _is_size(value, MEMORY_LEAST), "bytes")  # fmt: skip
SWAP = Kind("int or str", f"{MEMORY.expected}; or -1 for no limit",
            lambda value: _is_size(value, MEMORY_LEAST) or (_is_integer(value) and value == -1), "bytes")  # fmt: skip
SECONDS = Kind("float", "seconds: a number", _is_number, "seconds")
DURATION = Kind("float", "seconds: a number above 0", lambda value: _is_number(value) and value > 0, "seconds")
CPUS = Kind("float", "CPUs: a number above 0", lambda value: _is_number(value) and value > 0, "CPUs")
COUNT = Kind(
    "int",
    "a whole number of at least 1; -1 for no limit",
    lambda value: _is_integer(value) and (value >= 1 or value == -1),
)
BYTES = Kind("int", "bytes: a whole number of at least 0", _between(0), "bytes")
PORT = Kind("int", "a port: 1 to 65535", _between(1, PORT_MOST))
SIGNAL = Kind("int", "a signal's number: 0 to 64", _between(0, SIGNAL_MOST))
MODE = Kind("int", "permission bits: 0 to 0o7777", _between(0, 0o7777))
WHOLE = Kind("int", "a whole number", _is_integer)
COMMAND = Kind("list of str or path", "a command: a list of words", _is_iterable)
WORDS = Kind("list of str", "a list of strings", _is_iterable)
TYPES = Kind("list of types", "a list of types", _is_iterable)
MOUNTS = Kind(
    "list of str or tuple", 'a list of "SOURCE:DESTINATION[:ro]" or (source, destination[, "ro"])', _is_iterable
)
VARIABLES = Kind("mapping", "a mapping of names to strings",
                 lambda value: _is_mapping(value) and all(isinstance(name, str) for name in value))  # fmt: skip
PAIRS = Kind("mapping", "a mapping of strings to strings", _is_mapping_to_words)
PATHS = Kind("mapping", "a mapping of names to paths",
             lambda value: _is_mapping(value) and all(map(_is_path, (value[name] for name in value))))  # fmt: skip
PORTS = Kind("mapping", "a mapping of ports of the container to ports of this host", _is_ports)
ULIMITS = Kind("mapping", "a mapping of names to numbers, or to pairs of numbers, soft and hard",
               lambda value: _is_mapping(value) and all(_is_limit(value[name]) for name in value))  # fmt: skip
NETWORK = Kind("str or Network", "none, bridge, host, a network's name, or a minibox.Network", _is_network)
STREAM = Kind("int or file", "PIPE, DEVNULL, STDOUT, a descriptor, or an open file that has one", _is_stream)
INPUT = Kind("str or bytes", "a string or bytes", _is_input)
PATTERN = Kind("str or re.Pattern", "a string or a compiled regular expression",
               lambda value: isinstance(value, str) or hasattr(value, "search"))  # fmt: skip
FUNCTION = Kind("function", "a function", callable)
IMAGE = Kind("str", "an image's name, its digest, or the beginning of its id", lambda value: isinstance(value, str))
ENCODING = Kind("str", "an encoding that Python knows", _is_encoding)
ERRORS = Kind("str", "an error handler that Python's codecs know", _is_error_handler)
PULL = Kind("str", "missing, never or always", lambda value: value in ("missing", "never", "always"))


# ---- arguments ------------------------------------------------------------------------------------

#: The keywords of `minibox.ContainerOptions`. None for any of them is as if it weren't given.
OPTIONS: dict[str, Argument] = {
    "env": Argument(VARIABLES, 'env={"LANG": "C"}', "the image's"),
    "cwd": Argument(PATH, 'cwd="/tmp"', "the image's"),
    "user": Argument(USER, 'user="nobody"', "the image's", "`ConfigError`: the image has no such user"),
    "network": Argument(NETWORK, 'network="bridge"', "`none`", "`NetworkNotFound`, `NetworkError`, `Unsupported`"),
    "aliases": Argument(WORDS, 'aliases=["db"]', "none"),
    "ports": Argument(PORTS, "ports={80: 8080}", "none", "`PortTaken`"),
    "hostname": Argument(TEXT, 'hostname="db"', "the beginning of its id"),
    "memory": Argument(MEMORY, 'memory="64m"', "no limit", "`LimitError`: this host can't limit it"),
    "memory_swap": Argument(SWAP, 'memory_swap="128m"', "twice `memory`", "`LimitError`"),
    "cpus": Argument(CPUS, "cpus=0.5", "no limit", "`LimitError`"),
    "processes": Argument(COUNT, "processes=20", "no limit", "`LimitError`"),
    "cpu_time": Argument(DURATION, "cpu_time=2.5", "no limit"),
    "wall_time": Argument(DURATION, "wall_time=10", "no limit"),
    "output": Argument(SIZE, 'output="1m"', "no limit"),
    "file_size": Argument(SIZE, 'file_size="10m"', "no limit"),
    "disk": Argument(SIZE_ABOVE_0, 'disk="100m"', "no limit", "`Unsupported`"),
    "ulimits": Argument(ULIMITS, 'ulimits={"nofile": 64, "core": (0, 0)}', "this process's"),
    "mounts": Argument(MOUNTS, 'mounts=[("/src", "/src", "ro")]', "none", "`MiniboxError`: a source is missing"),
    "tmpfs": Argument(WORDS, 'tmpfs=["/run:size=16m"]', "none"),
    "read_only": Argument(FLAG, "read_only=True", "False"),
    "shm_size": Argument(SIZE_ABOVE_0, 'shm_size="64m"', "64 MiB"),
    "entrypoint": Argument(TEXT, 'entrypoint=""', "the image's"),
    "init": Argument(FLAG, "init=True", "False"),
    "privileged": Argument(FLAG, "privileged=True", "False"),
    "cap_add": Argument(WORDS, 'cap_add=["NET_ADMIN"]', "none"),
    "cap_drop": Argument(WORDS, 'cap_drop=["ALL"]', "none"),
    "security_opt": Argument(WORDS, 'security_opt=["no-new-privileges"]', "none"),
    "devices": Argument(WORDS, 'devices=["/dev/fuse"]', "none", "`MiniboxError`: a device is missing"),
    "sysctls": Argument(PAIRS, 'sysctls={"net.ipv4.ip_forward": "1"}', "none"),
    "userns": Argument(TEXT, 'userns="host"', "private where this host can"),
    "add_hosts": Argument(PAIRS, 'add_hosts={"db": "10.0.0.2"}', "none"),
    "dns": Argument(WORDS, 'dns=["10.0.0.1"]', "this host's"),
    "labels": Argument(PAIRS, 'labels={"job": "7"}', "none"),
    "name": Argument(TEXT, 'name="db"', "one that minibox makes up", "`NameTaken`"),
    "pull": Argument(PULL, 'pull="never"', "`missing`", "`ImageNotFound`, `RegistryError`"),
    "platform": Argument(TEXT, 'platform="linux/arm64"', "this machine's", "`ImageNotFound`, `RegistryError`"),
    "root": Argument(PATH, 'root="/srv/minibox"', "`MINIBOX_ROOT`", "`UnsafeDirectory`"),
    "runroot": Argument(PATH, 'runroot="/run/minibox"', "`MINIBOX_RUNROOT`", "`UnsafeDirectory`"),
    "storage_driver": Argument(TEXT, 'storage_driver="overlay"', "`MINIBOX_STORAGE_DRIVER`", "`Unsupported`"),
}

#: All other arguments of functions that run something or look at it.
ARGUMENTS: dict[str, Argument] = {
    "image": Argument(IMAGE, 'image="base"'),
    "args": Argument(COMMAND, 'args=["echo", "hi"]'),
    "service": Argument(FLAG, "service=True"),
    "input": Argument(INPUT, 'input="text"'),
    "stdin": Argument(STREAM, "stdin=minibox.PIPE"),
    "stdout": Argument(STREAM, "stdout=minibox.PIPE, or capture_output=True"),
    "stderr": Argument(STREAM, "stderr=minibox.STDOUT"),
    "capture_output": Argument(FLAG, "capture_output=True"),
    "text": Argument(FLAG, "text=True"),
    "encoding": Argument(ENCODING, 'encoding="utf-8"'),
    "errors": Argument(ERRORS, 'errors="replace"'),
    "bufsize": Argument(WHOLE, "bufsize=1"),
    "timeout": Argument(SECONDS, "timeout=10"),
    "check": Argument(FLAG, "check=True"),
    "env": OPTIONS["env"],
    "cwd": OPTIONS["cwd"],
    "user": OPTIONS["user"],
    "port": Argument(PORT, "port=80"),
    "log": Argument(PATTERN, 'log="ready"'),
    "http": Argument(TEXT, 'http="/health"'),
    "file": Argument(PATH, 'file="/run/ready"'),
    "exec": Argument(COMMAND, 'exec=["pg_isready"]'),
    "signal": Argument(SIGNAL, "kill(15), or kill(signal.SIGTERM)"),
    "path": Argument(PATH, 'path="/tmp/file"'),
    "source": Argument(PATH, 'source="/tmp/file"'),
    "destination": Argument(PATH, 'destination="/tmp/file"'),
    "data": Argument(INPUT, 'data="text"'),
    "mode": Argument(MODE, "mode=0o644"),
    "limit_bytes": Argument(BYTES, "limit_bytes=1 << 20"),
    "reference": Argument(TEXT, 'reference="web:1"'),
    "changes": Argument(WORDS, "changes=['CMD [\"serve\"]']"),
    "message": Argument(TEXT, 'message="the first"'),
    "key": Argument(TEXT, 'key="users"'),
    "prepare": Argument(FUNCTION, "prepare=lambda: prepared_sandbox()"),
    "root": OPTIONS["root"],
    "runroot": OPTIONS["runroot"],
    "storage_driver": OPTIONS["storage_driver"],
    "name": OPTIONS["name"],
    "internal": Argument(FLAG, "internal=False"),
    "subnet": Argument(TEXT, 'subnet="10.1.2.0/24"'),
    "labels": OPTIONS["labels"],
    "aliases": OPTIONS["aliases"],
    "platform": OPTIONS["platform"],
    "command": Argument(COMMAND, 'command=["serve"]'),
    "entrypoint": Argument(COMMAND, 'entrypoint=["/entry"]'),
    "workdir": Argument(TEXT, 'workdir="/srv"'),
    "on_event": Argument(FUNCTION, "on_event=print"),
    "force": Argument(FLAG, "force=True"),
    "allow": Argument(TYPES, "allow=[Path]"),
    "trusted": Argument(FLAG, "trusted=True"),
    "result_bytes": Argument(BYTES, "result_bytes=1 << 20"),
}

#: The keywords of builds from a Dockerfile.
BUILD: dict[str, Argument] = {
    "file": ARGUMENTS["file"],
    "tags": Argument(WORDS, 'tags=["web"]'),
    "target": Argument(TEXT, 'target="build"'),
    "build_args": Argument(VARIABLES, 'build_args={"VERSION": "1"}'),
    "contexts": Argument(PATHS, 'contexts={"src": "/src"}'),
    "secrets": Argument(PATHS, 'secrets={"token": "/run/token"}'),
    "cache_from": Argument(WORDS, 'cache_from=["type=local,src=cache"]'),
    "cache_to": Argument(WORDS, 'cache_to=["type=local,dest=cache"]'),
    "no_cache": Argument(FLAG, "no_cache=True"),
    "pull": Argument(FLAG, "pull=True"),
    "platform": OPTIONS["platform"],
    "network": Argument(TEXT, 'network="none"'),
    "add_host": Argument(WORDS, 'add_host=["db:10.0.0.2"]'),
    "source_date_epoch": Argument(BYTES, "source_date_epoch=0"),
    "labels": OPTIONS["labels"],
    "root": OPTIONS["root"],
    "runroot": OPTIONS["runroot"],
    "storage_driver": OPTIONS["storage_driver"],
}


# ---- checks ---------------------------------------------------------------------------------------


def checked(more: Mapping[str, Argument] | None = None, **own: Argument) -> Callable[[F], F]:
    """Decorator: check the arguments of each call by their names.

    Args:
        more: what may come in the function's ``**options``, if it has them.
        own: arguments that mean something else in this function than elsewhere.
    """

    def decorate(function: F) -> F:
        found: F = with_checks(function, more, own)
        return found

    return decorate


def with_checks(
    function: Any,
    more: Mapping[str, Argument] | None = None,
    own: Mapping[str, Argument] | None = None,
    before: Callable[[Any, str], None] | None = None,
) -> Any:
    """Return ``function`` with checks.

    Args:
        more, own: as in `checked`.
        before: called first, with the first argument and the function's name.
    """
    from functools import wraps

    known, positional, needed = _parameters(function, more or {}, own or {})
    accepts = {name: argument.kind.accepts for name, argument in known.items()}
    names = {*known, *function.__code__.co_varnames}

    def check(args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        if before:
            before(args[0], function.__name__)
        for name, value in (*zip(positional, args), *keywords.items()):
            if name in accepts:
                if (value is not None or name in needed) and not accepts[name](value):
                    raise _refusal(_name_of(function, args), name, value, known[name])
            elif name not in names:
                raise _unknown(_name_of(function, args), name, known)

    if function.__code__.co_flags & IS_COROUTINE:

        @wraps(function)
        async def call_async(*args: Any, **keywords: Any) -> Any:
            check(args, keywords)
            try:
                return await function(*args, **keywords)
            except (OSError, MiniboxError) as error:
                raise_in_words(_name_of(function, args), error)

        return call_async

    @wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        check(args, keywords)
        try:
            return function(*args, **keywords)
        except (OSError, MiniboxError) as error:
            raise_in_words(_name_of(function, args), error)

    return call


def raise_in_words(what: str, error: OSError | MiniboxError) -> NoReturn:
    """Raise an error again; if a limit of this process is its cause, with words and a hint."""
    from minibox.api.shortage import in_words

    told = in_words(what, error)
    if told is None or told is error:
        raise error
    raise told from error


def _parameters(
    function: Any, more: Mapping[str, Argument], own: Mapping[str, Argument]
) -> tuple[dict[str, Argument], tuple[str, ...], set[str]]:
    """Return what we know of its arguments, the positional ones, and those that can't be None."""
    code = function.__code__
    positional = code.co_varnames[: code.co_argcount]
    named = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    defaults = dict(zip(reversed(positional), reversed(function.__defaults__ or ()))) | (function.__kwdefaults__ or {})
    known = dict(more) if code.co_flags & TAKES_MORE else {}
    for name in named:
        known.pop(name, None)
        if argument := own.get(name) or ARGUMENTS.get(name):
            known[name] = argument
    return known, positional, {name for name in named if defaults.get(name, ...) is not None}


def _name_of(function: Any, args: tuple[Any, ...]) -> str:
    """Return its name as the caller knows it: ``run``, ``Sandbox``, ``Sandbox.run``."""
    name: str = function.__name__
    if "." not in function.__qualname__ or not args:
        return name
    kind = args[0] if isinstance(args[0], type) else type(args[0])
    return kind.__name__ if name == "__init__" else f"{kind.__name__}.{name}"


def _refusal(function: str, name: str, value: Any, argument: Argument) -> WrongArgument:
    shown = repr(value)
    shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
    what = f"{function}: {name}={shown}: expected {argument.kind.expected}, got {type(value).__name__}"
    if argument.kind is COMMAND and isinstance(value, (str, bytes)):
        return WrongArgument(what, f'only a shell can split a string: {name}=["sh", "-c", {shown}]')
    hint = f"for example {argument.example}"
    if isinstance(value, str) and (number := _number_in(value)) is not None and argument.kind.accepts(number):
        hint = f"write {name}={number}"
    elif argument.default == "no limit":
        hint += f"; {name}=None for no limit"
    return WrongArgument(what, hint)


def _number_in(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def _unknown(function: str, name: str, known: Mapping[str, Argument]) -> WrongArgument:
    from difflib import get_close_matches

    if name in OPTIONS:
        hint = "it is an option of a whole sandbox: give it to minibox.Sandbox or minibox.run"
    elif alike := get_close_matches(name, known, 1):
        hint = f"did you mean {alike[0]!r}?"
    else:
        hint = f"known arguments: {', '.join(known)}"
    return WrongArgument(f"{function}: unknown argument {name!r}", hint)
