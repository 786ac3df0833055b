"""From the container's root to the process that was asked for: its streams, limits, ids and privileges."""

from __future__ import annotations

from minibox.linux import capabilities
from minibox.linux.seccomp.flags import NEW_LISTENER
from minibox.plan import labels, parent, scheduling
from minibox.plan import operations as op
from minibox.plan.namespaces import dies_with_parent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.oci.runtime import Process, User
    from minibox.plan.operations import Op
    from minibox.plan.start import Start

NO_HOME = "HOME="
ROOT_USER: User = {"uid": 0, "gid": 0}
RLIMITS = {
    name: number
    for number, name in enumerate(
        ("CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING",
         "MSGQUEUE", "NICE", "RTPRIO", "RTTIME")
    )
}  # fmt: skip


def session(process: Process, start: Start, *, console: bool) -> list[Op]:
    """A session of its own, and the standard streams."""
    terminal = start.terminal
    steps = [op.setsid("no terminal of the caller's is within reach")]
    if start.keyring:
        steps += [*labels.of_keys(process), op.session_keyring(int(not start.denies_keys), "nor its keys")]
    if terminal:
        steps += [
            op.open_pty(*terminal, "a terminal of the container's own"),
            op.send_fd(op.STATUS, op.PTY_MASTER, op.TAG_PTY, "minibox copies between it and the user's"),
        ]
        if console:
            why = "the same terminal, under the name that init systems use"
            steps.append(op.bind_fd(op.PTY_SLAVE, op.CONTAINERS_DEV | op.NO_LINKS, "/console", why))
        steps += [
            op.controlling_tty(op.PTY_SLAVE, "so that Ctrl-C and job control work"),
            op.stdio(op.PTY_SLAVE, op.PTY_SLAVE, op.PTY_SLAVE, "standard streams are the terminal"),
        ]
    else:
        steps.append(op.stdio(op.STDIN, op.STDOUT, op.STDERR, "standard streams, passed through"))
    return steps


def become(process: Process, start: Start, hooks: list[Op] | None = None) -> list[Op]:
    """From the container's root to the process that was asked for, with the hooks that are the last before it."""
    user = process.get("user", ROOT_USER)
    sets: dict[str, Any] = {**process.get("capabilities", {})}
    caps = {name: capabilities.mask_of(names) for name, names in sets.items()}
    steps = [
        op.umask(user.get("umask", 0o022), "files are made with this mask"),
        op.chdir(process["cwd"], "the working directory"),  # opens a descriptor, which a limit may forbid
    ]
    if NO_HOME in environment(process):
        steps.append(op.home(user["uid"], "its environment says nothing of HOME"))
    steps += [
        op.setrlimit(
            RLIMITS[limit["type"].removeprefix("RLIMIT_")], limit["soft"], limit["hard"], "a limit of the process"
        )
        for limit in process.get("rlimits", [])
    ]
    steps += scheduling.steps_of(process)
    steps.append(op.cap_bounding(caps.get("bounding", 0), "what is not in here can never be gained"))
    if start.setgroups:
        steps.append(op.setgroups(tuple(user.get("additionalGids", [])), "the user's groups"))
    steps += [op.setresgid(user["gid"], "the user's group"), op.setresuid(user["uid"], "the user")]
    steps += dies_with_parent(start, "a change of ids forgets it")
    steps.append(op.close_fds("no descriptor of the host's stays open", start.kept_fds))
    drop = [
        op.capset(
            caps.get("effective", 0), caps.get("permitted", 0), caps.get("inheritable", 0), "only these capabilities"
        )
    ]
    # The kernel refuses any that is not inheritable; runc goes on without, and its template has such.
    if ambient := caps.get("ambient", 0) & caps.get("permitted", 0) & caps.get("inheritable", 0):
        drop.append(op.cap_ambient(ambient, "kept by a command that is not root"))
    return [*steps, *_filtered(process, start, drop, hooks or []), command(process)]


def _filtered(process: Process, start: Start, drop: list[Op], hooks: list[Op]) -> list[Op]:
    """The filter of system calls, and what must be before it, or behind.

    It may forbid whatever follows, so that is as little as can be. To load it takes no_new_privs or CAP_SYS_ADMIN.

    Args:
        drop: takes the capabilities away.
    """
    filter_, label = _filter(start), labels.at_exec(process)
    has_listener = len(filter_) > 1  # which is sent, and whoever takes it is gone behind the gate
    tell = [op.tell(op.TAG_CREATED, "minibox has nothing more to do")] if start.gate else []
    gate = [op.gate("all but the command itself is done")] if start.gate else []
    if process.get("noNewPrivileges", False):
        last = [op.no_new_privs("no set-uid file gives more"), *filter_]
        if has_listener:
            return [*drop, *last, *tell, *gate, *hooks, *label]
        return [*drop, *tell, *gate, *hooks, *label, *last]
    if not filter_:
        return [*drop, *tell, *gate, *hooks, *label]
    # Who is told before sees for himself when the gate is reached.
    early, late = ([], tell) if has_listener else (tell, [])
    before, behind = ([], label) if hooks else (label, [])
    raised = op.raise_capabilities("a change of ids puts them away, and the filter takes CAP_SYS_ADMIN")
    return [*before, *early, raised, *filter_, *drop, *late, *gate, *hooks, *behind]


def command(process: Process) -> Op:
    """The last step."""
    argv, env = tuple(process["args"]), environment(process)
    return op.exec_(candidates(argv[0], env), argv, env, "the command")


def _filter(start: Start) -> list[Op]:
    why = "only these system calls"
    if not start.seccomp:
        return []
    if not start.seccomp_flags & NEW_LISTENER:
        return [op.seccomp(start.seccomp, start.seccomp_flags, why)]
    return [
        op.seccomp_listener(start.seccomp, start.seccomp_flags, why),
        op.send_fd(op.STATUS, op.LISTENER, op.TAG_LISTENER, "minibox hands it on to who answers for the others"),
        *([parent.take_listener(*start.listener)] if start.listener else []),
    ]


def environment(process: Process) -> tuple[str, ...]:
    """What the command finds: of a name that is there twice the last, and words that are no variables left out.

    As runc and crun have it. An empty HOME, or none, is `NO_HOME`, which the step `operations.home` fills in.
    """
    found = {name: value for name, equals, value in (word.partition("=") for word in process.get("env", ())) if equals}
    found.setdefault("HOME", "")
    return tuple(f"{name}={value}" for name, value in found.items())


def candidates(name: str, env: tuple[str, ...]) -> tuple[str, ...]:
    """The paths at which execvp(3) would look for a command, by the container's own PATH."""
    if "/" in name or not name:
        return (name,)
    path = next((item[5:] for item in env if item.startswith("PATH=")), "/usr/local/bin:/usr/bin:/bin")
    return tuple(f"{directory or '.'}/{name}" for directory in path.split(":"))
