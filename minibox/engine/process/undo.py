"""The end of a container as data: the operations that undo its start, and the one function that executes them.

`minibox.plan.parent` says how to undo each operation of a start. The list is written down before the start's first
operation, and deleted when all of it is done. For minibox's own containers it is a line of the live file
(`engine.state.live_file`), for OCI containers it is in state.json. Nothing else undoes a start.
"""

from __future__ import annotations

from minibox.base.files import discard
from minibox.base.operation import PARENT, Op
from minibox.errors import Damaged, MiniboxError, suppress
from minibox.linux.cgroup.group import Cgroup, of_labels
from minibox.plan.parent import OPERATIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

#: Operations that other containers may wait for: done at once, even if the rest is left for later.
AT_ONCE = ("leave_network", "remove_file")
#: Operations only for a start that failed. What they give back is gone once the container has run.
OF_FAILED = ("return_device",)
ARGUMENTS = {"s": (str,), "z": (str, type(None)), "u": (int,), "v": (tuple,)}


def fields_of(steps: Iterable[Op]) -> list[dict[str, Any]]:
    """Convert a list to JSON, without the operations that only a failed start needs."""
    kept = (step for step in steps if step.name not in OF_FAILED)
    return [{"Operation": step.name, "Arguments": list(step.args)} for step in kept]


def steps_of(fields: list[dict[str, Any]], path: str, container_id: str = "") -> tuple[Op, ...]:
    """Convert a list of `fields_of` back.

    Args:
        container_id: the container that the list is for, if each of its operations has the id in an argument.

    Raises:
        Damaged: an operation is unknown, its arguments are wrong, or it is for another container.
    """
    found = []
    for each in fields:
        name, given = each["Operation"], each["Arguments"]
        args = tuple(tuple(word) if isinstance(word, list) else word for word in given)
        kinds = OPERATIONS[name][1] if name in UNDO else None
        if kinds is None or len(kinds) != len(args) or not all(map(_is_of, args, kinds)):
            raise Damaged(path, f"{name!r} with {len(args)} arguments is not an undo operation")
        if not _is_for(container_id, args):
            raise Damaged(path, f"{name!r} is for another container")
        found.append(Op(name, args, "written down before the start", PARENT))
    return tuple(found)


def _is_of(value: object, kind: str) -> bool:
    if not isinstance(value, ARGUMENTS[kind]):
        return False
    if isinstance(value, int):
        return 0 <= value < 1 << 64
    words = (value,) if isinstance(value, str) else value if isinstance(value, tuple) else ()
    return all(isinstance(word, str) and "\0" not in word for word in words)


def _is_for(container_id: str, args: tuple[Any, ...]) -> bool:
    """Does an argument have the container's id? A list must not remove, nor kill, what belongs to others."""
    for each in args:
        if isinstance(each, tuple):
            return all(container_id in word for word in each)
    return any(container_id in each for each in args if isinstance(each, str))


def undo(ops: Iterable[Op]) -> Exception | None:
    """Execute all operations, even if some fail. Return the first failure. You can call it twice."""
    failure: Exception | None = None
    for step in ops:
        try:
            UNDO[step.name](*step.args)
        except (MiniboxError, OSError) as error:
            failure = failure or error
    return failure


def _remove_file(path: str) -> None:
    with suppress(NotADirectoryError):
        discard(path)


def _kill_cgroup(labels: tuple[str, ...]) -> None:
    group = of_labels(labels)
    if group.pids():
        group.kill()


def _end_cgroup(path: str) -> None:
    _kill_cgroup((f":{path}",))
    _remove_cgroup(path)


def _remove_cgroup(path: str) -> None:
    Cgroup("", {}, path).remove()


def _end_scope(path: str) -> None:
    from minibox.linux.cgroup.systemd import HeldScope

    HeldScope(path).close()


def _release_ids(path: str, container_id: str) -> None:
    from minibox.engine.host.ids import release_slot

    release_slot(path, container_id)


def _leave_network(state: str, address: str, container_id: str) -> None:
    from minibox.network import members

    members.leave_at(state, address, container_id)


def _return_device(device: str, name: str, netns: str | None) -> None:
    from minibox.network.devices import move_back

    if netns:
        move_back(device, name, netns)


def _unmount_root(rootfs: str, namespace: str | None, dev: int, ino: int, mount_id: int) -> None:
    from minibox.engine.process.shared_root import unmount

    unmount(rootfs, namespace, dev, ino, mount_id)


UNDO: dict[str, Callable[..., Any]] = {
    "release_ids": _release_ids,
    "leave_network": _leave_network,
    "remove_file": _remove_file,
    "kill_cgroup": _kill_cgroup,
    "cgroup_rmdir": _remove_cgroup,
    "end_cgroup": _end_cgroup,
    "end_scope": _end_scope,
    "return_device": _return_device,
    "unmount_root": _unmount_root,
}
