"""The quota of keys of a user: keyrings(7)."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

USE_UP = """
import ctypes, errno, os, sys
os.setresgid(int(sys.argv[1]), int(sys.argv[1]), int(sys.argv[1]))
os.setresuid(int(sys.argv[1]), int(sys.argv[1]), int(sys.argv[1]))
libc = ctypes.CDLL(None, use_errno=True)
call = {"x86_64": 248, "aarch64": 217}[os.uname().machine]  # add_key(2)
PROCESS_KEYRING = -2
for number in range(100000):
    if libc.syscall(call, b"keyring", b"%d" % number, None, 0, PROCESS_KEYRING) < 0:
        assert ctypes.get_errno() == errno.EDQUOT, ctypes.get_errno()
        break
print("used up", flush=True)
sys.stdin.read()
"""


def begin_session() -> None:
    """A session keyring for this process: without one a first may be had beyond the quota."""
    call = {"x86_64": 250, "aarch64": 219}[os.uname().machine]  # keyctl(2)
    assert ctypes.CDLL(None).syscall(call, 1, None) > 0  # KEYCTL_JOIN_SESSION_KEYRING


@contextmanager
def no_more_keys(uid: int) -> Iterator[None]:
    """A user has as many keys as he may have."""
    command = [sys.executable, "-c", USE_UP, str(uid)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"used up\n"
        yield
        process.communicate()
