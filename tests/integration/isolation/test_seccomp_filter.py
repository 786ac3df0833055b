"""Compiled seccomp programs under the running kernel: a child loads one and tries system calls."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from minibox.linux.capabilities import DEFAULT, NAMES
from minibox.linux.seccomp import program as seccomp

CHILD = """
import ctypes, json, sys
libc = ctypes.CDLL(None, use_errno=True)
program = open(sys.argv[1], "rb").read()
calls = json.loads(sys.argv[2])
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]
loaded = Program(len(program) // 8, program)
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
assert libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(loaded), 0, 0) == 0, ctypes.get_errno()
libc.syscall.restype = ctypes.c_long
answers = []
for number, *args in calls:
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *map(ctypes.c_ulong, args))
    answers.append(ctypes.get_errno() if result == -1 else 0)
print(json.dumps(answers))
"""

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="system call numbers are those of x86_64")

GETPID, IOCTL, SOCKET, MOUNT, UNSHARE, KEYCTL, CLONE3, OPEN_TREE, UMASK, PERSONALITY = (
    39, 16, 41, 165, 272, 250, 435, 428, 95, 135
)  # fmt: skip
NO_FD, TCGETS, TIOCSTI = 1000, 0x5401, 0x5412
NEWUTS, CLONE_FILES = 0x04000000, 0x400


def answers(program: bytes, calls: list[tuple[int, ...]], directory: Any) -> list[int]:
    """The errno of each call, 0 for success."""
    path = directory / "program"
    path.write_bytes(program)
    arguments = [sys.executable, "-c", CHILD, str(path), json.dumps(calls)]
    return list(json.loads(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout))


@pytest.mark.kernel
def test_default_filter(tmp_path):
    program = seccomp.program(seccomp.DEFAULT_PROFILE, DEFAULT, str(tmp_path))
    expected = {
        (GETPID,): 0,
        (UNSHARE, CLONE_FILES): 0,
        (UNSHARE, NEWUTS): errno.EPERM,
        (MOUNT, 0, 0, 0, 0, 0): errno.EPERM,
        (KEYCTL, 0, 0): errno.EPERM,
        (CLONE3, 0, 0): errno.ENOSYS,
        (IOCTL, NO_FD, TCGETS, 0): errno.EBADF,  # the kernel was asked
        (IOCTL, NO_FD, TIOCSTI, 0): errno.EPERM,
        (IOCTL, NO_FD, 1 << 32 | TIOCSTI, 0): errno.EPERM,
        (SOCKET, 40, 1, 0): errno.EPERM,
        (PERSONALITY, 0xFFFFFFFF): 0,
        (PERSONALITY, 0x0040000): errno.EPERM,
        (700,): errno.ENOSYS,
    }
    assert answers(program, list(expected), tmp_path) == list(expected.values())


def test_capabilities_open_their_calls(tmp_path):
    program = seccomp.program(seccomp.DEFAULT_PROFILE, NAMES, str(tmp_path))
    got = answers(program, [(MOUNT, 0, 0, 0, 0, 0), (OPEN_TREE, NO_FD, 0, 0), (CLONE3, 0, 0)], tmp_path)
    assert errno.ENOSYS not in got and got[2] == errno.EINVAL
    assert got[0] in (errno.EFAULT, errno.EINVAL, errno.EPERM) and got[1] in (errno.EFAULT, errno.EPERM)


def test_a_profile_of_ones_own(tmp_path):
    rule = {"names": ["umask"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EXDEV}
    profile: Any = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    program = seccomp.program(profile, (), str(tmp_path))
    assert answers(program, [(UMASK, 0), (GETPID,), (700,)], tmp_path) == [errno.EXDEV, 0, errno.ENOSYS]
