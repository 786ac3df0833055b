"""Containers on disk: ``root/containers/<id>/`` has state.json beside upper, work, hosts and so on.

A container of ``run --rm`` has no state.json, only the live file that its owner writes.
"""

from __future__ import annotations

import os

from minibox.base import damage
from minibox.base.files import closing, names_in, sync_directory
from minibox.engine.state import events, names
from minibox.engine.state.claim import is_id, is_live, live_ids, read_live, read_owner
from minibox.engine.state.live_file import live_path
from minibox.errors import ContainerNotFound, Damaged, NewerFormat, Unreadable, kernel_says, suppress
from minibox.linux.process import SIGKILL, parent_of
from minibox.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from minibox.base.codec import FileKind
    from minibox.base.home import Home
    from minibox.engine.state.live_file import Live


#: What the end of a container changes in its state.json.
OF_THE_END = (
    "Status", "Pid", "ExitCode", "Signal", "TimedOut", "Relayed", "LogLost", "OOMKilled", "OOMKills", "OOMEnded", "Refused",
    "DiskFull", "MemoryPeak", "CpuTime", "Finished",
)  # fmt: skip
ALIVE = ("running", "paused", "restarting")
SUPERVISOR = b"minibox-supervisor"
DAMAGED = "damaged"  # the Status of a container whose state.json can't be read


def write(root: str, state: dict[str, Any], *, durable: bool = False) -> None:
    """Replace state.json. A reader sees either the old or the new file.

    Args:
        durable: sync it, so that the new file survives a power loss.
    """
    _format().write(state_path(root, state["Id"]), state, durable=durable)
    if durable:
        sync_directory(f"{root}/containers")  # the container's directory may be new


def _format() -> FileKind:
    from minibox.engine.state.state_format import CONTAINER  # a container of `run --rm` has no such file

    return CONTAINER


def state_path(root: str, container_id: str) -> str:
    """The path of a container's state.json."""
    return f"{root}/containers/{container_id}/state.json"


def change(
    root: str,
    container_id: str,
    changed: Callable[[dict[str, Any]], dict[str, Any] | None],
    *,
    durable: bool = False,
) -> None:
    """Change state.json under a lock, so that no concurrent change is lost. A newer minibox's file stays as it is.

    Args:
        changed: called with the state; returns the new one, or None to write nothing.

    Raises:
        ContainerNotFound: it was removed meanwhile.
    """
    from minibox.base.lock import Lock

    try:
        with Lock(f"{root}/containers/{container_id}"):
            found = read(root, container_id)
            after = None if found.get("Newer") else changed(found)
            if after is not None:
                write(root, after, durable=durable)
    except FileNotFoundError:
        raise ContainerNotFound(f"container {container_id[:12]!r} was removed") from None


def note_end(
    home: Home,
    container: Mapping[str, Any],
    how: Mapping[str, Any],
    *actions: str,
    kept: bool = True,
    then: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    durable: bool = True,
) -> None:
    """Write down how a container ended: change its state, then write the events "oom" and "die".

    Its owner writes the exit status into the live file before, as soon as the first process has ended.

    Args:
        container: its state before the end, or as much of it as the events need.
        how: the members of its state that say how it ended.
        actions: events to write after these.
        kept: its files stay; otherwise it has no state to change.
        then: called with the new state; returns the one to write.
    """
    if kept:

        def changed(found: dict[str, Any]) -> dict[str, Any]:
            return then({**found, **how, "Status": "exited", "Pid": 0})

        change(home.root, container["Id"], changed, durable=durable)
    ends: tuple[str, ...] = ("oom", "die") if how.get("OOMKilled") else ("die",)
    if container.get("Status") == "restarting":
        ends = ()  # it waited for its restart: its end was told already
    events.note_container(home.runroot, container, *ends, *actions, exitCode=str(how["ExitCode"]))


def is_written(root: str, container_id: str) -> bool:
    """Does the container have a state.json? One of ``run --rm``, or one that never started, has none."""
    return os.path.exists(f"{root}/containers/{container_id}/state.json")


def read(root: str, container_id: str) -> dict[str, Any]:
    """Read the state of a container. If the file is damaged, the state says so.

    A container whose state says that it runs, but that has no owner, has ended: its owner was killed or the machine
    went down.
    """
    found = _read(root, container_id)
    if found["Status"] in ALIVE and not is_live(root, container_id):
        found = _read(root, container_id)  # the owner may have written the end just now
        if found["Status"] in ALIVE and is_written(root, container_id):
            found |= {"Status": "exited", "Pid": 0, **ended_without_owner(root, container_id)}
        elif found["Status"] in ALIVE and os.path.isdir(f"{root}/containers/{container_id}"):
            found |= {"Status": DAMAGED, "Error": "it was killed before it had a state.json"}
    return found


def read_with_file(root: str, container_id: str) -> tuple[dict[str, Any], os.stat_result]:
    """Read a container's state.json, and which file that is. A change replaces the file.

    Raises:
        Unreadable, OSError: it can't be read.
    """
    path = state_path(root, container_id)
    with closing(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as fd:
        return _format().read_fd(fd, path), os.fstat(fd)


def unended(state: dict[str, Any]) -> str:
    """Return the text of a state.json but for what the end adds, for C to add it (``native/parent/end.c``)."""
    known = {name: value for name, value in state.items() if name not in OF_THE_END}
    return _format().encode(known).decode().removesuffix("\n}\n")


def ended_without_owner(root: str, container_id: str) -> dict[str, Any]:
    """How a container ended whose owner is gone."""
    from minibox.engine.state.exit_record import read_exit

    return read_exit(root, container_id) or {"ExitCode": 128 + SIGKILL, "OwnerKilled": True}


def _read(root: str, container_id: str) -> dict[str, Any]:
    state: dict[str, Any] = {"Id": container_id, "Name": "", "Image": "", "Command": []}
    try:
        return {**state, **_format().read(state_path(root, container_id))}
    except (FileNotFoundError, NotADirectoryError):
        return _without_file(root, container_id)
    except NewerFormat as error:
        state |= {"Newer": True, "Error": f"its state.json {error.reason}"}
    except Damaged as error:
        state["Error"] = f"its state.json can't be read: {error.why}"
    except OSError as error:
        state["Error"] = f"its state.json can't be read: {kernel_says(error)}"
    return {**state, "Name": names.given(root, container_id) or names.default_name(container_id), "Status": DAMAGED}


def damage_of(root: str, container_id: str) -> Unreadable | None:
    """The error of reading a container's state.json; None if it can be read."""
    try:
        _format().read(state_path(root, container_id))
    except Damaged as error:
        error.hint = f"minibox rm {container_id[:12]} removes it, minibox system check --repair keeps its files"
        return error
    except NewerFormat as error:
        return error
    except OSError:
        pass
    return None


def owner(root: str, container_id: str) -> Live | None:
    """Like `claim.read_owner`, but if the live file is damaged, take the process from state.json.

    Check its cgroup, since the pid may belong to another process by now.
    """
    live = read_owner(root, container_id)
    if live is None or live.pid > 0 or live.status >= 0 or (live.supervisor and not live.damage):
        return live
    try:
        found = _format().read(state_path(root, container_id))
        if found["Status"] not in ("running", "paused"):
            return live
        pid = int(found.get("Pid", 0))
        with open(f"/proc/{pid}/cgroup", "rb") as file:
            if f"minibox-{container_id}".encode() not in file.read():
                return live
    except (OSError, Unreadable):
        return live
    path = live_path(root, container_id)
    wrong = live.damage or Damaged(path, "it names no process", "minibox restart rewrites it")
    return replace(live, pid=pid, supervisor=_supervisor_of(pid, container_id), damage=wrong)


def _supervisor_of(pid: int, container_id: str) -> int:
    """The pid of the supervisor: the parent of a container's first process, if its command line says so; else 0.

    If the supervisor has died, the parent may be any process: process 1, or the user's own shell.
    """
    parent = parent_of(pid)
    try:
        with open(f"/proc/{parent}/cmdline", "rb") as file:
            name, _, its_id = file.read(64).replace(b"\0", b" ").partition(b" ")
        ours = os.stat(f"/proc/{parent}").st_uid == os.geteuid()
    except OSError:
        return 0
    its_id = its_id.strip()
    named = name == SUPERVISOR and len(its_id) >= 12 and container_id.encode().startswith(its_id)
    return parent if ours and named else 0


def _without_file(root: str, container_id: str) -> dict[str, Any]:
    """The state of a container of `run --rm`, which has no state.json."""
    name = names.given(root, container_id) or names.default_name(container_id)
    state: dict[str, Any] = {"Id": container_id, "Name": name, "Image": "", "Command": [], "Status": "running"}
    with suppress(OSError):  # it is ending right now
        live = read_live(root, container_id)
        state |= {"Image": live.reference, "ImageDigest": live.digest, "ImageId": live.image_id}
        state |= {"Command": list(live.command), "Created": os.stat(f"{root}/live/{container_id}").st_mtime}
    return state


def container_ids(root: str) -> list[str]:
    """The ids of all containers that have files, in no particular order."""
    return [name for name in names_in(f"{root}/containers") if is_id(name)]


def containers(root: str) -> list[dict[str, Any]]:
    """The states of all containers that have files, in no particular order. Report the damaged ones."""
    found = [read(root, container_id) for container_id in container_ids(root)]
    for each in found:
        if each["Status"] == DAMAGED and (wrong := damage_of(root, each["Id"])):
            damage.tell(wrong)
    return found


def find(root: str, name_or_id: str) -> dict[str, Any]:
    """Find a container by its name, its id or the beginning of its id.

    Raises:
        ContainerNotFound: there is none, or more than one.
    """
    return read(root, find_id(root, name_or_id))


def find_id(root: str, name_or_id: str) -> str:
    """Like `find`, but return only the id, mostly without reading any state.json."""
    found = [names.holder(root, name_or_id) or (name_or_id if is_id(name_or_id) else "")]
    if not found[0] or names.is_gone(root, found[0]):
        ids = [*{*container_ids(root), *live_ids(root)}]
        found = [each for each in ids if each == name_or_id]
        # A made-up name is a function of the id, but the container may have been renamed.
        found = found or [each for each in ids if names.default_name(each) == name_or_id]
        found = [each for each in found if name_or_id in (each, read(root, each)["Name"])]
        found = found or [each for each in ids if name_or_id and each.startswith(name_or_id)]
    if len(found) > 1:
        some = ", ".join(sorted(each[:12] for each in found)[:4]) + (", ..." if len(found) > 4 else "")
        raise ContainerNotFound(f"container {name_or_id!r} is ambiguous", f"write more of its id: {some}")
    if not found:
        raise ContainerNotFound(f"there is no container {name_or_id!r}", "minibox ps --all lists all containers")
    return found[0]
