"""capset(2), the bounding set, no_new_privs and system call filters."""

from __future__ import annotations

import ctypes
import os
from errno import EACCES, EFAULT, EINVAL, EPERM, errorcode

from minibox.linux.calls.failure import failure, needs
from minibox.linux.capabilities import NAMES, NUMBERS, last_cap, mask_of, names_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from minibox.oci.runtime import LinuxSeccomp

VERSION_3 = 0x20080522  # linux/capability.h
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 24, 38, 22
SECCOMP_MODE_FILTER = 2
INSTRUCTION_BYTES = 8  # struct sock_filter
HALF = 32
ERRNO_MAX = 4095
LAB_PRIVILEGES = 10
_MASK = (1 << HALF) - 1


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def capset(
    effective: Iterable[str] | None = None,
    permitted: Iterable[str] | None = None,
    inheritable: Iterable[str] | None = None,
) -> None:
    """Set the capabilities of this thread: capset(2), capabilities(7). Sets that you don't give stay as they are.

    They may only become fewer: effective ones must be permitted, and permitted ones must have been so before. At an
    execve(2) root (user 0) gets all of the *bounding* set back: see `drop_bounding`.

    Args:
        effective: those that count when the kernel checks, as names: ``["CAP_NET_RAW"]``.
        permitted: those that you may make effective.
        inheritable: those that a program with file capabilities may keep.

    Raises:
        PermissionError: EPERM: a capability is added to the permitted set, or an effective one isn't permitted.
        ValueError, TypeError: an unknown name, or a single string.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)()
    libc.capget(header, data)
    for place, given in enumerate((effective, permitted, inheritable)):
        if given is not None:
            mask = mask_of(_known("capset", given))
            data[place], data[place + 3] = mask & _MASK, mask >> HALF
    if libc.capset((ctypes.c_uint32 * 2)(VERSION_3, 0), data):
        wants = {
            EPERM: "a capability that isn't permitted can't be made effective, and one that was given up never comes back; "
            "inheritable ones must be permitted, or need CAP_SETPCAP"
        }
        tried = f"set the capabilities to {', '.join(names_of(data[0] | data[3] << HALF)) or 'none'}"
        raise failure("capset", tried, ctypes.get_errno(), wants, LAB_PRIVILEGES)


def capget() -> dict[str, list[str]]:
    """Return the capabilities of this thread by set: ``effective``, ``permitted``, ``inheritable``, ``bounding``, ``ambient``."""
    words = {
        "CapEff": "effective",
        "CapPrm": "permitted",
        "CapInh": "inheritable",
        "CapBnd": "bounding",
        "CapAmb": "ambient",
    }
    found = {}
    with open("/proc/thread-self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name in words:
                found[words[name]] = names_of(int(value, 16))
    return found


def drop_bounding(names: Iterable[str] | None = None, *, keep: Iterable[str] = ()) -> None:
    """Take capabilities out of the bounding set, so that no execve(2) gives them back: prctl(2) PR_CAPBSET_DROP.

    Args:
        names: which; None for all but ``keep``.

    Raises:
        PermissionError: EPERM: it needs CAP_SETPCAP: drop the bounding set before you give that up with `capset`.
        ValueError, TypeError: an unknown name, or a single string.
    """
    kept = set(_known("drop_bounding", keep))
    wanted = _known("drop_bounding", names) if names is not None else NAMES[: last_cap() + 1]
    for name in wanted:
        if name in kept:
            continue
        number = _prctl(PR_CAPBSET_DROP, NUMBERS[name])
        if number:
            wants = {
                EPERM: needs("CAP_SETPCAP", "a filter (seccomp) forbids it", instead="drop the bounding set first"),
                EINVAL: "this kernel doesn't know it",
            }
            raise failure("prctl", f"take {name} out of the bounding set", number, wants, LAB_PRIVILEGES)


def no_new_privs() -> None:
    """Make sure that no execve(2) gives this thread or its children more privileges: prctl(2) PR_SET_NO_NEW_PRIVS.

    Set-user-ID programs and file capabilities have no effect any more. It can't be undone. Who has no CAP_SYS_ADMIN needs
    it before `seccomp_filter`, else a filter could fool a set-user-ID program.

    Raises:
        OSError: the kernel is older than 3.5.
    """
    if number := _prctl(PR_SET_NO_NEW_PRIVS, 1):
        raise failure("prctl", "set no_new_privs", number, {EINVAL: "this kernel is too old"}, LAB_PRIVILEGES)


def seccomp_filter(refuse: Iterable[str], *, error: int = EPERM) -> None:
    """Have the kernel refuse system calls to this thread and its children from now on: seccomp(2), a BPF program.

    A filter can't be taken away, only others added; the strictest answer counts. It sees the numbers of the arguments, but
    not what a pointer points to.

    Args:
        refuse: names of system calls, such as ``["mkdir", "mkdirat"]``. A C library may use another call than you think:
            see strace(1).
        error: the errno that they fail with.

    Raises:
        PermissionError: EACCES: call `no_new_privs` first, or have CAP_SYS_ADMIN.
        ValueError, TypeError: an unknown call or errno, or a single string.
        Unsupported: libseccomp is missing.
    """
    from minibox.linux.seccomp.compile import compile_filter

    names = _words("seccomp_filter", refuse, "mkdir")
    if error not in errorcode:
        raise ValueError(f"seccomp_filter: {error} is no errno; EPERM is {EPERM}")
    if unknown := [name for name in names if not _is_call(name)]:
        raise ValueError(
            f"seccomp_filter: there is no system call {unknown[0]!r} on {os.uname().machine}: see syscalls(2)"
        )
    profile: LinuxSeccomp = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": error}] if names else [],
    }
    code = compile_filter(profile)
    libc = ctypes.CDLL(None, use_errno=True)
    given = _Program(len(code) // INSTRUCTION_BYTES, code)
    if libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), ctypes.byref(given), 0, 0):
        wants = {
            EACCES: "it needs no_new_privs(), or CAP_SYS_ADMIN: else a set-user-ID program could be fooled by the filter",
            EINVAL: "this kernel has no filters",
            EFAULT: "the program is not in memory",
        }
        raise failure("seccomp", f"filter {', '.join(names)}", ctypes.get_errno(), wants, LAB_PRIVILEGES)


def _prctl(option: int, argument: int) -> int:
    """Call prctl(2); return the errno, 0 if it worked."""
    libc = ctypes.CDLL(None, use_errno=True)
    worked = libc.prctl(option, ctypes.c_ulong(argument), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) == 0
    return 0 if worked else ctypes.get_errno()


def _is_call(name: str) -> bool:
    from minibox.linux.seccomp.compile import call_number

    return call_number(name) >= 0


def _words(call: str, given: Iterable[str], example: str) -> list[str]:
    if isinstance(given, (str, bytes)):
        raise TypeError(f'{call}: a list of names is expected, such as ["{example}"], not one string {given!r}')
    return list(given)


def _known(call: str, given: Iterable[str]) -> list[str]:
    names = _words(call, given, "CAP_NET_RAW")
    for name in names:
        if name not in NUMBERS:
            raise ValueError(
                f"{call}: there is no capability {name!r}; they are called as in capabilities(7), CAP_NET_RAW"
            )
    return names
