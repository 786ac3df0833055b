"""Write a Plan as shell commands: to read, and for simple plans to run.

``script`` writes one script for a plan. When a step enters namespaces, the rest of the script goes to a shell inside
them through a here-document. Tools: util-linux (unshare, mount, setpriv, prlimit), coreutils, iproute2 and hostname.
"""

from __future__ import annotations

from os import fsdecode, major, minor

from minibox.errors import Unsupported
from minibox.plan import operations as op
from minibox.plan.namespaces import tasks_of
from minibox.plan.parent import OPERATIONS, named, undo_list
from minibox.plan.places import HELD, from_top

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from minibox.plan.compiler import Plan
    from minibox.plan.operations import Argument, Op

UNSHARE = {
    0x80: "--time",
    0x20000: "--mount", 0x2000000: "--cgroup", 0x4000000: "--uts", 0x8000000: "--ipc", 0x10000000: "--user",
    0x20000000: "--pid --fork --kill-child", 0x40000000: "--net",
}  # fmt: skip
ATTRIBUTES = {op.RDONLY: "ro", op.NOSUID: "nosuid", op.NODEV: "nodev", op.NOEXEC: "noexec", op.NOATIME: "noatime",
              op.STRICTATIME: "strictatime", op.NODIRATIME: "nodiratime", op.NOSYMFOLLOW: "nosymfollow"}  # fmt: skip
CLEARED = {op.RDONLY: "rw", op.NOSUID: "suid", op.NODEV: "dev", op.NOEXEC: "exec"}
PROPAGATION = {op.MS_PRIVATE: "private", op.MS_SLAVE: "slave", op.MS_SHARED: "shared", op.MS_UNBINDABLE: "unbindable"}
LIMITS = ("cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as", "locks", "sigpending",
          "msgqueue", "nice", "rtprio", "rttime")  # fmt: skip
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_")


def quote(text: str) -> str:
    """Like `shlex.quote`, which imports re."""
    return text if text and PLAIN.issuperset(text) else "'" + text.replace("'", "'\"'\"'") + "'"


def command(step: Op, tasks: tuple[str, ...] = ()) -> str | None:
    """Return the command that does the same as a step; None if no tool does.

    ``$ROOT`` stands for the container's root directory, ``$MOUNT`` for the current mount, ``$INIT`` for the container's
    first process.

    Args:
        tasks: `cgroup_tasks` of the step's plan.
    """
    if step.name == "write_fd":
        return f"echo 0 > {_directory_of(step, tasks)}/tasks"
    render = COMMANDS.get(step.name)
    if render:
        return render(*step.args)
    return _parents(step) if step.name in OPERATIONS else None


def _parents(step: Op) -> str | None:
    """Return the command of a parent's step, from their table."""
    shell = OPERATIONS[step.name][4]
    if callable(shell):
        return shell(*(_quoted(value, "\n") for value in step.args))
    return shell.format(**{name: _quoted(value, " ") for name, value in named(step).items()}) or None


def _quoted(value: Argument, between: str) -> str:
    if isinstance(value, tuple):
        return between.join(map(quote, value))
    return quote("" if value is None else value.hex() if isinstance(value, bytes) else str(value))


def cgroup_tasks(ops: Iterable[Op]) -> tuple[str, ...]:
    """Return the v1 directories that the container's first process enters itself, in the order of their descriptors."""
    found = next((named(step)["cgroups"] for step in ops if step.name in ("clone", "clone_further")), ())
    return tasks_of(found) if isinstance(found, tuple) else ()


def _directory_of(step: Op, tasks: tuple[str, ...]) -> str:
    slot = step.args[0]
    assert isinstance(slot, int)
    number = slot - op.FIRST_CGROUP
    return quote(tasks[number]) if 0 <= number < len(tasks) else f'"$CGROUP_{number + 1}"'


def _path(root: int, path: str) -> str:
    return quote(path) if root == op.HOST else f'"$ROOT"{quote(from_top(root, path))}'


def _words(table: dict[int, str], flags: int) -> list[str]:
    return [word for bit, word in table.items() if flags & bit]


def _unshare(flags: int) -> str:
    return "unshare " + " ".join(_words(UNSHARE, flags))


def _mount(
    fstype: str, source: str | None, options: str, root: int, target: str, attributes: int, slot: int = op.SCRATCH
) -> str:
    words = ",".join([*_words(ATTRIBUTES, attributes), *([options] if options else [])])
    place = _path(root, target)
    return f"mkdir -p {place} && mount -t {fstype}{' -o ' + quote(words) if words else ''} {quote(source or fstype)} {place}"


def _bind(source: str, root: int, target: str, attributes: int, recursive: int) -> str:
    place = _path(root, target)
    words = _words(ATTRIBUTES, attributes)
    options = f" -o {','.join(words)}" if words else ""
    return f"touch {place} && mount --{'r' if recursive else ''}bind{options} {quote(source)} {place}"


def _attach(mount: int, root: int, target: str) -> str:
    place = _path(root, target)
    if mount == op.ROOT:
        return f'mkdir -p {place} && mount --rbind "$ROOT" {place} && ROOT={place}'
    source = '"$MOUNT"' if mount == op.SCRATCH else f'"$BIND_{mount - op.FIRST_BIND + 1}"'
    attached = f"{{ [ -d {source} ] && mkdir -p {place} || touch {place}; }} && mount --rbind {source} {place}"
    if mount == op.SCRATCH:
        return attached
    words = f"BIND_{mount - op.FIRST_BIND + 1}_OPTIONS"
    return f'{attached} && {{ [ -z "${{{words}:-}}" ] || mount -o "remount,bind,${words}" {place}; }}'


def _open_tree(path: str, _flags: int, slot: int) -> str:
    name = {op.SCRATCH: "MOUNT", op.ROOT: "ROOT"}.get(slot) or f"BIND_{slot - op.FIRST_BIND + 1}"
    return f"{name}={quote(path)}"


def _mask(root: int, path: str) -> str:
    place = _path(root, path)
    return (
        f"if [ -d {place} ]; then mount -t tmpfs -o ro,nosuid,nodev,noexec,size=0,nr_inodes=1,mode=0755 none {place}; "
        f"elif [ -e {place} ]; then mount --bind /dev/null {place}; fi"
    )


def _read_only(root: int, path: str) -> str:
    place = _path(root, path)
    return f"if [ -e {place} ]; then mount --bind {place} {place} && mount -o remount,bind,ro {place}; fi"


def _expect_procfs(mount: int) -> str:
    place = next((_path(slot, "/") for slot in HELD.values() if slot == mount), '"$MOUNT"')
    return f'[ "$(stat -f -c %T {place})" = proc ]'


def _mount_attributes(mount: int, set_: int, clear: int, propagation: int, recursive: int) -> str:
    changed = ",".join([*_words(CLEARED, clear), *_words(ATTRIBUTES, set_)])
    if set_ and mount == op.ROOT:
        return f'mount -o remount,bind,{changed} "$ROOT"'
    name = "ROOT" if mount == op.ROOT else f"BIND_{mount - op.FIRST_BIND + 1}"
    if changed and mount != op.ROOT:
        return f"{name}_OPTIONS={changed} # for when it is attached"
    words = [("r" if recursive else "") + word for word in _words(PROPAGATION, propagation)]
    return f': attributes of "${name}", set when it is attached: {" ".join(words)}'


def _attributes_at(root: int, target: str, set_: int, clear: int, propagation: int, recursive: int) -> str:
    place = _path(root, target)
    spread = [f"mount --make-{word} {place}" for word in _words(PROPAGATION, propagation)]
    words = [*_words(CLEARED, clear), *_words(ATTRIBUTES, set_)]
    changed = [f"mount -o remount,bind,{','.join(words)} {place}"] if words else []
    return " && ".join([*spread, *changed]) or ":"


def _capabilities(mask: int) -> str:
    from minibox.linux.capabilities import names_of

    return "-all" + "".join(",+" + name.removeprefix("CAP_").lower() for name in names_of(mask))


def _setrlimit(resource: int, soft: int, hard: int) -> str:
    shown = ["unlimited" if value == op.NONE else str(value) for value in (soft, hard)]
    return f"prlimit --pid $$ --{LIMITS[resource]}={':'.join(shown)}"


def _groups(groups: bytes) -> str:
    return ",".join(str(int.from_bytes(groups[at : at + 4], "little")) for at in range(0, len(groups), 4))


COMMANDS: dict[str, Callable[..., str]] = {
    "clone": lambda flags, cgroups, born: _unshare(flags),
    "clone_mounter": _unshare,
    "unshare": _unshare,
    "open": lambda path, flags, slot: f"ROOT={quote(path)}",
    "open_tree": _open_tree,
    "open_image": lambda path, slot: f"mount -t erofs -o ro,loop {quote(path)} /mnt && MOUNT=/mnt",
    "mount_attributes": _mount_attributes,
    "propagation": lambda path, flags: (
        f"mount --make-{'r' if flags & op.MS_REC else ''}{''.join(_words(PROPAGATION, flags))} {quote(path)}"
    ),
    "attach": _attach,
    "mount": _mount,
    "mount_overlay": lambda directory, options, target: (
        f"(cd {quote(directory)} && mount -t overlay -o {options} overlay {target})"
    ),
    "mount_tmpfs": lambda options, root, target, attributes, copy, slot: _mount(
        "tmpfs", None, options, root, target, attributes
    ),
    "reconfigure": lambda root, target, options: f"mount -o remount,{quote(options)} {_path(root, target)}",
    "attributes_at": _attributes_at,
    "bind": _bind,
    "bind_device": lambda source, root, target, mode, device: _bind(source, root, target, 0, 0),
    "expect_procfs": _expect_procfs,
    "mask": _mask,
    "read_only": _read_only,
    "mkdir": lambda root, path, mode: f"mkdir -p -m {mode:04o} {_path(root, path)}",
    "mknod": lambda root, path, mode, device, uid, gid, source: (
        f"mknod -m {mode & 0o7777:04o} {_path(root, path)} {'b' if mode & 0o170000 == 0o060000 else 'c'} "
        f"{major(device)} {minor(device)}"
    ),
    "symlink": lambda target, root, path: f"ln -s {quote(target)} {_path(root, path)}",
    "write_proc": lambda root, path, data: f"printf %s {quote(fsdecode(data))} > {_path(root, path)}",
    "pivot_root": lambda root: 'cd "$ROOT" && mount --move . /',
    "move_root": lambda root: 'cd "$ROOT" && mount --move . / && exec chroot .',
    "chroot": lambda root: 'exec chroot "$ROOT"',
    "unmount": lambda path, mount_id: f"umount --lazy {quote(path)}",
    "sethostname": lambda name: f"hostname {quote(name)}",
    "setdomainname": lambda name: f"domainname {quote(name)}",
    "setrlimit": _setrlimit,
    "umask": lambda mask: f"umask {mask:04o}",
    "loopback_up": lambda: "ip link set lo up",
    "setsid": lambda: "setsid",
    "die_with_parent": lambda socket: "setpriv --pdeathsig KILL",
    "chdir": lambda path: f"unshare --root=. --wd={quote(path)}",
    "setgroups": lambda groups: f"setpriv --groups={_groups(groups)}" if groups else "setpriv --clear-groups",
    "setresgid": lambda gid: f"setpriv --regid={gid}",
    "setresuid": lambda uid: f"setpriv --reuid={uid}",
    "cap_bounding": lambda mask: f"setpriv --bounding-set={_capabilities(mask)}",
    "capset": lambda effective, permitted, inheritable: f"setpriv --inh-caps={_capabilities(inheritable)}",
    "cap_ambient": lambda mask: f"setpriv --ambient-caps={_capabilities(mask)}",
    "no_new_privs": lambda: "setpriv --no-new-privs",
    "close_fds": lambda kept: f"exec {3 + kept}<&- {4 + kept}<&-",
    "exec": lambda candidates, argv, env: f"exec env -i {' '.join(map(quote, (*env, *argv)))}",
}

# Steps that the arguments of the script's last command do, since a shell can't do them to itself.
AT_EXEC = ("chdir", "setgroups", "setresgid", "setresuid", "cap_bounding", "capset", "cap_ambient", "no_new_privs",
           "exec")  # fmt: skip
# Steps that a script doesn't need: there is no second process to wait for, and there are no sockets.
IMPLIED = ("send", "wait", "die_with_parent", "stdio", "close_fds", "setsid", "kill_cgroup")
NO_COMMAND = {"clone_mounter", "add_veth", "user_network", "open_pty", "setns"}


def script(plan: Plan, *, before: tuple[str, ...], after: tuple[str, ...]) -> str:
    """Return a shell script that starts the container of a plan without a user namespace, network or terminal.

    Args:
        before: commands that make the container's own files.
        after: commands that remove them at the end.

    Raises:
        Unsupported: the plan has steps that only a system call can do.
    """
    missing = sorted({step.name for step in plan.ops} & NO_COMMAND)
    if missing:
        raise Unsupported(
            f"write it as a shell script: there is no command for {', '.join(missing)}",
            "this works for simple runs: --userns host --network none, no -t, and no --storage-driver erofs",
        )
    lines = ["#!/bin/sh", "# The same container by hand. Run as root.", "set -eu"]
    undone = (command(step) or ":" for step in undo_list(plan.ops) if step.name not in IMPLIED)
    lines += [f"trap {quote('; '.join((*undone, *after)))} EXIT", *before]
    tasks, ends = cgroup_tasks(plan.ops), list[str]()
    late: list[Op] = []
    for number, step in enumerate(plan.ops, 1):
        lines.append(f"# {number}. {step.name}: {step.why}")
        if step.name in ("clone", "unshare"):
            fd = 3 + len(ends)
            ends.append(f"END_{fd}")
            exec_ = "exec " if step.name == "unshare" else ""
            lines.append(f"{exec_}{command(step)} sh -eu /dev/fd/{fd} {fd}<<'{ends[-1]}'")
            if step.name == "clone":  # a shell can't be born in a cgroup, so it enters it
                lines += [f"echo $$ > {quote(each[1:])}/cgroup.procs" for each in _born_in(step)]
        elif step.name == "write_fd":
            lines.append(f"echo $$ > {_directory_of(step, tasks)}/cgroup.procs")
        elif step.name in AT_EXEC:
            late.append(step)
        elif step.name not in IMPLIED:
            lines.append(command(step) or "#    no shell command does this; the container goes without it")
    return "\n".join([*lines, _last_command(late), *reversed(ends), ""])


def _born_in(step: Op) -> list[str]:
    cgroups = named(step)["cgroups"]
    return [each for each in cgroups if each.startswith(":")] if isinstance(cgroups, tuple) else []


def _last_command(late: list[Op]) -> str:
    """Combine tools: setpriv drops privileges, unshare(1) changes root and directory, env sets the environment."""
    by_name = {step.name: step for step in late}
    uid, gid = (int(str(by_name[name].args[0])) for name in ("setresuid", "setresgid"))
    _check_last(by_name, uid, gid)
    names = ["cap_bounding", "capset", "cap_ambient", "no_new_privs"]
    options = " ".join(
        rendered.removeprefix("setpriv ")
        for name in (["setgroups", *names] if (uid, gid) == (0, 0) else names)
        if name in by_name and (rendered := command(by_name[name]))
    )
    # setpriv is a program of the host, so it must run first. Without root one can't change the root directory.
    become = f" --setgid={gid} --setuid={uid}" if (uid, gid) != (0, 0) else ""
    _, argv, env = by_name["exec"].args
    assert isinstance(argv, tuple) and isinstance(env, tuple)
    where = command(by_name["chdir"])
    return (
        f'exec "$(command -v env)" -i {" ".join(map(quote, env))} "$(command -v setpriv)" {options} --pdeathsig KILL '
        f'"$(command -v {where}'.replace("unshare ", 'unshare)" ', 1)
        + f"{become} -- {' '.join(map(quote, argv))}"
    )


def _check_last(by_name: dict[str, Op], uid: int, gid: int) -> None:
    """Check that unshare(1) can change the root directory and become the user after setpriv has run."""
    from minibox.linux.capabilities import mask_of

    needed = ["CAP_SYS_CHROOT"] + (["CAP_SETUID", "CAP_SETGID"] if (uid, gid) != (0, 0) else [])
    bounding = by_name["cap_bounding"].args[0]
    assert isinstance(bounding, int)
    if mask_of(needed) & ~bounding:
        raise Unsupported(
            f"write it as a shell script: its last command itself needs {', '.join(needed)}",
            "this works for runs with the default capabilities",
        )
    groups = by_name["setgroups"].args[0] if "setgroups" in by_name else b""
    assert isinstance(groups, bytes)
    if (uid, gid) != (0, 0) and groups.replace(gid.to_bytes(4, "little"), b""):
        raise Unsupported(
            "write it as a shell script: no command sets supplementary groups for a user in another root directory",
            "this works for runs as root, or as a user without supplementary groups",
        )
