"""The steps from the container's root to the requested process: its streams, limits, ids and privileges."""

from __future__ import annotations

from minibox.linux import capabilities
from minibox.linux.seccomp import NEW_LISTENER
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
    """Return the steps for a new session and the standard streams."""
    terminal = start.terminal
    steps = [op.setsid("the caller's terminal is out of reach")]
    if start.keyring:
        steps += [
            *labels.of_keys(process),
            op.session_keyring(int(not start.denies_keys), "the caller's keys are out of reach too"),
        ]
    if terminal:
        steps += [
            op.open_pty(*terminal, "a terminal for this container"),
            op.send_fd(op.STATUS, op.PTY_MASTER, op.TAG_PTY, "minibox connects it to yours"),
        ]
        if console:
            why = "the same terminal, under the name that init systems expect"
            steps.append(op.bind_fd(op.PTY_SLAVE, op.CONTAINERS_DEV | op.NO_LINKS, "/console", why))
        steps += [
            op.controlling_tty(op.PTY_SLAVE, "so that Ctrl-C and job control work"),
            op.stdio(op.PTY_SLAVE, op.PTY_SLAVE, op.PTY_SLAVE, "the standard streams are the terminal"),
        ]
    else:
        steps.append(op.stdio(op.STDIN, op.STDOUT, op.STDERR, "pass the standard streams through"))
    return steps


def become(process: Process, start: Start, hooks: list[Op] | None = None) -> list[Op]:
    """Return the steps that turn the process into the requested one. ``hooks`` run last, before the command."""
    user = process.get("user", ROOT_USER)
    sets: dict[str, Any] = {**process.get("capabilities", {})}
    caps = {name: capabilities.mask_of(names) for name, names in sets.items()}
    steps = [
        op.umask(user.get("umask", 0o022), "new files get their mode from it"),
        op.chdir(process["cwd"], "the working directory"),  # opens a descriptor, which a limit may forbid
    ]
    if NO_HOME in environment(process):
        steps.append(op.home(user["uid"], "HOME isn't set in its environment"))
    steps += [
        op.setrlimit(
            RLIMITS[limit["type"].removeprefix("RLIMIT_")], limit["soft"], limit["hard"], "a limit of the process"
        )
        for limit in process.get("rlimits", [])
    ]
    steps += scheduling.steps_of(process)
    steps.append(op.cap_bounding(caps.get("bounding", 0), "a capability outside it can never be gained"))
    if start.setgroups:
        steps.append(op.setgroups(tuple(user.get("additionalGids", [])), "the user's groups"))
    steps += [op.setresgid(user["gid"], "the user's group"), op.setresuid(user["uid"], "the user")]
    steps += dies_with_parent(start, "a change of ids resets it")
    steps.append(op.close_fds("keep no descriptor of the host open", start.kept_fds))
    drop = [
        op.capset(
            caps.get("effective", 0),
            caps.get("permitted", 0),
            caps.get("inheritable", 0),
            "keep only these capabilities",
        )
    ]
    # The kernel refuses capabilities that aren't inheritable. runc ignores that, and its template contains such ones.
    if ambient := caps.get("ambient", 0) & caps.get("permitted", 0) & caps.get("inheritable", 0):
        drop.append(op.cap_ambient(ambient, "a command that isn't root keeps them"))
    return [*steps, *_filtered(process, start, drop, hooks or []), command(process)]


def _filtered(process: Process, start: Start, drop: list[Op], hooks: list[Op]) -> list[Op]:
    """Return the seccomp filter, with what must come before and after it.

    The filter may forbid everything after it, so as little as possible comes after it. Loading it takes no_new_privs or
    CAP_SYS_ADMIN.

    Args:
        drop: the steps that drop capabilities.
    """
    filter_, label = _filter(start), labels.at_exec(process)
    has_listener = len(filter_) > 1  # the listener is sent to minibox, which is gone after the gate
    tell = [op.tell(op.TAG_CREATED, "minibox is no longer needed")] if start.gate else []
    gate = [op.gate("everything is done except the command itself")] if start.gate else []
    if process.get("noNewPrivileges", False):
        last = [op.no_new_privs("set-uid files give no privileges"), *filter_]
        if has_listener:
            return [*drop, *last, *tell, *gate, *hooks, *label]
        return [*drop, *tell, *gate, *hooks, *label, *last]
    if not filter_:
        return [*drop, *tell, *gate, *hooks, *label]
    # With a listener, minibox reports when it has taken that; it sees by itself when the gate is reached.
    early, late = ([], tell) if has_listener else (tell, [])
    before, behind = ([], label) if hooks else (label, [])
    raised = op.raise_capabilities("a change of ids clears them, and loading the filter takes CAP_SYS_ADMIN")
    return [*before, *early, raised, *filter_, *drop, *late, *gate, *hooks, *behind]


def command(process: Process) -> Op:
    """Return the last step."""
    argv, env = tuple(process["args"]), environment(process)
    return op.exec_(candidates(argv[0], env), argv, env, "run the command")


def _filter(start: Start) -> list[Op]:
    why = "allow only these system calls"
    if not start.seccomp:
        return []
    if not start.seccomp_flags & NEW_LISTENER:
        return [op.seccomp(start.seccomp, start.seccomp_flags, why)]
    return [
        op.seccomp_listener(start.seccomp, start.seccomp_flags, why),
        op.send_fd(
            op.STATUS, op.LISTENER, op.TAG_LISTENER, "minibox passes it to the program that answers the other calls"
        ),
        *([parent.take_listener(*start.listener)] if start.listener else []),
    ]


def environment(process: Process) -> tuple[str, ...]:
    """Return the command's environment. The last value of a name wins; words without "=" are left out.

    runc and crun do the same. An empty or missing HOME becomes `NO_HOME`, which the step `operations.home` fills in.
    """
    found = {}
    for word in process.get("env", ()):
        name, equals, value = word.partition("=")
        if equals:
            found[name] = value
    found.setdefault("HOME", "")
    return tuple([f"{name}={value}" for name, value in found.items()])


def candidates(name: str, env: tuple[str, ...]) -> tuple[str, ...]:
    """Return the paths at which execvp(3) would look for a command, by the container's own PATH."""
    if "/" in name or not name:
        return (name,)
    path = next((item[5:] for item in env if item.startswith("PATH=")), "/usr/local/bin:/usr/bin:/bin")
    return tuple([f"{directory or '.'}/{name}" for directory in path.split(":")])
