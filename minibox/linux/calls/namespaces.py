"""clone(2), unshare(2), setns(2) and sethostname(2)."""

from __future__ import annotations

import os
import sys
from errno import EINVAL, ENOMEM, ENOSPC, EPERM, EUSERS

from minibox._native import ffi, lib
from minibox.linux.calls.failure import check_flags, failure, flags_in_words, has, needs
from minibox.linux.calls.flags import CLONE_NEWTIME, CLONE_NEWUSER, NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

HOST_NAME_MAX = 64
SIGCHLD = 17
PR_GET_TID_ADDRESS = 40
CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID = 0x00200000, 0x01000000
SYS_CLONE = {"x86_64": 56, "aarch64": 220, "riscv64": 220, "ppc64le": 120}
FAILED = 1  # exit status of a child whose function raised
LAB_NAMESPACES = 2
_FOR_THE_CHILD = {name: bit for name, bit in NAMESPACES.items() if bit != CLONE_NEWTIME}
_TOO_MANY = "a limit of namespaces is reached: see /proc/sys/user/max_*_namespaces, and at most 32 lie in one another"


def unshare(flags: int) -> None:
    """Give this process namespaces of its own: unshare(2), namespaces(7).

    ``CLONE_NEWPID`` and ``CLONE_NEWTIME`` don't move this process: its *next child* is the first in the new namespace.
    All the others move it at once. A new mount namespace (``CLONE_NEWNS``) begins as a copy, and mounts that are shared
    go on to pass to the old one until you make them private.

    Args:
        flags: ``CLONE_NEWNS``, ``CLONE_NEWUTS``, ``CLONE_NEWIPC``, ``CLONE_NEWUSER``, ``CLONE_NEWPID``,
            ``CLONE_NEWNET``, ``CLONE_NEWCGROUP``, ``CLONE_NEWTIME``, joined by ``|``.

    Raises:
        PermissionError: EPERM: without CAP_SYS_ADMIN you may make only a user namespace (``CLONE_NEWUSER``), and the
            others together with it.
        OSError: EINVAL: ``CLONE_NEWUSER`` in a process with threads. ENOSPC or EUSERS: a limit is reached.
        ValueError, TypeError: ``flags`` are none of these.
    """
    check_flags("unshare", flags, NAMESPACES)
    if lib.unshare(flags):
        wants = {
            EPERM: _wants_admin(flags),
            EINVAL: "a process with threads can't enter a new user namespace: do it before you start them"
            if flags & CLONE_NEWUSER
            else "this kernel lacks one of these namespaces, or this process has one of a kind that it may make only once",
            ENOSPC: _TOO_MANY,
            EUSERS: _TOO_MANY,
            ENOMEM: "the kernel has no memory left; or the PID namespace of your next child is one whose process 1 has ended",
        }
        raise failure("unshare", f"unshare {flags_in_words(flags, NAMESPACES)}", ffi.errno, wants, LAB_NAMESPACES)


def clone(function: Callable[[], object], flags: int = 0) -> int:
    """Make a child process, in namespaces of its own: clone(2), as fork(2) with ``flags``. Return its pid.

    The child calls ``function`` and ends: with status 0, with the number that it returned, or with 1 and a traceback
    if it raised. It is a copy of this process, so nothing that it changes in memory is seen here. Wait for it with
    `os.waitpid`; until then, once ended, it is a zombie. With ``CLONE_NEWPID`` the child itself is process 1 of the new
    PID namespace: it ignores signals that it has no handler for, and when it ends all others of the namespace are killed.

    Args:
        function: called in the child, without arguments.
        flags: as for `unshare`, except ``CLONE_NEWTIME``.

    Raises:
        PermissionError: EPERM: as for `unshare`.
        OSError: ENOSPC, EUSERS: a limit of namespaces; EAGAIN: a limit of processes; ENOMEM: no memory, or the PID
            namespace's process 1 has ended.
        ValueError, TypeError: an argument is invalid.
    """
    if not callable(function):
        raise TypeError(f"clone: the first argument is the function that the child calls, not {function!r}")
    check_flags("clone", flags, _FOR_THE_CHILD)
    sys.stdout.flush()  # else what is buffered would be written twice
    sys.stderr.flush()
    pid, number = _fork(flags)
    if pid == 0:
        _become(function)
    if pid < 0:
        wants = {EPERM: _wants_admin(flags), ENOSPC: _TOO_MANY, EUSERS: _TOO_MANY}
        raise failure("clone", f"clone with {flags_in_words(flags, NAMESPACES)}", number, wants, LAB_NAMESPACES)
    return pid


def _fork(flags: int) -> tuple[int, int]:
    """Make the child as `os.fork` does, with ``flags``; the pid and errno, the pid 0 in the child."""
    import ctypes

    machine = os.uname().machine
    if machine not in SYS_CLONE:
        raise NotImplementedError(f"clone: the order of its arguments on {machine} is unknown here")
    python, libc = ctypes.pythonapi, ctypes.PyDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    # Where glibc keeps the thread's id, which fork(3) has the kernel write anew in the child.
    tid = ctypes.c_void_p(0)
    if not libc.prctl(PR_GET_TID_ADDRESS, ctypes.byref(tid), 0, 0, 0) and tid.value:
        flags |= CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID
    ends = (0, tid.value or 0) if machine == "aarch64" or machine == "riscv64" else (tid.value or 0, 0)
    words = [ctypes.c_long(word) for word in (SYS_CLONE[machine], flags | SIGCHLD, 0, 0, *ends)]
    python.PyOS_BeforeFork()
    pid = int(libc.syscall(*words))
    number = ctypes.get_errno()
    if pid == 0:
        python.PyOS_AfterFork_Child()
    else:
        python.PyOS_AfterFork_Parent()
    return pid, number


def _become(function: Callable[[], object]) -> NoReturn:
    status = FAILED
    try:
        result = function()
        status = result if isinstance(result, int) else 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else FAILED if end.code else 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status & 0xFF)


def setns(fd: int | str | os.PathLike[str], nstype: int = 0) -> None:
    """Enter a namespace that exists: setns(2).

    Args:
        fd: an open descriptor of ``/proc/PID/ns/KIND``, or that path; or a pidfd, with ``nstype`` saying which of that
            process's namespaces.
        nstype: the kind that is expected, such as ``CLONE_NEWUTS``; 0 for any.

    As with `unshare`, entering a PID namespace moves only the children that come after.

    Raises:
        PermissionError: EPERM: you need CAP_SYS_ADMIN both where you are and in the user namespace that owns the
            namespace. Enter that user namespace first, and then you have it.
        OSError: EINVAL: it is a namespace of another kind, your own user namespace, or a mount or user namespace while
            this process has threads. EBADF: not a descriptor.
        FileNotFoundError: there is no such process or kind.
        ValueError, TypeError: an argument is invalid.
    """
    check_flags("setns", nstype, NAMESPACES)
    if isinstance(fd, (str, os.PathLike)):
        opened = os.open(fd, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return setns(opened, nstype)
        finally:
            os.close(opened)
    if not isinstance(fd, int) or isinstance(fd, bool):
        raise TypeError(f"setns: the first argument is a descriptor or a path such as /proc/PID/ns/uts, not {fd!r}")
    if lib.setns(fd, nstype):
        number = ffi.errno
        wants = {
            EPERM: needs(
                "CAP_SYS_ADMIN",
                "you lack it in the user namespace that owns this namespace: enter that one first",
                instead="enter the user namespace that owns it first",
            ),
            EINVAL: "it is of another kind than nstype says, or your own user namespace, or this process has threads",
        }
        raise failure("setns", f"enter the namespace {_target(fd)}", number, wants, LAB_NAMESPACES)


def _target(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return f"of descriptor {fd}"


def sethostname(name: str) -> None:
    """Set the host name of the UTS namespace that this process is in: sethostname(2), uts_namespaces(7).

    Every process of the namespace sees it at once.

    Raises:
        PermissionError: EPERM: it needs CAP_SYS_ADMIN in the user namespace that owns the UTS namespace.
        ValueError: the name is longer than 64 bytes.
        TypeError: it is not a string.
    """
    import socket

    if not isinstance(name, str):
        raise TypeError(f"sethostname: the name is a string, not {name!r}")
    if len(name.encode()) > HOST_NAME_MAX:
        raise ValueError(
            f"sethostname: {name!r} has more than {HOST_NAME_MAX} bytes, which is all that the kernel keeps"
        )
    try:
        socket.sethostname(name)
    except OSError as error:
        wants = {
            EPERM: needs(
                "CAP_SYS_ADMIN",
                "your capabilities hold in your own user namespace, and this UTS namespace belongs to another: "
                "unshare(CLONE_NEWUTS) first",
                instead="unshare(CLONE_NEWUSER | CLONE_NEWUTS) gives you both",
            )
        }
        raise failure("sethostname", f"set the host name {name}", error.errno or 0, wants, LAB_NAMESPACES) from None


def _wants_admin(flags: int) -> str:
    if flags & CLONE_NEWUSER and flags != CLONE_NEWUSER or has("CAP_SYS_ADMIN"):
        return (
            "you may do it, so a filter (seccomp), a security module or a setting such as "
            "/proc/sys/user/max_user_namespaces forbids it; or this process is in a chroot"
        )
    if flags == CLONE_NEWUSER:
        return "a filter, a security module or a setting forbids user namespaces, or this process is in a chroot"
    return needs("CAP_SYS_ADMIN", "", instead="add CLONE_NEWUSER, which anybody may make: you have it in there")
