"""Functions for test_sandboxed.py: another interpreter finds them by this module's name."""

from __future__ import annotations

import datetime
import os
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import minibox


@dataclass
class Point:
    x: int
    y: int


class Odd(Exception):
    """Not one of Python's own."""


@minibox.sandboxed
def add(a: int, *, b: int) -> int:
    """Adds."""
    return a + b


@minibox.sandboxed
def identity(value: Any) -> Any:
    return value


@minibox.sandboxed(allow=[Point, Odd])
def point(x: int) -> Point:
    if x < 0:
        raise Odd("negative")
    return Point(x, 1)


@minibox.sandboxed
def unexpected(kind: str) -> Any:
    """What the caller does not take from who isn't trusted."""
    if kind == "point":
        return Point(1, 2)
    if kind == "odd":
        raise Odd("very")
    if kind == "lambda":
        return lambda: None
    if kind == "interrupt":
        raise KeyboardInterrupt
    return _Evil()


class _Evil:
    """Whoever loads it runs a program."""

    def __reduce__(self) -> Any:
        return subprocess.Popen, (["touch", "/tmp/minibox-evil"],)


@minibox.sandboxed(trusted=True)
def trusted() -> Any:
    return Point(3, 4), {datetime.date(2000, 1, 1)}


@minibox.sandboxed
def divide(by: int) -> float:
    return 1 / by


@minibox.sandboxed(timeout=1.0)
def sleep() -> None:
    threading.Event().wait()


@minibox.sandboxed(memory="64m")
def fill_memory() -> None:
    kept = []
    while True:
        kept.append(bytearray(1 << 20))


@minibox.sandboxed(cpu_time=0.5)
def burn() -> None:
    while True:
        pass


@minibox.sandboxed(output="10k")
def shout() -> None:
    while True:
        print("hello")


@minibox.sandboxed
def die(how: str) -> None:
    if how == "exit":
        os._exit(3)
    if how == "system exit":
        sys.exit(4)
    os.abort()


@minibox.sandboxed
def lie(data: bytes) -> None:
    """Says something else in place of an answer."""
    for fd in range(3, 10):
        try:
            os.write(fd, data)
        except OSError:
            pass
    os._exit(0)


@minibox.sandboxed
def nested(value: int) -> int:
    return add(value, b=1)


@minibox.sandboxed
def what_is_there() -> dict[str, Any]:
    found: dict[str, Any] = {"root": sorted(os.listdir("/")), "etc": sorted(os.listdir("/etc"))}
    found["links"] = sorted(name for _, name in socket.if_nameindex())
    found["writable"] = [path for path in ("/", "/usr", sys.prefix, os.path.dirname(__file__)) if _writable(path)]
    found["environment"] = sorted(os.environ)
    found["capabilities"] = Path("/proc/self/status").read_text().partition("CapBnd:")[2].split()[0]
    found["descriptors"] = len(os.listdir("/proc/self/fd"))
    found["prefix"] = sys.prefix
    return found


def _writable(path: str) -> bool:
    try:
        Path(path, "new").touch()
    except OSError:
        return False
    return True
