"""A hostile image can't change, by /proc/self/exe, what runs on the host (CVE-2019-5736 was that)."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from minibox._native import ffi, lib

from minibox.linux import launcher
from minibox.linux.executable import AT_EMPTY_PATH, INIT, MOUNT_ATTR_RDONLY
from tests import isolation
from tests.conftest import CHECKOUT, Run
from tests.container_box import WAIT_S
from tests.probes import requires

#: Tries to write to the executable of process 1: what it runs it opens only for reading, so its mode is what can
#: be changed at any time; and to lift what forbids that.
ATTACK = r"""
exec 9</proc/1/exe
for exe in /proc/1/exe /proc/self/fd/9; do
    mount -o remount,bind,rw $exe 2>/dev/null && echo remounted
    chmod 777 $exe 2>&1
    (echo hostile >>$exe) 2>/dev/null && echo wrote
done
"""
REFUSED = ["chmod: /proc/1/exe: Read-only file system", "chmod: /proc/self/fd/9: Read-only file system"]


def digests() -> dict[str, str]:
    files = (Path(INIT), Path(sys.executable).resolve())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@requires("root")
@pytest.mark.parametrize("options", [(), ("--userns", "host"), ("--userns", "host", "--privileged")], ids=" ".join)
def test_an_entrypoint_of_proc_self_exe(minibox: Run, options: tuple[str, ...]):
    """Which is minibox-init there: it takes part as the container's init, of a command that attacks it."""
    before = digests()
    words = ("run", "--rm", "--network", "none", *options, "--entrypoint", "/proc/self/exe", "base", "--")
    done = minibox(*words, "sh", "-c", ATTACK)
    refused = (
        REFUSED if options else [line.replace("Read-only file system", "Operation not permitted") for line in REFUSED]
    )
    assert done.stdout.splitlines() in (REFUSED, refused), done.stderr
    assert digests() == before


@requires("root")
@pytest.mark.parametrize("options", [("--userns", "host"), ("--userns", "host", "--privileged")], ids=" ".join)
def test_an_exec_of_proc_self_exe(minibox: Run, options: tuple[str, ...]):
    before = digests()
    minibox("run", "-d", "--name", "victim", "--network", "none", *options, "base", "sleep", "1000", check=True)
    attack = ATTACK.replace("/proc/1/", "/proc/$PPID/")
    done = minibox("exec", "victim", "/proc/self/exe", "--", "sh", "-c", attack)
    minibox("rm", "-f", "victim")
    lines = [re.sub("/proc/[0-9]+/", "/proc/1/", line) for line in done.stdout.splitlines()]
    assert lines == REFUSED, done.stderr
    assert digests() == before


@requires("root")
def test_nobody_can_write_to_the_launchers_whatever_his_privileges():
    exe = f"/proc/{launcher.of_caller().pid}/exe"
    deadline = time.monotonic() + WAIT_S
    while Path(f"/proc/{launcher.of_caller().pid}/comm").read_text() != "minibox-launche\n":
        assert time.monotonic() < deadline
    for change in (lambda: os.chmod(exe, 0o777), lambda: os.utime(exe), lambda: make_writable(exe)):
        with pytest.raises(OSError):
            change()


def make_writable(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    attributes = ffi.new("struct mb_mount_attr *", {"attr_clr": MOUNT_ATTR_RDONLY})
    try:
        if lib.mb_mount_setattr(fd, b"", AT_EMPTY_PATH, attributes) < 0:
            raise OSError(ffi.errno, os.strerror(ffi.errno))
    finally:
        os.close(fd)


@requires("root")
def test_an_ordinary_users_own_is_a_sealed_copy(session_directory: Path):
    """Where a user has installed minibox for himself, his containers' root is who may write to it."""
    place = session_directory / "own"
    shutil.copytree(CHECKOUT / "minibox", place / "minibox", ignore=shutil.ignore_patterns("__pycache__"))
    script = """
import os
from minibox.linux.executable import INIT, open_init
fd = open_init()
print(os.readlink(f"/proc/self/fd/{fd}"), INIT)
try:
    os.write(os.open(f"/proc/self/fd/{fd}", os.O_WRONLY), b"x")
except OSError as error:
    print(error.strerror)
"""
    for each in (place, *place.rglob("*")):
        os.chown(each, isolation.USER_ID, isolation.USER_ID)
    path = f"{place}:{':'.join(filter(None, sys.path))}"
    done = subprocess.run(
        [str(Path(sys.executable).resolve()), "-c", script],
        env={"PYTHONPATH": path}, user=isolation.USER_ID, group=isolation.USER_ID, extra_groups=[], cwd="/",
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    shutil.rmtree(place)
    assert done.stdout.splitlines() == [
        f"/memfd:minibox-init (deleted) {place}/minibox/minibox-init",
        "Operation not permitted",
    ]
