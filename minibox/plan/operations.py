"""The operations of a Plan, one constructor each.

An `Op` is data: a name, arguments, the actor that runs it and the reason it is there. Operations
of the actors INIT and MOUNTER are run by ``native/child/`` between clone and exec; those of
PARENT, which `plan.parent` has, by `engine.process.execution`. ``native/operations.def`` gives the former their argument kinds;
the constructors here give them names and types, and are the only way that the compiler makes them.
"""

from __future__ import annotations

from minibox.base.operation import INIT as INIT
from minibox.base.operation import MOUNTER as MOUNTER
from minibox.base.operation import PARENT as PARENT
from minibox.base.operation import Op as Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.base.operation import Argument as Argument

# Descriptor slots of the two children. native/child/child.h defines STATUS; the others are agreed with
# `engine.process.steps`.
STATUS = 0  # the socket to the parent
CHANNEL = 1  # the socket between mounter and init
STDIN, STDOUT, STDERR = 2, 3, 4
USERNS = 5  # the container's user namespace
ROOT = 6  # the container's root directory; for a mounter first that of the container's process
PTY_MASTER, PTY_SLAVE = 7, 8
SCRATCH = 9  # the current mount, until it is attached
NAMESPACES = 10  # a pidfd of the container to join
HOOKS_CREATING, HOOKS_CREATED = 13, 14  # the container's state, as hooks get it
GATE, REPORT = 11, 12  # the FIFO that `start` writes to, and the file that it reads; see `engine.process.gate`
LISTENER = 15  # of the seccomp filter
FIRST_CGROUP = 16  # the "tasks" files of its cgroups, one for each v1 hierarchy
PROC = 36  # the host's /proc
LABEL_APPARMOR, LABEL_SELINUX, LABEL_KEYS = 37, 38, 39  # files in the process's own /proc that take labels
FIRST_JOINED = 40  # namespaces to join by path, one for each type
FIRST_BIND = 48  # bind mounts, opened before the container's root hides their sources
FIRST_KEPT = 512  # the caller's descriptors that stay open, from 3 on
FIRST_USERNS = 768  # user namespaces for id-mapped bind mounts, one for each
CONTAINERS_PROC, CONTAINERS_SYS, CONTAINERS_DEV = 1232, 1233, 1234  # mounts of the container, see `plan.places`
HOOKS_OUTPUT = 1235  # output of hooks inside, and 1236 for their errors: child.h
FIRST_FURTHER = 1237  # its other mounts of proc and sysfs
SLOTS = 1280  # the number of slots, plan.h
NONE = HOST = (1 << 64) - 1  # plan.h: no string; the caller's own root directory
NO_LINKS = 1 << 32  # plan.h: with a slot of a root directory: no symlink is followed below it

# Tags of messages on the status socket.
TAG_IDENTITY, TAG_GO, TAG_PTY, TAG_DISK, TAG_CREATED, TAG_MOUNTED, TAG_LISTENER, TAG_ROOT, TAG_STEP = range(1, 10)
TAG_SIBLING, TAG_EXEC_ROOT = 0xFFFFFFFE, 0xFFFFFFFF  # child.h

O_PATH, O_PATH_DIRECTORY = 0o10000000, 0o10200000  # open(2)
# mount_setattr(2), linux/mount.h
RDONLY, NOSUID, NODEV, NOEXEC = 0x1, 0x2, 0x4, 0x8
NOATIME, STRICTATIME, NODIRATIME, NOSYMFOLLOW = 0x10, 0x20, 0x80, 0x200000
# mount(2) propagation
MS_REC, MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 0x4000, 1 << 17, 1 << 18, 1 << 19, 1 << 20
AT_RECURSIVE = 0x8000


def die_with_parent(why: str) -> Op:
    return Op("die_with_parent", (STATUS,), why, INIT)


def wait(tag: int, why: str) -> Op:
    return Op("wait", (STATUS, tag), why, INIT)


def tell(tag: int, why: str) -> Op:
    return Op("tell", (STATUS, tag), why, INIT)


def gate(why: str) -> Op:
    return Op("gate", (GATE, REPORT), why, INIT)


def recv_fd(slot: int, why: str, socket: int = CHANNEL) -> Op:
    return Op("recv_fd", (socket, slot), why, INIT)


def hook(
    state: int, path: str, argv: tuple[str, ...], env: tuple[str, ...], timeout_s: int, directory: int, why: str
) -> Op:
    return Op("hook", (state, path, argv, env, timeout_s, directory), why, INIT)


def send_fd(socket: int, slot: int, tag: int, why: str) -> Op:
    return Op("send_fd", (socket, slot, tag), why, INIT)


def unshare(flags: int, why: str) -> Op:
    return Op("unshare", (flags,), why, INIT)


def setns(slot: int, flags: int, why: str) -> Op:
    return Op("setns", (slot, flags), why, INIT)


def undumpable(why: str) -> Op:
    return Op("undumpable", (), why, INIT)


def clone_sibling(why: str, flags: int = 0) -> Op:
    return Op("clone_sibling", (STATUS, flags), why, INIT)


def open_(path: str, flags: int, slot: int, why: str) -> Op:
    return Op("open", (path, flags, slot), why, INIT)


def open_in(root: int, path: str, flags: int, slot: int, why: str) -> Op:
    return Op("open_in", (root, path, flags, slot), why, INIT)


def open_at(directory: int, path: str, flags: int, slot: int, why: str) -> Op:
    return Op("open_at", (directory, path, flags, slot), why, INIT)


def open_tree(path: str, slot: int, why: str, recursive: bool = False) -> Op:
    return Op("open_tree", (path, AT_RECURSIVE if recursive else 0, slot), why, INIT)


def clone_tree(slot: int, why: str, recursive: bool = False) -> Op:
    """Clone the mount of what the slot holds, and put the clone in the slot."""
    return Op("clone_tree", (slot, AT_RECURSIVE if recursive else 0, slot), why, INIT)


def open_image(path: str, slot: int, why: str) -> Op:
    return Op("open_image", (path, slot), why, INIT)


def id_map(slot: int, why: str, recursive: bool = False, userns: int = USERNS) -> Op:
    return Op("id_map", (slot, int(recursive), userns), why, INIT)


def mount_attributes(
    slot: int, why: str, *, set_: int = 0, clear: int = 0, propagation: int = 0, recursive: bool = False
) -> Op:
    return Op("mount_attributes", (slot, set_, clear, propagation, int(recursive)), why, INIT)


def propagation(path: str, flags: int, why: str) -> Op:
    return Op("propagation", (path, flags), why, INIT)


def attach(slot: int, root: int, target: str, why: str) -> Op:
    return Op("attach", (slot, root, target), why, INIT)


def mount(
    fstype: str, root: int, target: str, why: str, *, source: str | None = None, options: str = "", attributes: int = 0,
    slot: int = SCRATCH,
) -> Op:  # fmt: skip
    return Op("mount", (fstype, source, options, root, target, attributes, slot), why, INIT)


def mount_tmpfs(
    root: int, target: str, why: str, *, options: str = "", attributes: int = 0, copy: bool = False, slot: int = SCRATCH
) -> Op:
    return Op("mount_tmpfs", (options, root, target, attributes, int(copy), slot), why, INIT)


def reconfigure(root: int, target: str, options: str, why: str) -> Op:
    return Op("reconfigure", (root, target, options), why, INIT)


def attributes_at(
    root: int, target: str, why: str, set_: int = 0, clear: int = 0, *, propagation: int = 0, recursive: bool = False
) -> Op:
    return Op("attributes_at", (root, target, set_, clear, propagation, int(recursive)), why, INIT)


def mount_overlay(directory: str, options: str, target: str, why: str) -> Op:
    return Op("mount_overlay", (directory, options, target), why, INIT)


def bind(source: str, target: str, why: str, *, attributes: int = 0, recursive: bool = False) -> Op:
    return Op("bind", (source, ROOT, target, attributes, int(recursive)), why, INIT)


def bind_fd(slot: int, root: int, target: str, why: str) -> Op:
    return Op("bind_fd", (slot, root, target), why, INIT)


def bind_device(source: str, root: int, target: str, mode: int, device: int, why: str) -> Op:
    return Op("bind_device", (source, root, target, mode, device), why, INIT)


def expect_procfs(slot: int, why: str) -> Op:
    return Op("expect_procfs", (slot,), why, INIT)


def mask(root: int, path: str, why: str) -> Op:
    return Op("mask", (root, path), why, INIT)


def read_only(root: int, path: str, why: str) -> Op:
    return Op("read_only", (root, path), why, INIT)


def mkdir(root: int, path: str, why: str, mode: int = 0o755) -> Op:
    return Op("mkdir", (root, path, mode), why, INIT)


def mknod(root: int, path: str, mode: int, device: int, uid: int, gid: int, source: str, why: str) -> Op:
    return Op("mknod", (root, path, mode, device, uid, gid, source), why, INIT)


def symlink(target: str, root: int, path: str, why: str) -> Op:
    return Op("symlink", (target, root, path), why, INIT)


def write_proc(root: int, path: str, data: bytes, why: str) -> Op:
    return Op("write_proc", (root, path, data), why, INIT)


def write_fd(slot: int, data: bytes, why: str) -> Op:
    return Op("write_fd", (slot, data), why, INIT)


def chroot(why: str) -> Op:
    return Op("chroot", (ROOT,), why, INIT)


def unmount(path: str, mount_id: int, why: str) -> Op:
    return Op("unmount", (path, mount_id), why, INIT)


def label(slot: int, text: bytes, why: str) -> Op:
    return Op("label", (slot, text), why, INIT)


def label_file(root: int, path: str, text: bytes, why: str) -> Op:
    return Op("label_file", (root, path, text), why, INIT)


def move_root(why: str) -> Op:
    return Op("move_root", (ROOT,), why, INIT)


def pivot_root(why: str) -> Op:
    return Op("pivot_root", (ROOT,), why, INIT)


def chdir(path: str, why: str) -> Op:
    return Op("chdir", (path,), why, INIT)


def sethostname(name: str, why: str) -> Op:
    return Op("sethostname", (name,), why, INIT)


def setdomainname(name: str, why: str) -> Op:
    return Op("setdomainname", (name,), why, INIT)


def setrlimit(resource: int, soft: int, hard: int, why: str) -> Op:
    return Op("setrlimit", (resource, soft, hard), why, INIT)


def umask(mask_: int, why: str) -> Op:
    return Op("umask", (mask_,), why, INIT)


def home(uid: int, why: str) -> Op:
    return Op("home", (uid,), why, INIT)


def scheduler(attributes: bytes, why: str) -> Op:
    return Op("scheduler", (attributes,), why, INIT)


def io_priority(priority: int, why: str) -> Op:
    return Op("io_priority", (priority,), why, INIT)


def cpu_affinity(mask_: bytes, why: str) -> Op:
    return Op("cpu_affinity", (mask_,), why, INIT)


def memory_policy(mode: int, nodes: bytes, why: str) -> Op:
    return Op("memory_policy", (mode, nodes), why, INIT)


def personality(persona: int, why: str) -> Op:
    return Op("personality", (persona,), why, INIT)


def loopback_up(why: str) -> Op:
    return Op("loopback_up", (), why, INIT)


def open_pty(rows: int, columns: int, why: str) -> Op:
    return Op("open_pty", (PTY_MASTER, PTY_SLAVE, rows, columns), why, INIT)


def setsid(why: str) -> Op:
    return Op("setsid", (), why, INIT)


def controlling_tty(slot: int, why: str) -> Op:
    return Op("controlling_tty", (slot,), why, INIT)


def stdio(stdin: int, stdout: int, stderr: int, why: str) -> Op:
    return Op("stdio", (stdin, stdout, stderr), why, INIT)


def session_keyring(needed: int, why: str) -> Op:
    return Op("session_keyring", (needed,), why, INIT)


def set_fs_ids(uid: int, gid: int, why: str) -> Op:
    return Op("set_fs_ids", (uid, gid), why, INIT)


def setgroups(groups: tuple[int, ...], why: str) -> Op:
    return Op("setgroups", (b"".join(group.to_bytes(4, "little") for group in groups),), why, INIT)


def setresgid(gid: int, why: str) -> Op:
    return Op("setresgid", (gid,), why, INIT)


def setresuid(uid: int, why: str) -> Op:
    return Op("setresuid", (uid,), why, INIT)


def cap_bounding(mask_: int, why: str) -> Op:
    return Op("cap_bounding", (mask_,), why, INIT)


def capset(effective: int, permitted: int, inheritable: int, why: str) -> Op:
    return Op("capset", (effective, permitted, inheritable), why, INIT)


def raise_capabilities(why: str) -> Op:
    return Op("raise_capabilities", (), why, INIT)


def cap_ambient(mask_: int, why: str) -> Op:
    return Op("cap_ambient", (mask_,), why, INIT)


def no_new_privs(why: str) -> Op:
    return Op("no_new_privs", (), why, INIT)


def seccomp(program: bytes, flags: int, why: str) -> Op:
    return Op("seccomp", (program, flags), why, INIT)


def seccomp_listener(program: bytes, flags: int, why: str) -> Op:
    return Op("seccomp_listener", (program, flags, LISTENER), why, INIT)


def close_fds(why: str, kept: int = 0) -> Op:
    return Op("close_fds", (kept,), why, INIT)


def exec_(candidates: tuple[str, ...], argv: tuple[str, ...], env: tuple[str, ...], why: str) -> Op:
    return Op("exec", (candidates, argv, env), why, INIT)


def by_mounter(op: Op) -> Op:
    """Return the same step for the mounter."""
    return Op(op.name, op.args, op.why, MOUNTER)
