"""Explain a Plan: what each step does, why, its manual page, and the equivalent shell command.

Loaded only for readers: by `minibox explain`, `--trace`, and for error messages.
"""

from __future__ import annotations

import errno as errno_names
from os import strerror

from minibox.errors import MiniboxError, StepError, Unsupported, kernel_says
from minibox.plan import operations as op
from minibox.plan.parent import OPERATIONS
from minibox.plan.places import from_top
from minibox.plan.shell import ATTRIBUTES, LIMITS, cgroup_tasks, command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.plan.compiler import Plan
    from minibox.plan.operations import Argument, Op

# name: (what it does, with arguments by name; manual page; names of the arguments)
WORDS = {
    **{name: (row[2], row[3], row[0]) for name, row in OPERATIONS.items()},
    "die_with_parent": ("ask for SIGKILL when the parent ends", "prctl(2)", "socket"),
    "wait": ("wait for {tag}", "unix(7)", "socket tag"),
    "tell": ("report that {tag}", "unix(7)", "socket tag"),
    "gate": ("wait for `start`", "fifo(7)", "go report"),
    "hook": ("run the hook {path}", "execve(2)", "state path argv env timeout_s root"),
    "recv_fd": ("receive {slot}", "unix(7)", "socket slot"),
    "send_fd": ("send {slot}", "unix(7)", "socket slot tag"),
    "unshare": ("unshare {flags}", "unshare(2)", "flags"),
    "setns": ("enter a namespace ({flags})", "setns(2)", "namespace flags"),
    "undumpable": ("hide from processes inside", "prctl(2)", ""),
    "clone_sibling": ("continue as a new child of the parent, with {flags}", "clone3(2)", "socket flags"),
    "open": ("open {path}", "open(2)", "path flags slot"),
    "open_in": ("open {path} below {root}", "openat2(2)", "root path flags slot"),
    "open_at": ("open {path} below {directory}", "open(2)", "directory path flags slot"),
    "open_tree": ("clone the mount of {path}", "open_tree(2)", "path flags slot"),
    "open_image": ("mount the EROFS image {path}", "fsopen(2)", "path slot"),
    "id_map": ("id-map {mount}", "mount_setattr(2)", "mount recursive userns"),
    "mount_attributes": ("set attributes of {mount}", "mount_setattr(2)", "mount set clear propagation recursive"),
    "propagation": ("set the propagation of {path} to {flags}", "mount_namespaces(7)", "path flags"),
    "attach": ("attach {mount} at {target}", "move_mount(2)", "mount root target"),
    "mount": ("mount {fstype} on {target}", "fsopen(2)", "fstype source options root target attributes slot"),
    "mount_tmpfs": (
        "mount tmpfs on {target}, with the directory's mode",
        "tmpfs(5)",
        "options root target attributes copy slot",
    ),
    "reconfigure": ("change the file system on {target} to {options}", "fspick(2)", "root target options"),
    "attributes_at": ("set attributes of {target}", "mount_setattr(2)", "root target set clear propagation recursive"),
    "mount_overlay": ("mount overlay on {directory}/{target}", "mount(2)", "directory options target"),
    "clone_tree": ("clone the mount of {place}", "open_tree(2)", "place flags slot"),
    "bind": ("bind {source} on {target}", "open_tree(2)", "source root target attributes recursive"),
    "bind_fd": ("bind {file} on {target}", "open_tree(2)", "file root target"),
    "bind_device": ("bind the device {source} on {target}", "open_tree(2)", "source root target mode device"),
    "expect_procfs": ("check that {mount} is the root of a procfs", "fstatfs(2)", "mount"),
    "mask": ("mask {path}", "mount_namespaces(7)", "root path"),
    "read_only": ("make {path} read-only", "mount_setattr(2)", "root path"),
    "mkdir": ("make the directory {path}", "mkdir(2)", "root path mode"),
    "mknod": ("make the device {path}", "mknod(2)", "root path mode device uid gid source"),
    "symlink": ("link {path} to {target}", "symlink(2)", "target root path"),
    "write_proc": ("write {data} to {path}", "proc(5)", "root path data"),
    "write_fd": ("enter a cgroup: write {data} to its {file}", "cgroups(7)", "file data"),
    "label": ("take the label {label}", "proc_pid_attr(5)", "file label"),
    "label_file": ("give {path} the label {label}", "xattr(7)", "root path label"),
    "pivot_root": ("make {root} the root directory", "pivot_root(2)", "root"),
    "chroot": ("change the root directory to {root}", "chroot(2)", "root"),
    "unmount": ("unmount {path}", "umount2(2)", "path mount_id"),
    "move_root": ("move {root} to /", "mount(2)", "root"),
    "chdir": ("change to the directory {path}", "chdir(2)", "path"),
    "sethostname": ("set the host name to {name}", "sethostname(2)", "name"),
    "setdomainname": ("set the domain name to {name}", "setdomainname(2)", "name"),
    "setrlimit": ("set the limit of {resource} to {soft}:{hard}", "setrlimit(2)", "resource soft hard"),
    "home": ("look up the home directory of user {uid} for HOME", "passwd(5)", "uid"),
    "umask": ("set the umask to {mask}", "umask(2)", "mask"),
    "scheduler": ("set the scheduling policy and attributes to {attributes}", "sched_setattr(2)", "attributes"),
    "io_priority": ("set the I/O class and priority to {priority}", "ioprio_set(2)", "priority"),
    "cpu_affinity": ("run on the CPUs of the mask {cpus} only", "sched_setaffinity(2)", "cpus"),
    "memory_policy": ("set the memory policy to {mode}", "set_mempolicy(2)", "mode nodes"),
    "personality": ("set the execution domain to {persona}", "personality(2)", "persona"),
    "loopback_up": ("bring the loopback interface up", "netdevice(7)", ""),
    "open_pty": ("open a pseudo-terminal of {rows}x{columns}", "pty(7)", "master slave rows columns"),
    "setsid": ("begin a session", "setsid(2)", ""),
    "controlling_tty": ("make {tty} the controlling terminal", "ioctl_tty(2)", "tty"),
    "stdio": ("set the standard streams", "dup2(2)", "stdin stdout stderr"),
    "session_keyring": ("join a new session keyring", "session-keyring(7)", "needed"),
    "set_fs_ids": ("act on files as {uid}:{gid}", "setfsuid(2)", "uid gid"),
    "setgroups": ("set the supplementary groups to {groups}", "setgroups(2)", "groups"),
    "setresgid": ("become group {gid}", "setresgid(2)", "gid"),
    "setresuid": ("become user {uid}", "setresuid(2)", "uid"),
    "cap_bounding": ("limit the bounding set to {capabilities}", "capabilities(7)", "capabilities"),
    "raise_capabilities": ("raise all permitted capabilities", "capset(2)", ""),
    "capset": ("keep the capabilities {permitted}", "capset(2)", "effective permitted inheritable"),
    "cap_ambient": ("raise the ambient capabilities {capabilities}", "capabilities(7)", "capabilities"),
    "no_new_privs": ("give up new privileges", "prctl(2)", ""),
    "seccomp": ("load a system call filter of {program}", "seccomp(2)", "program flags"),
    "seccomp_listener": (
        "load a system call filter of {program}, which asks a listener",
        "seccomp(2)",
        "program flags slot",
    ),
    "close_fds": ("mark all other descriptors close-on-exec", "close_range(2)", "kept"),
    "exec": ("execute {argv}", "execve(2)", "candidates argv env"),
}

SLOTS = {
    op.STATUS: "socket to the parent", op.CHANNEL: "socket between mounter and init", op.STDIN: "stdin",
    op.STDOUT: "stdout", op.STDERR: "stderr", op.USERNS: "the container's user namespace",
    op.ROOT: "the container's root", op.PTY_MASTER: "the terminal's master", op.PTY_SLAVE: "the terminal",
    op.SCRATCH: "the current mount", op.NAMESPACES: "the container's first process",
    op.HOOKS_CREATING: "its state, creating",
    op.CONTAINERS_PROC: "the container's /proc", op.CONTAINERS_SYS: "the container's /sys",
    op.CONTAINERS_DEV: "the container's /dev",
    op.PROC: "the host's /proc", op.LABEL_APPARMOR: "the next AppArmor profile", op.LABEL_SELINUX: "the next SELinux label",
    op.LABEL_KEYS: "the SELinux label of keys",
    op.HOOKS_CREATED: "its state, created", op.LISTENER: "the listener", op.GATE: "the gate", op.REPORT: "the report of failures after the gate",
}  # fmt: skip
TAGS = {op.TAG_IDENTITY: "identity", op.TAG_GO: "go", op.TAG_PTY: "terminal", op.TAG_DISK: "disk",
        op.TAG_CREATED: "it is created", op.TAG_MOUNTED: "its mounts are made", op.TAG_LISTENER: "listener",
        op.TAG_ROOT: "the container's root", op.TAG_STEP: "its turn", 0: "descriptor"}  # fmt: skip
CLONE_FLAGS = {
    0x80: "NEWTIME", 0x100: "VM", 0x20000: "NEWNS", 0x2000000: "NEWCGROUP", 0x4000000: "NEWUTS", 0x8000000: "NEWIPC", 0x10000000: "NEWUSER",
    0x20000000: "NEWPID", 0x40000000: "NEWNET",
}  # fmt: skip
MOUNT_FLAGS = {op.MS_REC: "REC", op.MS_UNBINDABLE: "UNBINDABLE", op.MS_PRIVATE: "PRIVATE", op.MS_SLAVE: "SLAVE",
               op.MS_SHARED: "SHARED"}  # fmt: skip


def rows(plan: Plan) -> list[dict[str, Any]]:
    """Return a row for each step.

    Its keys are ``index`` (from 1), ``actor``, ``operation``, ``arguments`` (by name), ``does``, ``why``, ``manual``
    and
    ``shell`` (None if no command does the same).
    """
    tasks = cgroup_tasks(plan.ops)
    return [_row(number, step, tasks) for number, step in enumerate(plan.ops, 1)]


def _row(number: int, step: Op, tasks: tuple[str, ...]) -> dict[str, Any]:
    return {
        "index": number,
        "actor": step.actor,
        "operation": step.name,
        "arguments": arguments(step),
        "does": describe(step),
        "why": step.why,
        "manual": WORDS[step.name][1],
        "shell": command(step, tasks),
    }


def trace_rows(trace: list[tuple[int, Op, int, int]], failed: Exception | None) -> list[dict[str, Any]]:
    """Return a row for each step that was reached: as `rows`, with ``began_microseconds`` since the first step began,
    ``microseconds`` that it took (None if it didn't end), and ``error`` (of the failed step).
    """
    failed_index = getattr(failed, "index", -1)
    tasks = cgroup_tasks(tuple(step for _, step, *_ in trace))
    first = min((begin for *_, begin, _ in trace if begin), default=0)
    return [
        {
            **_row(number + 1, step, tasks),
            "began_microseconds": (begin - first) / 1000,
            "microseconds": (end - begin) / 1000 if end else None,
            "error": str(failed) if number == failed_index else "",
        }
        for number, step, begin, end in trace
        if begin
    ]


def describe(step: Op) -> str:
    """Say what a step does."""
    named = arguments(step)
    return WORDS[step.name][0].format(**{key: value or "(none)" for key, value in named.items()})


def arguments(step: Op) -> dict[str, str]:
    """Return a step's arguments by name for readers: names of slots, words for flags."""
    named = dict(zip(WORDS[step.name][2].split(), step.args))
    name = "path" if "path" in named else "target"
    if "root" in named and name in named:
        named[name] = from_top(named["root"], str(named[name]))
    return {name: _shown(step.name, name, value) for name, value in named.items()}


def _shown(operation: str, name: str, value: Argument) -> str:
    if isinstance(value, tuple):
        if name == "cgroups":
            return " ".join(dict.fromkeys(each.partition(":")[2] for each in value))
        return (", " if name in ("map", "limits") else " ").join(value)
    if isinstance(value, bytes):
        if name == "program":
            return f"{len(value) // 8} instructions"
        if name == "groups":
            return ",".join(str(int.from_bytes(value[at : at + 4], "little")) for at in range(0, len(value), 4))
        if name in ("attributes", "cpus"):
            return value.hex()
        return value.decode(errors="replace")
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if name in (
        "root",
        "directory",
        "slot",
        "mount",
        "file",
        "socket",
        "userns",
        "tty",
        "namespace",
        "master",
        "slave",
        "stdin",
        "stdout",
        "stderr",
        "go",
        "report",
        "state",
    ):
        return _slot(value)
    if name == "tag":
        return TAGS.get(value, str(value))
    if name in ("capabilities", "effective", "permitted", "inheritable"):
        from minibox.linux.capabilities import names_of

        return " ".join(name.removeprefix("CAP_").lower() for name in names_of(value))
    if name in ("mode", "mask"):
        return f"{value:04o}"
    if name == "resource":
        return LIMITS[value]
    if name in ("recursive", "copy", "optional", "shared", "born"):
        return "yes" if value else ""
    if name == "kept":
        return str(value) if value else ""
    table = {"flags": CLONE_FLAGS if operation in ("clone", "clone_mounter", "clone_sibling", "unshare", "setns") else MOUNT_FLAGS,
             "propagation": MOUNT_FLAGS, "attributes": ATTRIBUTES, "set": ATTRIBUTES,
             "clear": ATTRIBUTES}.get(name)  # fmt: skip
    if table is None:
        return str(value)
    words = [word for bit, word in table.items() if value & bit]
    return "|".join(words) if operation not in ("open", "open_at", "open_in") else oct(value)


def _slot(number: int) -> str:
    if number == op.HOST:
        return "the host's root"
    if number & op.NO_LINKS:
        return f"{_slot(number & ~op.NO_LINKS)}, without symlinks"
    if number >= op.FIRST_FURTHER:
        return f"kernel mount {number - op.FIRST_FURTHER + 1}"
    if number not in SLOTS and number >= op.FIRST_USERNS:
        return f"the user namespace of bind source {number - op.FIRST_USERNS + 1}"
    if op.FIRST_USERNS > number >= op.FIRST_KEPT:
        return f"descriptor {number - op.FIRST_KEPT + 3}"
    if op.FIRST_KEPT > number >= op.FIRST_BIND:
        return f"bind source {number - op.FIRST_BIND + 1}"
    if op.FIRST_BIND > number >= op.FIRST_JOINED:
        return "the namespace"
    if op.FIRST_CGROUP <= number < op.PROC:
        return f"tasks file {number - op.FIRST_CGROUP + 1}"
    return SLOTS[number]


# ---- errors -------------------------------------------------------------------------------------

PROCFS_HINT = "only the proc file system itself may be mounted on /proc: writes to it must reach the kernel"
DEVICE_HINT = "the path isn't the device with this number; check with: stat -c %t:%T PATH"
LINK_HINT = (
    "make it a plain directory in the image: /proc, /sys and /dev, and paths in them, can't be reached through symlinks"
)
HINTS = {
    ("expect_procfs", errno_names.EMEDIUMTYPE): PROCFS_HINT,
    ("write_proc", errno_names.EMEDIUMTYPE): PROCFS_HINT,
    ("label", errno_names.EMEDIUMTYPE): "minibox's own /proc isn't procfs; run it where /proc is procfs",
    ("open_pty", errno_names.EMEDIUMTYPE): "the container's /dev/pts isn't a devpts file system; run it without -t",
    ("open_pty", errno_names.ENXIO): DEVICE_HINT,
    ("bind_device", errno_names.ENXIO): DEVICE_HINT,
    ("mknod", errno_names.ENXIO): DEVICE_HINT,
    ("mask", errno_names.ENXIO): "/dev/null isn't the null device; make it again: mknod -m 666 /dev/null c 1 3",
    (
        "mount_overlay",
        errno_names.EINVAL,
    ): "the container's directory can't hold an overlay's upper layer (it may itself be "
    "on overlayfs or NFS); set --root to a directory on ext4, xfs or btrfs",
    ("mount_overlay", errno_names.ENODEV): "this kernel has no overlay file system; load it with: modprobe overlay",
    ("mount_overlay", errno_names.EPERM): "this kernel doesn't let an ordinary user mount overlayfs (Linux 5.11 does); "
    "run as root",
    ("id_map", errno_names.EINVAL): "the file system can't be id-mapped; use --userns host, or ':noidmap' on a volume",
    ("mount", errno_names.EPERM): "the host hides parts of /proc or /sys from this process, as containers do; "
    "run minibox outside of them",
    ("mount", errno_names.ENOSPC): "the limit on mounts is reached: see /proc/sys/fs/mount-max",
    ("open_tree", errno_names.ENOENT): "the source of a mount must exist: it isn't made",
    (
        "write_proc",
        errno_names.ENOENT,
    ): "the container has no such setting: `sysctl -a` inside lists them; "
    "on older kernels some of net.core need --userns host",
    ("session_keyring", errno_names.EDQUOT): "the user has reached the limit kernel.keys.maxkeys: see "
    "/proc/key-users, and raise it with sysctl",
    ("write_proc", errno_names.EINVAL): "the kernel rejects this value",
    ("seccomp", errno_names.EINVAL): "the filter is not valid for this kernel; try --security-opt seccomp=unconfined",
}


# Errors that C returns itself, in words that the kernel doesn't have.
SAID = {
    errno_names.EMEDIUMTYPE: "not the required file system",
    errno_names.ENXIO: "not the required device",
    errno_names.EXDEV: "a symbolic link leads into a kernel file system",
}


def _is_by_no_link(step: Op, errno: int) -> bool:
    """Return whether the step failed because of a symlink that isn't allowed, or because of where it leads."""
    roots = [value for name, value in zip(WORDS[step.name][2].split(), step.args) if name == "root"]
    strict = any(type(root) is int and root != op.HOST and root & op.NO_LINKS for root in roots)
    return errno == errno_names.EXDEV or (errno == errno_names.ELOOP and strict)


def _said(step: Op, errno: int) -> str:
    if errno == errno_names.ELOOP and _is_by_no_link(step, errno):
        return "a symbolic link is on the way, where none is allowed"
    own = (
        "expect_procfs",
        "write_proc",
        "label",
        "open_pty",
        "bind_device",
        "mknod",
        "mask",
        "attach",
        "mount",
        "mount_tmpfs",
    )
    return SAID.get(errno, strerror(errno)) if step.name in own else strerror(errno)


def step_error(number: int, total: int, step: Op, errno: int, source: str = "", detail: int = 0) -> StepError:
    """Return the error of a failed step.

    ``errno`` is 0 if the process was killed in it; ``source`` is what the step was to mount.
    """
    place = f"step {number + 1} of {total}"
    what = describe(step) + (f", {source}" if source else "")
    if not errno:
        return StepError(f"{what}: the process was killed in {place}", index=number,
                         hint="it may have run out of memory: see dmesg")  # fmt: skip
    if (step.name, errno) == ("hook", errno_names.ECANCELED):
        ended = f"signal {detail & 0x7F}" if detail & 0x7F else f"exit status {detail >> 8}"
        return StepError(f"{what}: {ended} ({place})", index=number, errno=errno)
    page = WORDS[step.name][1]
    name = errno_names.errorcode.get(errno, str(errno))
    message = f"{what}: {_said(step, errno)} ({name} from {page}, {place})"
    hint = LINK_HINT if _is_by_no_link(step, errno) else HINTS.get((step.name, errno))
    if errno == errno_names.ENOSPC and step.name in ("mkdir", "mount_overlay"):
        hint = "the disk is full, or out of inodes (df, df -i); free some, or set --root to a directory on another disk"
    return StepError(message, hint, index=number, errno=errno)


CGROUP_HINTS = {
    errno_names.EBUSY: "the cgroup has enabled controllers for its children, so it can't have processes itself; if they aren't used, "
    "disable them in its cgroup.subtree_control, for example: -memory",
    errno_names.EOPNOTSUPP: "the parent cgroup has processes and has enabled controllers for its children; move the processes to a child, or "
    "write -cpu -cpuset -pids to its cgroup.subtree_control",
}


def clone_error(error: OSError, flags: int) -> MiniboxError:
    """Return the error of a failed clone3(2)."""
    names = "|".join(word for bit, word in CLONE_FLAGS.items() if flags & bit)
    hints = {
        errno_names.EPERM: "namespaces need root, or a user namespace; minibox doctor says what is missing",
        errno_names.ENOSPC: "too many namespaces, or none are allowed: see /proc/sys/user/max_*_namespaces; minibox doctor says "
        "what is missing",
        errno_names.EUSERS: "too many nested user namespaces",
        errno_names.EAGAIN: "too many processes: see ulimit -u and the pids cgroup",
        errno_names.ENOSYS: "minibox needs Linux 5.12",
    }
    kind = Unsupported if error.errno in (errno_names.EPERM, errno_names.ENOSYS) else MiniboxError
    what = f"clone a process with {names}" if names else "clone a process"
    return kind(f"{what}: {kernel_says(error)}", hints.get(error.errno or 0))
