"""Try what a container needs of the kernel, in a process of its own that is thrown away (`minibox.engine.probes`).

`main` enters namespaces of its own, so that whatever it mounts is gone with it, and answers with one line: ``works``;
``lacking STEP: ERRNO``, which the kernel or the file system says to everybody; ``refused STEP: ERRNO``, which is a no to this
caller, of a policy, a filter or where he is; or ``failed STEP: ERRNO`` for any other trouble, as that root lacks a
capability, which says nothing of what the kernel can do. A version number would tell less: distributions backport, and
policies forbid.
"""

from __future__ import annotations

import os
from errno import EACCES, EINVAL, ENODEV, ENOSPC, ENOSYS, EOPNOTSUPP, EPERM
from signal import SIG_DFL, SIGCHLD, signal

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
WORKS, LACKING, REFUSED, FAILED = "works", "lacking", "refused", "failed"
#: What is answered when the kernel can't. Anything else may pass.
NO = frozenset((ENOSYS, EOPNOTSUPP, EINVAL, ENODEV))
#: What is answered when a policy forbids it, or the caller may not.
FORBIDDEN = frozenset((EPERM, EACCES))
#: Of root, without which the probes are forbidden what another root isn't: by their numbers.
CAPABILITIES = {"CAP_SETGID": 6, "CAP_SETUID": 7, "CAP_SYS_ADMIN": 21}
USER_NAMESPACES_MAX = "/proc/sys/user/max_user_namespaces"


class StepFailed(Exception):
    """A step failed: its words and its errno.

    ``tells_of_host``: what it says doesn't hang on who asks, as a file system's that takes no id-mapped mount.
    """

    def __init__(self, step: str, number: int, tells_of_host: bool = False) -> None:
        super().__init__(step, number)
        self.step, self.number, self.tells_of_host = step, number, tells_of_host


def user_namespace() -> None:
    """A user namespace with one id mapped, in which mounting is allowed (AppArmor may give one and forbid that)."""
    _own_user_namespace()
    _check(lib.mb_mount(b"tmpfs", b"/proc", b"tmpfs", 0, ffi.NULL), "mount a tmpfs in it")


def ordinary_user_namespace() -> None:
    """The same for a user without privileges, which root becomes first."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(SOME_USER, SOME_USER, SOME_USER)
        os.setresuid(SOME_USER, SOME_USER, SOME_USER)
        lib.mb_prctl(4, 1)  # PR_SET_DUMPABLE: setresuid gave our /proc files to root
    user_namespace()


def overlay() -> None:
    """An overlay as a container of this user gets it."""
    _own_mounts()
    _overlay("lower")
    with open("merged/new", "w") as file:  # what an upperdir without whiteouts or xattrs refuses
        file.write("new")
    os.unlink("merged/old")
    if not os.path.exists("upper/new"):
        raise StepFailed("write through the overlay", EOPNOTSUPP)


def idmapped_layers() -> None:
    """An overlay over a layer whose mount is id-mapped: Linux 5.19, and a file system that can."""
    _own_mounts()
    _map_ids("lower")
    _overlay("mapped", tells_of_host=True)


def idmapped_tree() -> None:
    """A whole tree whose mount is id-mapped: Linux 5.12, and a file system that can."""
    _own_mounts()
    _map_ids("lower")


def pseudo_terminals() -> None:
    """A devpts of its own, and a terminal from it."""
    _own_mounts()
    options = b"newinstance,ptmxmode=0666,mode=0620"
    _check(lib.mb_mount(b"devpts", b"merged", b"devpts", 0, options), "mount devpts")
    os.close(os.open("merged/ptmx", os.O_RDWR | os.O_NOCTTY))


PROBES: dict[str, Callable[[], None]] = {
    each.__name__: each
    for each in (user_namespace, ordinary_user_namespace, overlay, idmapped_layers, idmapped_tree, pseudo_terminals)
}


def answer(name: str, directory: str) -> str:
    """Run a probe in this process, which is spoilt by it; what it says."""
    tells_of_host = False
    try:
        os.chdir(directory)  # names in it hold nothing that options of a mount would have to escape
        PROBES[name]()
    except StepFailed as failure:
        step, number, tells_of_host = failure.step, failure.number, failure.tells_of_host
    except OSError as error:
        step, number = os.fsdecode(error.filename or name), error.errno or 0
    else:
        return WORKS
    if number in FORBIDDEN and (lacking := _lacking()):
        return f"{FAILED} {step}, as root without {' and '.join(lacking)}: {number}"
    if number in NO and tells_of_host and not _is_filtered():
        return f"{LACKING} {step}: {number}"
    return f"{REFUSED if number in NO | FORBIDDEN else FAILED} {step}: {number}"


def _lacking() -> list[str]:
    """Which of `CAPABILITIES` this process lacks, if it is root's: an ordinary user is asked about as he is."""
    if os.geteuid() != 0:
        return []
    effective = int(_status("CapEff"), 16)
    return [name for name, number in CAPABILITIES.items() if not effective >> number & 1]


def _is_filtered() -> bool:
    """Whether system calls of this process are answered by a filter of its caller's, in the kernel's place."""
    return _status("Seccomp") != "0"


def _status(field: str) -> str:
    """A field of this process's (proc_pid_status(5)); "0" from a kernel that lacks it."""
    with open("/proc/self/status") as file:
        return next((line.split()[1] for line in file if line.startswith(f"{field}:")), "0")


def _check(result: int, step: str, *, tells_of_host: bool = False) -> None:
    if result < 0:
        raise StepFailed(step, ffi.errno, tells_of_host)


def _own_mounts() -> None:
    if os.geteuid() != 0:
        _own_user_namespace()
        return
    _check(lib.unshare(CLONE_NEWNS), "unshare the mount namespace")
    _check(lib.mb_mount(b"none", b"/", ffi.NULL, MS_REC | MS_PRIVATE, ffi.NULL), "make its mounts private")


def _own_user_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    _check_user_namespace(_errno_of(lib.unshare(CLONE_NEWUSER | CLONE_NEWNS)))
    for file, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{file}", "w") as stream:
            stream.write(text)
    _check(lib.mb_mount(b"none", b"/", ffi.NULL, MS_REC | MS_PRIVATE, ffi.NULL), "make its mounts private")


def _errno_of(result: int) -> int:
    return ffi.errno if result < 0 else 0


def _check_user_namespace(number: int) -> None:
    if number == ENOSPC:  # more than are allowed: for ever, where none is
        with open(USER_NAMESPACES_MAX) as file:
            number = EPERM if file.read().strip() == "0" else number
    if number:
        raise StepFailed("unshare the user namespace", number)


def _map_ids(layer: str) -> None:
    """Attach the id-mapped mount of a directory at ``mapped``."""
    userns = _mapped_user_namespace()
    tree = lib.mb_open_tree(AT_FDCWD, layer.encode(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)
    _check(tree, "open_tree")
    attributes = ffi.new("struct mb_mount_attr *", {"attr_set": MOUNT_ATTR_IDMAP, "userns_fd": userns})
    mapped = lib.mb_mount_setattr(tree, b"", AT_EMPTY_PATH, attributes)
    _check(mapped, "id-map the mount of a layer", tells_of_host=True)
    _check(lib.mb_move_mount(tree, b"", AT_FDCWD, b"mapped", MOVE_MOUNT_F_EMPTY_PATH), "attach it")
    if os.stat("mapped/old").st_uid != SOME_RANGE:
        raise StepFailed("see its owner mapped", EOPNOTSUPP, tells_of_host=True)


def _mapped_user_namespace() -> int:
    """A descriptor of a user namespace in which 0 is `SOME_RANGE`; a child lives for as long as that takes."""
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go[1])
        os.write(ready[1], b"%d" % _errno_of(lib.unshare(CLONE_NEWUSER)))
        os.read(go[0], 1)
        os._exit(0)
    try:
        os.close(ready[1])
        said = os.read(ready[0], 10)
        if not said:
            raise StepFailed("unshare the user namespace: the process that did it died", 0)
        _check_user_namespace(int(said))
        for file in ("uid_map", "gid_map"):
            with open(f"/proc/{pid}/{file}", "w") as stream:
                stream.write(f"0 {SOME_RANGE} 65536")
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(go[1])
        os.waitpid(pid, 0)


def _overlay(lowerdir: str, *, tells_of_host: bool = False) -> None:
    options = f"lowerdir={lowerdir},upperdir=upper,workdir=work"
    if os.readlink("/proc/self/ns/user") != _first_user_namespace():
        options += ",userxattr"
    mounted = lib.mb_mount(b"overlay", b"merged", b"overlay", 0, options.encode())
    _check(mounted, "mount overlay", tells_of_host=tells_of_host)


def _first_user_namespace() -> str:
    return "user:[4026531837]"  # PROC_USER_INIT_INO of linux/proc_ns.h


def main(name: str, directory: str) -> None:
    """Run a probe, and say on standard output what became of it."""
    signal(SIGCHLD, SIG_DFL)  # who ignores it passes that on, and nobody could wait for a child
    os.write(1, answer(name, directory).encode(errors="surrogateescape"))
