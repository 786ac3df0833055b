"""A shell beside a process that is being started: in its namespaces and its root directory, as they are at that moment."""

from __future__ import annotations

import os
import sys
from select import select

from minibox.base.files import close_descriptors, text_of
from minibox.engine.process.terminal import Terminal
from minibox.errors import MiniboxError, suppress
from minibox.linux import setns
from minibox.linux.process import die_with_parent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

SHELLS = ("/bin/sh", "/bin/bash", "/bin/busybox", "/usr/bin/sh")
KINDS = ("user", "cgroup", "ipc", "uts", "net", "mnt", "pid")  # the user namespace first: it owns the others
CHUNK_BYTES = 1 << 16


def shell_beside(pid: int, command: str) -> int:
    """Run a command, or a shell with a terminal of its own if the command is "", beside a process.

    With ids that aren't mapped yet, it stays in our user namespace.

    Returns:
        The exit status.

    Raises:
        MiniboxError: there is no shell, or it can't enter.
    """
    namespaces = _namespaces(pid)
    terminal = not command and os.isatty(0) and os.isatty(1)
    master, slave = os.openpty() if terminal else (-1, -1)
    reading, writing = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    sys.stdout.flush()
    child = os.fork()
    if not child:
        _enter(namespaces, slave, writing, command, parent)
    close_descriptors(writing, slave, *namespaces.values())
    with os.fdopen(reading) as file:
        if terminal:
            _copy(master)
        failed = file.read()
    close_descriptors(master)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if failed:
        raise MiniboxError(f"open a shell beside process {pid}: {failed}")
    return status


def _namespaces(pid: int) -> dict[str, int]:
    """Open those that aren't ours, and the root directory."""
    found = {}
    mapped = text_of(f"/proc/{pid}/uid_map").strip()
    for kind in KINDS:
        path = f"/proc/{pid}/ns/{kind}"
        if os.stat(path).st_ino != os.stat(f"/proc/self/ns/{kind}").st_ino and (kind != "user" or mapped):
            found[kind] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    found["root"] = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return found


def _enter(namespaces: dict[str, int], slave: int, report: int, command: str, parent: int) -> NoReturn:
    try:
        die_with_parent(parent)
        for kind in KINDS:
            if kind in namespaces:
                setns(namespaces[kind])
        os.fchdir(namespaces["root"])
        os.chroot(".")
        os.chdir("/")
        if "user" in namespaces:
            with suppress(OSError):  # without a range of ids, groups can't change
                os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        if "pid" in namespaces:  # only a child is in it
            inner = os.fork()
            if inner:
                os.close(report)
                os._exit(os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]) & 0xFF)
        _execute(slave, command)
    except OSError as error:
        os.write(report, str(error).encode())
    os._exit(126)


def _execute(slave: int, command: str) -> None:
    if slave >= 0:
        os.login_tty(slave) if hasattr(os, "login_tty") else _login(slave)
    elif command:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/",
        "PS1": "(inside) # ",
    }
    environment["TERM"] = os.environ.get("TERM", "dumb")
    for shell in SHELLS:
        if os.path.exists(shell):
            words = ["sh", "-c", command] if command else ["sh"]
            os.execve(shell, words, environment)
    raise FileNotFoundError("there is no shell in its root directory")


def _login(slave: int) -> None:
    from fcntl import ioctl
    from termios import TIOCSCTTY

    os.setsid()
    ioctl(slave, TIOCSCTTY, 0)
    for fd in (0, 1, 2):
        os.dup2(slave, fd)


def _copy(master: int) -> None:
    """Copy between our terminal and the shell's until the shell has ended."""
    terminal = Terminal(interactive=True)
    terminal.copy_size(master)
    terminal.enter_raw()
    try:
        while True:
            ready, _, _ = select([0, master], [], [])
            if master in ready:
                try:
                    os.write(1, os.read(master, CHUNK_BYTES))
                except OSError:
                    return
            if 0 in ready:
                typed = os.read(0, CHUNK_BYTES)
                if not typed:  # the terminal is gone; without its own the shell ends, too
                    return
                os.write(master, typed)
    finally:
        terminal.restore()
