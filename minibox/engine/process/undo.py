"""The end of a container as data: the operations that undo what its start has made, and the one function that executes them.

`minibox.plan.parent` says of each operation of a start what undoes it. The list is written down before the first of
them is executed, and goes when all of it is done: for one of minibox's own as a line of its owner's file
(`engine.state.live_file`), for one of an OCI engine's in its state.json. Nothing else undoes anything.
"""

from __future__ import annotations

from minibox.base.codec import FileKind
from minibox.base.files import discard
from minibox.base.operation import PARENT, Op
from minibox.errors import Damaged, MiniboxError, Unreadable
from minibox.linux.cgroup.group import Cgroup, of_labels
from minibox.plan.parent import OPERATIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

MORE = "updated"  # what `update` and `network connect` have given it
#: Those that others wait for: they are done at once even where the rest is left for later.
AT_ONCE = ("leave_network", "remove_file")
#: Those of a start that has failed: a container that has run took along what they would give back.
OF_FAILED = ("return_device",)


#: A list, as one line.
LIST = FileKind("undo", {"Steps": [{"Operation": str, "Arguments": [object]}]}, indented=False, empty={"Steps": []})
ARGUMENTS = {"s": (str,), "z": (str, type(None)), "u": (int,), "v": (tuple,)}


def fields_of(steps: Iterable[Op]) -> list[dict[str, Any]]:
    """A list as JSON has it, without what only a start that has failed undoes."""
    kept = (step for step in steps if step.name not in OF_FAILED)
    return [{"Operation": step.name, "Arguments": list(step.args)} for step in kept]


def encode(steps: Iterable[Op]) -> bytes:
    """A list as a line: `decode` is the way back."""
    return LIST.encode({"Steps": fields_of(steps)})


def decode(data: bytes, path: str) -> tuple[Op, ...]:
    """What `encode` was given.

    Raises:
        Unreadable: it is damaged, or a newer minibox's.
    """
    return steps_of(LIST.decode(data, path)["Steps"], path)


def steps_of(fields: list[dict[str, Any]], path: str) -> tuple[Op, ...]:
    """What `fields_of` was given.

    Raises:
        Damaged: there is no such operation, or it has other arguments.
    """
    found = []
    for each in fields:
        name, given = each["Operation"], each["Arguments"]
        args = tuple(tuple(word) if isinstance(word, list) else word for word in given)
        kinds = OPERATIONS[name][1] if name in UNDO else None
        if kinds is None or len(kinds) != len(args) or not all(map(_is_of, args, kinds)):
            raise Damaged(path, f"{name!r} with {len(args)} arguments undoes nothing")
        found.append(Op(name, args, "written down before the start", PARENT))
    return tuple(found)


def _is_of(value: object, kind: str) -> bool:
    words = value if isinstance(value, tuple) else ()
    return isinstance(value, ARGUMENTS[kind]) and all(isinstance(word, str) for word in words)


def read_more(directory: str) -> tuple[Op, ...]:
    """What came to a container since its start, in a file of its directory; nothing where that can't be read."""
    try:
        return steps_of(LIST.read(f"{directory}/{MORE}")["Steps"], directory)
    except (OSError, Unreadable):
        return ()


def write_more(directory: str, steps: Iterable[Op]) -> None:
    """Add to it, before they are done; the caller holds the lock of the directory."""
    before = read_more(directory)
    once = {(step.name, step.args): step for step in (*before, *steps)}
    LIST.write(f"{directory}/{MORE}", {"Steps": fields_of(once.values())})


def undo(ops: Iterable[Op]) -> Exception | None:
    """Execute what undoes a start, all of it, whichever fails; the first failure. Twice is fine."""
    failure: Exception | None = None
    for step in ops:
        try:
            UNDO[step.name](*step.args)
        except (MiniboxError, OSError) as error:
            failure = failure or error
    return failure


def _remove_file(path: str) -> None:
    try:
        discard(path)
    except NotADirectoryError:
        pass


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

    members.leave_at(state, address, container_id, ended=True)


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
