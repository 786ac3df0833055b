"""Try what a container needs of the kernel, in a process of its own that is thrown away.

Run as ``python -m minibox.linux.probe NAME DIRECTORY``: it enters namespaces of its own, so that
whatever it mounts is gone with it, and answers one line: ``ok``, or the step that failed and its
errno. A version number would tell less: distributions backport, and policies forbid.
"""

from __future__ import annotations

import os

from minibox._native import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC = 1, 0o2000000
MOVE_MOUNT_F_EMPTY_PATH = 4
MOUNT_ATTR_IDMAP = 0x00100000
SOME_USER = 65534  # nobody
SOME_RANGE = 100000  # of ids, for a user namespace that nothing outlives


class Refused(Exception):
    """The kernel refused a step: its words and its errno."""

    def __init__(self, step: str, number: int) -> None:
        super().__init__(step, number)
        self.step, self.number = step, number


def user_namespace(_: str) -> None:
    """A user namespace with one id mapped, in which mounting is allowed (AppArmor may give one and forbid that)."""
    _own_user_namespace()
    _check(lib.mb_mount(b"tmpfs", b"/proc", b"tmpfs", 0, ffi.NULL), "mount a tmpfs in it")


def ordinary_user_namespace(directory: str) -> None:
    """The same for a user without privileges, which root becomes first."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(SOME_USER, SOME_USER, SOME_USER)
        os.setresuid(SOME_USER, SOME_USER, SOME_USER)
        lib.mb_prctl(4, 1)  # PR_SET_DUMPABLE: setresuid gave our /proc files to root
    user_namespace(directory)


def overlay(directory: str) -> None:
    """An overlay as a container of this user gets it, with its layers in ``directory``."""
    _own_mounts()
    _overlay(directory, f"{directory}/lower")
    with open(f"{directory}/merged/new", "w") as file:  # what an upperdir without whiteouts or xattrs refuses
        file.write("new")
    os.unlink(f"{directory}/merged/old")
    _check(0 if os.path.exists(f"{directory}/upper/new") else -1, "write through the overlay")


def idmapped_layers(directory: str) -> None:
    """An overlay over a layer whose mount is id-mapped: Linux 5.19, and a file system that can."""
    _own_mounts()
    userns = _mapped_user_namespace()
    tree = lib.mb_open_tree(AT_FDCWD, f"{directory}/lower".encode(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)
    _check(tree, "open_tree")
    attributes = ffi.new("struct mb_mount_attr *", {"attr_set": MOUNT_ATTR_IDMAP, "userns_fd": userns})
    _check(lib.mb_mount_setattr(tree, b"", AT_EMPTY_PATH, attributes), "id-map the mount of a layer")
    _check(lib.mb_move_mount(tree, b"", AT_FDCWD, f"{directory}/mapped".encode(), MOVE_MOUNT_F_EMPTY_PATH), "attach it")
    owner = os.stat(f"{directory}/mapped/old").st_uid
    _check(0 if owner == SOME_RANGE else -1, "see its owner mapped")
    _overlay(directory, f"{directory}/mapped")


def pseudo_terminals(directory: str) -> None:
    """A devpts of its own, and a terminal from it."""
    _own_mounts()
    target = f"{directory}/merged"
    _check(
        lib.mb_mount(b"devpts", target.encode(), b"devpts", 0, b"newinstance,ptmxmode=0666,mode=0620"), "mount devpts"
    )
    os.close(os.open(f"{target}/ptmx", os.O_RDWR | os.O_NOCTTY))


PROBES: dict[str, Callable[[str], None]] = {
    "user_namespace": user_namespace,
    "ordinary_user_namespace": ordinary_user_namespace,
    "overlay": overlay,
    "idmapped_layers": idmapped_layers,
    "pseudo_terminals": pseudo_terminals,
}


def answer(name: str, directory: str) -> str:
    """Run a probe in this process, which is spoilt by it; ``ok``, or "STEP: ERRNO"."""
    try:
        PROBES[name](directory)
    except Refused as refusal:
        return f"{refusal.step}: {refusal.number}"
    except OSError as error:
        return f"{error.filename or name}: {error.errno}"
    return "ok"


def _check(result: int, step: str) -> None:
    if result < 0:
        raise Refused(step, ffi.errno)


def _own_mounts() -> None:
    if os.geteuid() != 0:
        _own_user_namespace()
        return
    _check(lib.unshare(CLONE_NEWNS), "unshare the mount namespace")
    _check(lib.mb_mount(b"none", b"/", ffi.NULL, MS_REC | MS_PRIVATE, ffi.NULL), "make its mounts private")


def _own_user_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    _check(lib.unshare(CLONE_NEWUSER | CLONE_NEWNS), "unshare the user namespace")
    for file, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{file}", "w") as stream:
            stream.write(text)
    _check(lib.mb_mount(b"none", b"/", ffi.NULL, MS_REC | MS_PRIVATE, ffi.NULL), "make its mounts private")


def _mapped_user_namespace() -> int:
    """A descriptor of a user namespace in which 0 is `SOME_RANGE`; a child lives for as long as that takes."""
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go[1])
        os.write(ready[1], b"%d" % (ffi.errno if lib.unshare(CLONE_NEWUSER) else 0))
        os.read(go[0], 1)
        os._exit(0)
    try:
        number = int(os.read(ready[0], 10))
        if number:
            raise Refused("unshare the user namespace", number)
        for file in ("uid_map", "gid_map"):
            with open(f"/proc/{pid}/{file}", "w") as stream:
                stream.write(f"0 {SOME_RANGE} 65536")
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(go[1])
        os.waitpid(pid, 0)


def _overlay(directory: str, lowerdir: str) -> None:
    options = f"lowerdir={lowerdir},upperdir={directory}/upper,workdir={directory}/work"
    if os.readlink("/proc/self/ns/user") != _first_user_namespace():
        options += ",userxattr"
    _check(lib.mb_mount(b"overlay", f"{directory}/merged".encode(), b"overlay", 0, options.encode()), "mount overlay")


def _first_user_namespace() -> str:
    return "user:[4026531837]"  # PROC_USER_INIT_INO of linux/proc_ns.h


if __name__ == "__main__":
    import sys

    os.write(1, answer(*sys.argv[1:3]).encode())
