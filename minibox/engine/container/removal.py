"""Remove containers, and undo their start in place of a killed owner."""

from __future__ import annotations

import os
from time import monotonic, sleep

from minibox.base import damage
from minibox.base.files import closing, sync_directory, wait_readable
from minibox.base.operation import PARENT, Op
from minibox.engine.files import rootfs_setup
from minibox.engine.host import ids
from minibox.engine.process import undo
from minibox.engine.state import claim as ownership
from minibox.engine.state import containers, events, live_file, names
from minibox.errors import ContainerNotFound, MiniboxError, Unreadable, UsageError
from minibox.linux import cgroup
from minibox.linux.process import SIGKILL, open_pidfd, send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable
    from typing import Any

    from minibox.base.home import Home
    from minibox.engine.state.live_file import Live
    from minibox.linux.cgroup import Cgroup

STARTING_S = 2.0  # how long a start may take
GRACE_S = 20.0  # how long to wait for the lock of an owner that was killed
POLL_S = 0.002


def undo_start(home: Home, container_id: str, line: bytes) -> None:
    """Undo a start in place of the container's owner: its processes, cgroup, address and ids.

    Args:
        line: the undo line of the live file. It is b"" if the owner was killed before it wrote the line, or if an older
            minibox started the container; then we look for what belongs to its id.

    Raises:
        MiniboxError, OSError: something can't be undone.
    """
    if failure := undo.undo(undo_steps(home, container_id, line)):
        raise failure


def undo_steps(home: Home, container_id: str, line: bytes) -> tuple[Op, ...]:
    """The operations that `undo_start` executes."""
    from minibox.engine.process import undo_list

    try:
        steps = undo_list.decode(line, live_file.live_path(home.root, container_id), container_id) if line else ()
    except Unreadable as error:
        damage.tell(error)
        steps = ()
    steps = steps or steps_by_id(home, container_id)
    return (*steps, *undo_list.read_more(f"{home.root}/containers/{container_id}"))


def steps_by_id(home: Home, container_id: str) -> tuple[Op, ...]:
    """The operations that undo a start without an undo line, found by the container's id."""
    from minibox.engine.process.attach_socket import socket_path
    from minibox.engine.state import ports
    from minibox.network import lease

    steps = [
        ("remove_file", f"{home.root}/containers/{container_id}/{ports.FILE}"),
        ("remove_file", socket_path(home.runroot, container_id)),
        *cgroup_steps(cgroup.find(cgroup.detect(), f"minibox-{container_id}")),
        *(("leave_network", held.state, held.address, container_id) for held in lease.of(home.runroot, container_id)),
    ]
    if path := ids.lease_of(home.root, container_id):
        steps.append(("release_ids", path, container_id))
    return tuple(Op(name, args, "found by its id", PARENT) for name, *rest in steps for args in [tuple(rest)])


def cgroup_steps(group: Cgroup) -> list[tuple[Any, ...]]:
    """The operations that remove a cgroup, if it exists."""
    if not group.directories:
        return []
    scope = [("end_scope", os.path.dirname(group.v2))] if group.unit else []
    return [("kill_cgroup", group.labels), *(("cgroup_rmdir", path) for path in group.directories), *scope]


def remove_files_of(root: str, container_id: str) -> None:
    """Remove a container's directory and its name."""
    rootfs_setup.remove(root, container_id)
    names.drop(root, container_id, "")


def kill_ahead(names: Iterable[str], *, root: str) -> set[str]:
    """Kill the running ones of several containers before `remove` removes them by force, so that they end in parallel.

    Errors are ignored here, because `remove` raises them.

    Returns:
        The ids of the killed containers.
    """
    killed = set()
    for name in names:
        try:
            container_id = containers.find_id(root, name)
            live = containers.owner(root, container_id)
            if live and _is_begun(live):
                _kill(root, container_id, live).thaw()  # with cgroup v1 frozen processes don't die
                killed.add(container_id)
        except (MiniboxError, OSError):
            continue
    return killed


def remove(
    home: Home, name_or_id: str, *, force: bool = False, killed: Container[str] = (), durable: bool = True
) -> str:
    """Remove a container that has ended. Return its id.

    Args:
        force: if it runs, kill it first.
        killed: the ids that `kill_ahead` returned.
        durable: make sure that it stays removed after a power loss; otherwise call `keep_removed` yourself.

    Raises:
        ContainerNotFound: there is no such container.
        UsageError: it runs, and ``force`` isn't set.
    """
    container_id = containers.find_id(home.root, name_or_id)
    found = containers.read(home.root, container_id)
    if found.get("Newer") and not force:
        raise UsageError(f"container {name_or_id}: {found['Error']}", "minibox rm --force removes it anyway")
    deadline, by_us = monotonic() + GRACE_S, container_id in killed
    while (claim := ownership.Claim.of(home.root, container_id, "", remove=True)) is None:
        live = containers.owner(home.root, container_id)
        if live and not force and _is_running(live):
            hint = f"stop it first, or kill and remove it: minibox rm --force {name_or_id}"
            raise UsageError(f"container {name_or_id} is running", hint)
        # If another command is starting it, let that finish first; otherwise it would fail with a broken pipe.
        if live and force and (_is_begun(live) or monotonic() > deadline - GRACE_S + STARTING_S):
            _kill(home.root, container_id, live).kill()
            by_us = True
        if monotonic() > deadline:
            raise MiniboxError(f"container {name_or_id} is busy: another command is starting or removing it")
        sleep(POLL_S)
    there = os.path.isdir(claim.directory)
    if by_us:
        events.note_container(home.runroot, found, "kill", signal=str(SIGKILL))
    before = containers.read(home.root, container_id)
    if there and before["Status"] in containers.ALIVE:  # otherwise the "die" event was written already
        containers.note_end(home, before, containers.ended_without_owner(home.root, container_id), kept=False)
    lasting = durable and containers.is_written(home.root, container_id)
    try:
        undo_start(home, container_id, claim.undo)
        remove_files_of(home.root, container_id)
        if lasting:
            keep_removed(home.root)
    except BaseException:
        claim.release(finished=False)
        raise
    claim.release()
    if not there:  # it left only a name, for example
        raise ContainerNotFound(f"container {name_or_id!r} was removed by another command")
    events.note_container(home.runroot, found, "destroy")
    return container_id


def keep_removed(root: str) -> None:
    """Sync, so that removed containers stay removed after a power loss."""
    sync_directory(f"{root}/containers")


def _is_begun(live: Live) -> bool:
    """Does it have a process, or is its supervisor about to restart it?"""
    return live.pid > 0 or live.supervisor > 0


def _is_running(live: Live) -> bool:
    """Does it run, or is it about to be started or restarted? Otherwise its owner is cleaning up."""
    if not live.digest or live.status >= 0 or live.pid <= 0:
        return bool(live.digest) and live.status < 0
    pidfd = ownership.open_process(live)
    if pidfd < 0:
        return False
    with closing(pidfd):
        return not wait_readable(pidfd, 0)


def _kill(root: str, container_id: str, live: Live) -> cgroup.Cgroup:
    """Kill a container's first process and its supervisor, without waiting. Return its cgroup, which may have more."""
    # Kill the supervisor first, so that it doesn't clean up: the container is being removed anyway.
    pidfds = [open_pidfd(live.supervisor) if live.supervisor > 0 else -1, ownership.open_process(live)]
    owned = ownership.is_live(root, container_id)  # if the lock is still held, we opened the right pids
    for pidfd in pidfds:
        if pidfd >= 0:
            if owned:
                send_signal(pidfd, SIGKILL)
            os.close(pidfd)
    return cgroup.find(cgroup.detect(), f"minibox-{container_id}")


def all_ids(root: str) -> list[str]:
    """The ids of all containers, including those that are just being started."""
    return list(dict.fromkeys((*containers.container_ids(root), *ownership.live_ids(root))))
