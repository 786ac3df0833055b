"""`minibox.linux` for lessons: documented calls, whose errors say in words what the kernel wants."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import minibox.linux
from minibox.lab.catalog import labs

linux: Any = minibox.linux  # wrong types are tried
CALLS = (
    "capset",
    "clone",
    "drop_bounding",
    "mknod",
    "mount",
    "pivot_root",
    "sethostname",
    "setns",
    "umount",
    "unshare",
)
CHECKOUT = Path(__file__).resolve().parents[3]


def test_control_groups_are_documented_with_their_errors() -> None:
    assert "EBUSY" in linux.ControlGroup.__init__.__doc__ and "v1 one for each controller" in linux.ControlGroup.__doc__


@pytest.mark.parametrize("name", CALLS)
def test_each_call_is_documented_with_its_errors(name: str) -> None:
    text = getattr(linux, name).__doc__
    assert "Raises:" in text and re.search(r"EPERM", text)
    assert re.search(r"\w\(2\)", text), "the manual page"
    assert name in dir(linux)


def test_help_reads_well() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import minibox; help(minibox.linux.unshare)"],
        capture_output=True, text=True, check=True, cwd=CHECKOUT,
    )  # fmt: skip
    assert "unshare(flags: int) -> None" in done.stdout.replace("'", "")
    assert "its *next child* is the first in the new namespace" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: linux.unshare("net"), TypeError, "flags are a number such as CLONE_NEWNS | CLONE_NEWUTS, not 'net'"),
        (lambda: linux.unshare(1 << 40), ValueError, "0x10000000000 is none of its flags"),
        (lambda: linux.clone(3), TypeError, "the function that the child calls, not 3"),
        (lambda: linux.clone(print, linux.CLONE_NEWTIME), ValueError, "0x80 is none of its flags"),
        (lambda: linux.setns(None), TypeError, "a descriptor or a path such as /proc/PID/ns/uts"),
        (lambda: linux.setns("/proc/self/ns/uts", linux.CLONE_NEWPID), OSError, "it is of another kind"),
        (lambda: linux.setns("/proc/0/ns/uts"), FileNotFoundError, "/proc/0/ns/uts"),
        (lambda: linux.sethostname("x" * 65), ValueError, "more than 64 bytes"),
        (lambda: linux.mount("a", "/tmp"), ValueError, 'say which file system, such as fstype="tmpfs"'),
        (lambda: linux.mount("a", "/tmp", 3), TypeError, "fstype and data are strings"),
        (lambda: linux.mount("", "/", flags=linux.MS_PRIVATE | linux.MS_SHARED), ValueError, "at a time"),
        (lambda: linux.umount("/\0"), ValueError, "NUL"),
        (lambda: linux.capset(["CAP_ANY"]), ValueError, "there is no capability 'CAP_ANY'"),
        (lambda: linux.capset("CAP_CHOWN"), TypeError, 'such as ["CAP_NET_RAW"], not one string'),
        (lambda: linux.seccomp_filter(["mkdirr"]), ValueError, "there is no system call 'mkdirr'"),
        (lambda: linux.seccomp_filter(["mkdir"], error=0), ValueError, "0 is no errno"),
        (lambda: linux.ControlGroup("a/b"), ValueError, "'a/b' is no name of a directory"),
        (lambda: linux.pivot_root(1, 2), TypeError, "new_root is a path, not 1"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_said_in_words(call: Callable[[], object], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert words in str(caught.value)


REFUSED = {
    "unshare(CLONE_NEWUTS)": "it needs CAP_SYS_ADMIN in the user namespace that owns what you change, and this process lacks "
    "it; add CLONE_NEWUSER, which anybody may make: you have it in there; lab 2 explains it",
    "clone(print, CLONE_NEWPID)": "add CLONE_NEWUSER",
    "sethostname('x')": "unshare(CLONE_NEWUSER | CLONE_NEWUTS) gives you both",
    "mount('x', '/tmp', 'tmpfs')": "unshare(CLONE_NEWUSER | CLONE_NEWNS) gives you a mount namespace in which you may",
    "umount('/')": "it needs CAP_SYS_ADMIN",
    "pivot_root('/', '/')": "lab 5 explains it: minibox lab start 5",
    "mknod('/tmp/minibox-device', 0o20666, 0x103)": "bind the host's device over an empty file",
    "capset(['CAP_CHOWN'])": "a capability that isn't permitted can't be made effective",
    "drop_bounding()": "it needs CAP_SETPCAP",
    "seccomp_filter(['mkdir'])": "it needs no_new_privs(), or CAP_SYS_ADMIN",
    "setns('/proc/self/ns/uts')": "enter the user namespace that owns it first",
}


@pytest.mark.parametrize("call", REFUSED)
def test_eperm_says_what_the_kernel_wants(call: str) -> None:
    """In a process without capabilities, whoever runs the tests."""
    code = f"""
import os
if os.geteuid() == 0:
    os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
try:
    {call}
except OSError as error:
    print(type(error).__name__, error)
"""
    names = "from minibox.linux import CLONE_NEWPID, CLONE_NEWUTS, capset, clone, drop_bounding, mknod, mount, pivot_root, seccomp_filter, sethostname, setns, umount, unshare"
    done = subprocess.run(
        [sys.executable, "-c", names + code], capture_output=True, text=True, check=True, cwd=CHECKOUT
    )
    assert done.stdout.startswith("PermissionError "), done
    assert REFUSED[call] in done.stdout


def test_a_child_of_clone_is_a_whole_process() -> None:
    """Its exit status, its output once, its own threads and children."""
    code = """
import os, threading
from minibox.linux import clone
print("before")
def child():
    seen = []
    thread = threading.Thread(target=lambda: seen.append(1)); thread.start(); thread.join()
    if (pid := os.fork()) == 0:
        os._exit(4)
    print("child", seen, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), os.getppid() == parent)
    return 3
def fails():
    raise ValueError("mine")
parent = os.getpid()
for function in (child, fails, lambda: None):
    print(os.waitstatus_to_exitcode(os.waitpid(clone(function), 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    assert done.stdout.splitlines() == ["before", "child [1] 4 True", "3", "1", "0"]
    assert "ValueError: mine" in done.stderr


def test_a_confined_child() -> None:
    """Fewer capabilities, no way to get them back, and calls that the kernel refuses."""
    code = """
import os
from minibox.linux import capget, clone, no_new_privs, seccomp_filter
def child():
    no_new_privs()
    seccomp_filter(["mkdir", "mkdirat"], error=28)
    try:
        os.mkdir("/tmp/minibox-refused")
    except OSError as error:
        print(error.errno)
    print([line.split()[1] for line in open("/proc/self/status") if line.startswith(("NoNewPrivs", "Seccomp:"))])
    print(sorted(capget()))
os.waitpid(clone(child), 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    sets = ["ambient", "bounding", "effective", "inheritable", "permitted"]
    assert done.stdout.splitlines() == ["28", "['1', '2']", str(sets)], done


def test_the_labs_that_errors_name_are_there() -> None:
    numbers = {lab.number for lab in labs()}
    for path in (CHECKOUT / "minibox/linux/calls").glob("*.py"):
        for number in re.findall(r"^LAB_.* = (.+)", path.read_text(), re.MULTILINE):
            assert {*map(int, number.split(","))} <= numbers, path


def test_what_is_not_there_is_not_there() -> None:
    with pytest.raises(AttributeError):
        _ = linux.CLONE_NEWTHING
    assert os.path.basename(linux.__file__ or "") == "__init__.py"
