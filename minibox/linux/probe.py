"""Try what a container needs from the kernel, in a throw-away process (`minibox.engine.host.probes`).

`main` enters its own namespaces, so that its mounts disappear with it, and answers with one line: ``works``;
``lacking STEP: ERRNO`` if the kernel or the file system can't do it for anybody; ``refused STEP: ERRNO`` if this
caller may not, because of a policy, a filter or its surroundings; or ``failed STEP: ERRNO`` for any other problem,
such as root without a capability, which doesn't tell what the kernel can do. A version number would tell less,
because distributions backport, and policies forbid.
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
SOME_RANGE = 100000  # the ids of a short-lived user namespace
WORKS, LACKING, REFUSED, FAILED = "works", "lacking", "refused", "failed"
#: The kernel can't do it. Other errors may be temporary.
NO = frozenset((ENOSYS, EOPNOTSUPP, EINVAL, ENODEV))
#: A policy forbids it, or the caller may not do it.
FORBIDDEN = frozenset((EPERM, EACCES))
#: The capabilities that root needs for the probes, by number.
CAPABILITIES = {"CAP_SETGID": 6, "CAP_SETUID": 7, "CAP_SYS_ADMIN": 21}
USER_NAMESPACES_MAX = "/proc/sys/user/max_user_namespaces"


class StepFailed(Exception):
    """A step failed: its description and its errno.

    ``tells_of_host``: the answer is the same for every caller, such as a file system without id-mapped mounts.
    """

    def __init__(self, step: str, number: int, tells_of_host: bool = False) -> None:
        super().__init__(step, number)
        self.step, self.number, self.tells_of_host = step, number, tells_of_host


def user_namespace() -> None:
    """Make a user namespace with one mapped id, and mount in it (AppArmor may allow the first but not the second)."""
    _own_user_namespace()
    _check(lib.mb_mount(b"tmpfs", b"/proc", b"tmpfs", 0, ffi.NULL), "mount a tmpfs in it")


def ordinary_user_namespace() -> None:
    """Do the same as an ordinary user; root becomes one first."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(SOME_USER, SOME_USER, SOME_USER)
        os.setresuid(SOME_USER, SOME_USER, SOME_USER)
        lib.mb_prctl(4, 1)  # PR_SET_DUMPABLE: setresuid gave our /proc files to root
    user_namespace()


def overlay() -> None:
    """Mount an overlay like those of this user's containers."""
    _own_mounts()
    _overlay("lower")
    with open("merged/new", "w") as file:  # fails if the upperdir has no whiteouts or xattrs
        file.write("new")
    os.unlink("merged/old")
    if not os.path.exists("upper/new"):
        raise StepFailed("write through the overlay", EOPNOTSUPP)


def idmapped_layers() -> None:
    """Mount an overlay over an id-mapped layer: Linux 5.19, and a file system that supports it."""
    _own_mounts()
    _map_ids("lower")
    _overlay("mapped", tells_of_host=True)


def idmapped_tree() -> None:
    """Make an id-mapped mount of a whole tree: Linux 5.12, and a file system that supports it."""
    _own_mounts()
    _map_ids("lower")


def pseudo_terminals() -> None:
    """Mount a new devpts, and open a terminal from it."""
    _own_mounts()
    options = b"newinstance,ptmxmode=0666,mode=0620"
    _check(lib.mb_mount(b"devpts", b"merged", b"devpts", 0, options), "mount devpts")
    os.close(os.open("merged/ptmx", os.O_RDWR | os.O_NOCTTY))


PROBES: dict[str, Callable[[], None]] = {
    each.__name__: each
    for each in (user_namespace, ordinary_user_namespace, overlay, idmapped_layers, idmapped_tree, pseudo_terminals)
}


def answer(name: str, directory: str) -> str:
    """Run a probe in this process, which can't be used for anything else afterwards; return the answer."""
    tells_of_host = False
    try:
        os.chdir(directory)  # relative names need no escaping in mount options
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
    """Return which of `CAPABILITIES` this process lacks if it is root's; none for an ordinary user."""
    if os.geteuid() != 0:
        return []
    effective = int(_status("CapEff"), 16)
    return [name for name, number in CAPABILITIES.items() if not effective >> number & 1]


def _is_filtered() -> bool:
    """Tell whether a seccomp filter of the caller may answer this process's system calls instead of the kernel."""
    return _status("Seccomp") != "0"


def _status(field: str) -> str:
    """Return a field of this process's status (proc_pid_status(5)); "0" if the kernel lacks it."""
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
    if number == ENOSPC:  # the limit of user namespaces is reached; if it is 0, that is for ever
        with open(USER_NAMESPACES_MAX) as file:
            number = EPERM if file.read().strip() == "0" else number
    if number:
        raise StepFailed("unshare the user namespace", number)


def _map_ids(layer: str) -> None:
    """Mount a directory id-mapped at ``mapped``."""
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
    """Return a descriptor of a user namespace in which 0 is `SOME_RANGE`, made with a short-lived child."""
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
    """Run a probe, and write its answer to standard output."""
    signal(SIGCHLD, SIG_DFL)  # the caller may have set it to be ignored, and then we couldn't wait for a child
    os.write(1, answer(name, directory).encode(errors="surrogateescape"))
