"""Find out why a start failed: a clone, a step of a child, or the exec.

The errno of execve(2) says little, so we look at the file itself.
"""

from __future__ import annotations

import os
import struct
from errno import EACCES, EBUSY, ENOENT, ENOEXEC, EOPNOTSUPP
from stat import S_ISDIR, S_ISREG

from minibox.base.files import READ, closing, open_regular
from minibox.errors import (
    CgroupRefused,
    CommandNotExecutable,
    CommandNotFound,
    ExecFailed,
    MiniboxError,
    kernel_says,
    suppress,
)
from minibox.linux.files import open_in_root
from minibox.linux.process import DONE, FAILED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from minibox.errors import StepError
    from minibox.linux.process import Recorded
    from minibox.oci.runtime import Process
    from minibox.plan.compiler import Plan

# elf(5), e_machine
MACHINES = {
    3: "i386", 8: "mips", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64",
    258: "loongarch64",
}  # fmt: skip
PT_INTERP = 3
HEAD_BYTES = 4096
IN_IMAGE = "in the image"


def diagnose_exec(failed: ExecFailed, process: Process, place: str = IN_IMAGE) -> MiniboxError:
    """Make the error for a process that couldn't be executed; see `diagnose`."""
    return diagnose(failed.errno, process["args"][0], failed.paths, failed.root_fd, process["cwd"], place)


def diagnose(
    errno: int, name: str, paths: tuple[str, ...], root_fd: int, cwd: str, place: str = IN_IMAGE
) -> MiniboxError:
    """Make the error for a command that execve(2) refused.

    Args:
        errno: of execve(2).
        name: the command as the user gave it.
        paths: where we looked for it.
        root_fd: the container's root directory; -1 if we can't look into it.
        cwd: the working directory, for relative paths.
        place: where the files are, for messages.
    """
    if root_fd >= 0:
        for path in paths:
            absolute = path if path.startswith("/") else f"{cwd}/{path}"
            try:
                fd = open_in_root(root_fd, absolute, os.O_PATH)  # opening a FIFO or a device could do harm
            except OSError as error:
                if error.errno == ENOENT and len(paths) == 1 and _dangling(root_fd, absolute):
                    return CommandNotFound(f"exec {name}: it is a symlink to a missing file")
                continue
            with closing(fd):
                found = _look(errno, path, fd, root_fd, place)
            if found:
                return found
    if errno == ENOENT:
        hint = None
        if "/" not in name:
            hint = f"minibox looked for it in {':'.join(os.path.dirname(path) for path in paths)}"
        return CommandNotFound(f"exec {name}: no such command {place}", hint)
    return CommandNotExecutable(f"exec {name}: {kernel_says(errno)}")


def _look(errno: int, path: str, fd: int, root_fd: int, place: str) -> MiniboxError | None:
    """Make the error for a file that exists; return None if the file isn't the reason."""
    status = os.fstat(fd)
    if S_ISDIR(status.st_mode):
        return CommandNotExecutable(f"exec {path}: it is a directory") if errno == EACCES else None
    if not S_ISREG(status.st_mode):
        return CommandNotExecutable(f"exec {path}: it is not a regular file")
    if not status.st_mode & 0o111:
        mode = f"{status.st_mode & 0o7777:04o}"
        return CommandNotExecutable(f"exec {path}: its mode {mode} has no execute bit", f"chmod +x {path} {place}")
    head = _head(fd)
    if head is None:
        return None
    if head[:2] == b"#!":
        return _script(errno, path, head, root_fd, place)
    if head[:4] == b"\x7fELF":
        return _elf(errno, path, head, root_fd, place)
    if errno == ENOEXEC:
        what = "it is empty" if not head else "it is neither a program nor a script that begins with #!"
        return CommandNotExecutable(f"exec {path}: {what}", f"if it is a shell script, run: sh {path}")
    if errno == EACCES:
        return CommandNotExecutable(
            f"exec {path}: {kernel_says(errno)}",
            "check that the user can execute it and search every directory above it",
        )
    return None


def _head(look_fd: int) -> bytes | None:
    """Read the beginning of a file; return None if it can't be read (it may still be executable)."""
    try:
        fd = open_regular(look_fd, READ)
    except OSError:
        return None
    with closing(fd):
        return os.pread(fd, HEAD_BYTES, 0)


def _script(errno: int, path: str, head: bytes, root_fd: int, place: str) -> MiniboxError | None:
    line = head[2:].split(b"\n", 1)[0]
    if line.endswith(b"\r"):
        return CommandNotExecutable(
            f"exec {path}: its first line ends in a carriage return, so the kernel looks for "
            f"{line.decode(errors='replace').strip()!r} with a carriage return in its name",
            "the file has Windows line ends: convert it with dos2unix",
        )
    interpreter = line.strip().split()[0].decode(errors="replace") if line.strip() else ""
    if errno == ENOENT and not _there(root_fd, interpreter):
        return CommandNotExecutable(
            f"exec {path}: its interpreter {interpreter} is not {place}",
            "change its first line, or install the interpreter",
        )
    return CommandNotExecutable(f"exec {path}: {kernel_says(errno)}", f"its interpreter is {interpreter}")


def _elf(errno: int, path: str, head: bytes, root_fd: int, place: str) -> MiniboxError | None:
    order = "<" if head[5:6] == b"\x01" else ">"
    machine = struct.unpack_from(order + "H", head, 18)[0] if len(head) >= 20 else 0
    host = os.uname().machine
    if errno == ENOEXEC:
        what = MACHINES.get(machine, f"machine {machine}")
        if what != host:
            return CommandNotExecutable(
                f"exec {path}: it is a program for {what}, but this host is {host}",
                f"use an image for {host}, or install qemu-user-static and binfmt-support on the host",
            )
        return CommandNotExecutable(f"exec {path}: the program is damaged")
    loader = _loader(head, order)
    if errno == ENOENT and loader and not _there(root_fd, loader):
        return CommandNotExecutable(
            f"exec {path}: its loader {loader} is not {place}",
            "the program was linked with another C library; link it statically, or use the image it was built in",
        )
    return CommandNotExecutable(f"exec {path}: {kernel_says(errno)}")


def _loader(head: bytes, order: str) -> str:
    """The PT_INTERP of an ELF file; elf(5). "" if there is none in its first page."""
    with suppress(struct.error, OverflowError):  # the file is cut off, or an offset is too large
        if head[4:5] == b"\x02":
            offset, size, count = (
                struct.unpack_from(order + "Q", head, 32)[0],
                *struct.unpack_from(order + "HH", head, 54),
            )
            at, length = 8, 32
            word = "Q"
        else:
            offset, size, count = (
                struct.unpack_from(order + "I", head, 28)[0],
                *struct.unpack_from(order + "HH", head, 42),
            )
            at, length = 4, 16
            word = "I"
        for number in range(count):
            base = offset + number * size
            if struct.unpack_from(order + "I", head, base)[0] == PT_INTERP:
                start = struct.unpack_from(order + word, head, base + at)[0]
                end = start + struct.unpack_from(order + word, head, base + length)[0]
                return head[start:end].rstrip(b"\0").decode(errors="replace")
    return ""


def _there(root_fd: int, path: str) -> bool:
    try:
        os.close(open_in_root(root_fd, path, os.O_PATH))
    except OSError:
        return False
    return True


def _dangling(root_fd: int, path: str) -> bool:
    try:
        os.close(open_in_root(root_fd, path, os.O_PATH | os.O_NOFOLLOW))
    except OSError:
        return False
    return True


def child_failure(plan: Plan, children: Iterable[tuple[str, Recorded]], root_fd: int) -> StepError | ExecFailed | None:
    """Return the error of the first child that hasn't done all its steps; None if all have.

    Args:
        children: by actor, the mounter first: if it dies, init fails, too.
        root_fd: for `ExecFailed`.
    """
    from minibox.plan.explain import step_error

    for actor, child in children:
        state, index, errno, detail = child.progress()
        if state == DONE:
            continue
        number, step = [each for each in enumerate(plan.ops) if each[1].actor == actor][index]
        if state == FAILED and step.name == "exec":
            assert isinstance(step.args[0], tuple)
            return ExecFailed(errno, step.args[0], root_fd)
        source = ""
        for each in plan.ops[:number]:
            if each.name in ("open_tree", "open_image") and step.name == "id_map" and each.args[-1] == step.args[0]:
                source = str(each.args[0])
        return step_error(number, len(plan.ops), step, errno if state == FAILED else 0, source, detail)
    return None


def clone_failure(error: OSError, flags: int, group: str) -> MiniboxError:
    """Return the error of a child that couldn't be made.

    Args:
        group: the v2 cgroup in which it was to be made; "" for none.
    """
    from minibox.plan.explain import CGROUP_HINTS, clone_error

    if isinstance(error, ConnectionError):
        words = "start a container: minibox's helper process was killed"
        return MiniboxError(words, "somebody killed minibox-supervisor or minibox-launcher: try again")
    if group and error.errno in (EBUSY, EOPNOTSUPP):
        words = f"start a process in the cgroup {group}: {kernel_says(error)}"
        return CgroupRefused(words, CGROUP_HINTS[error.errno or EBUSY])
    return clone_error(error, flags)
