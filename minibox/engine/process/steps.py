"""The parent's steps: the table of the functions that execute them, and the loop that runs a Plan.

`minibox.plan.parent` describes each step in words and in shell, and says how to undo it. The children's steps run in C.
"""

from __future__ import annotations

import os
from time import time_ns

from minibox.base.files import close_descriptors, closing
from minibox.engine.process.execution import Execution
from minibox.engine.process.undo import OF_FAILED, undo
from minibox.errors import ExecFailed, MiniboxError, NetworkError, PortTaken, StepError, suppress, trying
from minibox.plan import operations as op
from minibox.plan.parent import undo_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from minibox.network.bridge import Wiring
    from minibox.plan.operations import Op

TIOCGPTPEER = 0x5441  # ioctl_tty(2), Linux 4.13


def run(execution: Execution) -> None:
    """Execute all steps of a plan, up to the gate if it has one.

    Raises:
        StepError: a child's step failed; the message says which.
        ExecFailed: the last step, exec, failed.
        MiniboxError: one of the parent's steps failed.
    """
    try:
        _run_steps(execution)
    except (StepError, ExecFailed):
        raise
    except (OSError, MiniboxError):
        # The step may have failed because a child has died. Then raise that error instead.
        execution.fail_of_child()
        raise


def _run_steps(execution: Execution) -> None:
    for index, step in execution.parents:
        execution.done = index + 1  # before the step: if it is interrupted, it may have been executed
        begin = time_ns()  # the clock of the children, too
        try:
            STEPS[step.name](execution, *step.args)
        except (MiniboxError, OSError):
            execution.done = index
            raise
        execution.parent_times[index] = begin, time_ns()
    execution.done = len(execution.plan.ops)
    execution.finish()


def trace(execution: Execution) -> list[tuple[int, Op, int, int]]:
    """Return index, step, begin and end of every step: nanoseconds of the real-time clock, 0 if it was not reached."""
    operations = execution.plan.ops
    times = dict(execution.parent_times)
    for actor, child in execution.children():
        numbers = [number for number, step in enumerate(operations) if step.actor == actor]
        times.update(zip(numbers, child.times()))
    return [(number, step, *times.get(number, (0, 0))) for number, step in enumerate(operations)]


def unwind(execution: Execution) -> Exception | None:
    """End a container, or a start that failed: kill its processes and undo the steps that were done.

    Returns:
        The first failure, None for none.
    """
    plan, done = execution.plan.ops, execution.done
    past = execution.undo_list if done == len(plan) else undo_list(plan[:done])
    ops = [_of_process(step, execution) for step in (*past, *execution.undone_by)]
    returned = [step for step in ops if step.name in OF_FAILED]  # while its network namespace still exists
    # A frozen process doesn't die, so we couldn't wait for its end: kill the cgroup, which thaws it, first.
    failure = undo([*returned, *(step for step in ops if step.name == "kill_cgroup")])
    execution.close()
    rest = undo(step for step in ops if step.name not in OF_FAILED)
    execution.close_scope()
    return failure or rest


def _of_process(step: Op, execution: Execution) -> Op:
    if step.name in OF_FAILED and step.args[-1] is None and execution.init:
        return op.Op(step.name, (*step.args[:-1], f"/proc/{execution.pid}/ns/net"), step.why, step.actor)
    return step


# ---- what was taken while the plan was compiled ----------------------------------------------------


def _hold(_: Execution, *args: object) -> None:
    """Do nothing: it was taken when the plan was compiled."""


# ---- published ports ------------------------------------------------------------------------------


def _reserve_port(execution: Execution, protocol: str, address: str, first: int, last: int, inside: int) -> None:
    from minibox.network.published import Wanted, reserve

    try:
        port, fd = reserve(Wanted(address, first, last, inside, protocol))
    except PortTaken as error:
        from minibox.engine.state.ports import with_holder

        raise with_holder(error, execution.resources.home.root, execution.published) from None
    execution.published.append(port)
    execution.held.append(fd)


def _publish_begin(execution: Execution, table: str, _bridge: str, address: str, subnet: str) -> None:
    from minibox.network.published import Batch

    execution.batch = Batch(execution.resources.home.runroot, table, address, subnet)


def _publish_port(execution: Execution, *_: object) -> None:
    """Publish the next port. They come in the order in which they were reserved."""
    assert execution.batch
    execution.batch.add(execution.published[execution.batch.count])


def _publish_end(execution: Execution, _table: str, bridge: str) -> None:
    batch, execution.batch = execution.batch, None
    assert batch
    execution.held.append(batch.commit(bridge))


def _hairpin(execution: Execution, veth: str) -> None:
    from minibox.network.bridge import hairpin

    hairpin(execution.resources.home.runroot, veth)


def _note_ports(execution: Execution, path: str) -> None:
    from minibox.engine.state.ports import note

    note(path, execution.published)


# ---- the cgroup -----------------------------------------------------------------------------------


def _cgroup(name: str) -> Callable[..., None]:
    def step(_: Execution, *args: Any) -> None:
        from minibox.linux.cgroup.creation import perform

        perform(op.Op(name, args, "", op.PARENT))

    return step


def _systemd_scope(execution: Execution, *args: Any) -> None:
    from minibox.linux.cgroup import Cgroup
    from minibox.linux.cgroup.creation import perform

    execution.scope = perform(op.Op("systemd_scope", args, "", op.PARENT))
    group = execution.resources.group
    assert group
    execution.cgroup = Cgroup(group.name, group.v1, group.v2, execution.scope, group.joined)


def _cgroup_chown(_: Execution, path: str, owner: int) -> None:
    from minibox.linux.cgroup.path import give

    give(path, owner)


def _systemd_own_scope(execution: Execution, _path: str, unit: str, slice_name: str, limits: tuple[str, ...]) -> None:
    from minibox.linux.cgroup.process_scope import start_own_scope

    start_own_scope(unit, slice_name, limits, execution.pid)


def _systemd_attach(execution: Execution, unit: str, place: str, _path: str) -> None:
    from minibox.linux.cgroup.systemd import attach

    joined_pid = execution.resources.joined_pid
    try:
        attach(unit, place, execution.pid)
    except MiniboxError:
        group = execution.cgroup
        below = group.below(joined_pid) if group and joined_pid else ""
        if not below:
            raise
        attach(unit, f"{place}{below}", execution.pid)


# ---- processes ------------------------------------------------------------------------------------


def _make_userns(execution: Execution, slot: int, uid_map: str, gid_map: str) -> None:
    from minibox.engine.host.userns_fd import user_namespace

    execution.hold_userns(slot, user_namespace(uid_map, gid_map))


def _deny_setgroups(execution: Execution) -> None:
    from minibox.engine.host.ids import deny_setgroups

    deny_setgroups(execution.pid)


def _write_id_map(kind: str) -> Callable[..., None]:
    def step(execution: Execution, lines: tuple[str, ...], program: str | None) -> None:
        from minibox.engine.host.ids import write_map

        write_map(execution.pid, kind, lines, program or "")

    return step


def _oom_score_adj(execution: Execution, value: int) -> None:
    with trying(MiniboxError, f"set the OOM score of the container's process to {value}"):
        with open(f"/proc/{execution.pid}/oom_score_adj", "wb", 0) as file:
            file.write(b"%d" % value)


def _take_root(execution: Execution, rootfs: str, namespace: str | None) -> None:
    fd = execution.wait_for(op.TAG_ROOT)
    if fd >= 0:
        from minibox.engine.process.shared_root import unmount_step

        execution.also_undo(unmount_step(rootfs, namespace, execution.pid, fd))


def _run_hook(
    execution: Execution,
    kind: str,
    number: int,
    path: str,
    argv: tuple[str, ...],
    env: tuple[str, ...] | None,
    timeout_s: int,
) -> None:
    if not execution.has_told(op.TAG_MOUNTED):  # it has died
        return
    from minibox.engine.process.hooks import run_hook

    run_hook(kind, number, path, argv, env, timeout_s, execution.state("creating"))


def _send_state(execution: Execution, status: str) -> None:
    if not execution.has_told(op.TAG_MOUNTED):  # it has died
        return
    from minibox.engine.process.hooks import state_file

    with closing(state_file(execution.state(status))) as fd:
        execution.send(0, fd)


def _take_terminal(execution: Execution, owner: int) -> None:
    from fcntl import ioctl

    master = execution.wait_for(op.TAG_PTY)
    if master < 0:
        return
    # without root you can't give files away, not even to your own subordinate ids
    with closing(ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)) as peer, suppress(PermissionError):
        os.fchown(peer, owner, -1)


def _take_listener(execution: Execution, path: str, metadata: str | None) -> None:
    fd = execution.wait_for(op.TAG_LISTENER)
    if fd < 0:
        return
    from minibox.engine.process.seccomp_listener import send_listener

    send_listener(path, metadata, execution.pid, execution.state("creating"), fd)
    execution.close_fd(op.TAG_LISTENER)


# ---- networks -------------------------------------------------------------------------------------


def _move_device(execution: Execution, device: str, name: str, netns: str | None) -> None:
    from minibox.network.devices import move

    move(device, name, netns or f"/proc/{execution.pid}/ns/net")


def _wired(name: str) -> Callable[..., None]:
    """A step of `network.bridge.Wiring`. The first such step makes the object."""

    def step(execution: Execution, *args: Any) -> None:
        getattr(_wiring(execution), name)(*args)

    return step


def _wiring(execution: Execution) -> Wiring:
    if execution.wiring is None:
        from minibox.network.bridge import Wiring

        resources = execution.resources
        execution.wiring = Wiring(resources.home.runroot, resources.container_id, f"/proc/{execution.pid}/ns/net")
    return execution.wiring


def _name_server(execution: Execution, directory: str, container_id: str, servers: tuple[str, ...]) -> None:
    """Make the sockets of its name server, and start the process that keeps them as long as the container runs."""
    from minibox.linux.executable import open_init
    from minibox.network.name_server import ADDRESS, keeper_command, make_sockets

    fds = list(make_sockets(f"/proc/{execution.pid}/ns/net") or ())
    if not fds:
        raise NetworkError(f"listen at {ADDRESS} in the container: its port 53 is in use")
    assert execution.init
    try:
        fds.append(open_init())
        argv = keeper_command(directory, container_id, servers, detached=False)
        steps = _program_steps("/proc/self/fd/2", argv, (), "it keeps the name server's sockets", kept=1)
        slots = [-1] * (op.FIRST_KEPT + 1)
        slots[op.STDIN : op.STDERR + 1] = fds
        slots[op.FIRST_KEPT] = execution.init.pidfd  # it ends by itself, so it doesn't matter if we end first
        _start_helper(execution, steps, slots)
    finally:
        close_descriptors(*fds)


def _user_network(execution: Execution, tool: str, argv: tuple[str, ...]) -> None:
    """Start pasta or slirp4netns and wait until it is ready. It dies with its parent."""
    from minibox.network.rootless import is_ready

    ports = [str(each.port) for each in execution.published]
    words = tuple(_filled_in(argv, str(execution.pid), ports))
    environment = tuple(f"{name}={value}" for name, value in os.environ.items())
    ready, announce = os.pipe2(os.O_CLOEXEC)
    said = os.memfd_create("minibox-network", os.MFD_CLOEXEC)
    null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
    execution.close_held()  # it binds the ports itself
    try:
        # It reports that it is ready on descriptor 0: 1 has its log.
        steps = _program_steps(words[0], words, environment, "user-mode networking")
        _, its = execution.socketpair()  # the other end tells the child that we are alive
        alive = op.die_with_parent("it carries packets for a container that dies with us")
        _start_helper(execution, [alive, *steps], [its.fileno(), -1, announce, null, said])
        its.close()
        os.close(announce)
        announce = -1
        if not is_ready(os.read(ready, 64)):
            why = os.pread(said, 4096, 0).decode(errors="replace").strip().replace("\n", "; ")
            raise NetworkError(f"{tool} can't connect the container: {why or 'it ended'}", "--network none")
    finally:
        close_descriptors(ready, announce, said, null)


def _program_steps(path: str, argv: tuple[str, ...], environment: tuple[str, ...], why: str, kept: int = 0) -> list[Op]:
    return [
        op.stdio(op.STDIN, op.STDOUT, op.STDERR, "what it gets from us"),
        op.close_fds("it needs no other descriptors of ours", kept),
        op.exec_((path,), argv, environment, why),
    ]


def _start_helper(execution: Execution, steps: list[Op], slots: list[int]) -> None:
    """Start a program that gets SIGTERM when the container has ended."""
    from minibox.linux.process import signatures
    from minibox.plan.encode import encode

    assert execution.init
    execution.tool = execution.init.spawn_helper(encode(steps, signatures()), 0, slots, len(steps))


def _filled_in(argv: tuple[str, ...], pid: str, ports: list[str]) -> Iterator[str]:
    for word in argv:
        filled = word.replace("$INIT", pid)
        for number, port in enumerate(ports, 1):
            filled = filled.replace(f"$PORT_{number}:", f"{port}:")
        yield filled


def _listen(execution: Execution, path: str) -> None:
    from minibox.engine.process.attach_socket import listen

    execution.listener = listen(path)


def _stop(execution: Execution, number: int) -> None:
    assert execution.resources.on_stop
    execution.resources.on_stop(execution, number)


STEPS: dict[str, Callable[..., object]] = {
    "hold_ids": _hold,
    "hold_address": _hold,
    "reserve_port": _reserve_port,
    "publish_begin": _publish_begin,
    "publish_port": _publish_port,
    "publish_end": _publish_end,
    "hairpin": _hairpin,
    "note_ports": _note_ports,
    **{
        name: _cgroup(name)
        for name in ("cgroup_parent", "cgroup_mkdir", "cgroup_write", "cgroup_copy", "device_filter")
    },
    "cgroup_chown": _cgroup_chown,
    "systemd_scope": _systemd_scope,
    "systemd_own_scope": _systemd_own_scope,
    "systemd_attach": _systemd_attach,
    "make_userns": _make_userns,
    "clone": Execution.clone,
    "clone_further": lambda execution, cgroups, born: execution.clone(0, cgroups, born),
    "clone_mounter": Execution.clone_mounter,
    "take_sibling": lambda execution: execution.wait_for(op.TAG_SIBLING),
    "deny_setgroups": _deny_setgroups,
    "write_uid_map": _write_id_map("uid"),
    "write_gid_map": _write_id_map("gid"),
    "oom_score_adj": _oom_score_adj,
    "send": Execution.send,
    "take_root": _take_root,
    "await_mounts": lambda execution: execution.wait_for(op.TAG_MOUNTED),
    "run_hook": _run_hook,
    "send_state": _send_state,
    "take_terminal": _take_terminal,
    "take_listener": _take_listener,
    "move_device": _move_device,
    **{
        name: _wired(name)
        for name in ("forward_ipv4", "bridge_rules", "add_bridge", "add_veth", "add_address", "set_up", "add_route")
    },
    "await_rules": _wired("await_rules"),
    "name_server": _name_server,
    "user_network": _user_network,
    "listen": _listen,
    "stop": _stop,
    "let_go": Execution.let_go,
}
