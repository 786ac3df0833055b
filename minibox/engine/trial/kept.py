"""Trials that have ended: what each changed, until it is applied or discarded.

On disk under ``root/trials/<name>``: ``trial`` (the record below), ``upper`` and ``parts``, as in the container's
directory that it was.
"""

from __future__ import annotations

import os
import stat
from typing import Any

from minibox.base import damage
from minibox.base.codec import FileKind
from minibox.base.files import names_in
from minibox.base.shape import path_part
from minibox.engine.trial.changes import IDENTITY, Found, Overlays
from minibox.engine.trial.host_tree import HostTree, Part
from minibox.errors import ContainerNotFound, Damaged, Unreadable
from minibox.linux.removal import remove_directory
from minibox.record import record, replace

RECORD = "trial"
_CHANGE = {"Kind": str, "Path": str, "Part": int, "Mode": int, "Bytes": int, "Before": [int], "Privilege": str}
TRIAL = FileKind(
    RECORD,
    {
        "Command": [str],
        "Over": str,
        "Began": int,
        "Status": int,
        "Parts": [{"Path": str, "Lower": str}],
        "Changes": [_CHANGE],
    },
)


@record
class Trial:
    """A command that has ended, and its changes.

    Attributes:
        name: of the trial; "" before it is kept.
        directory: where its overlays' upper directories are.
        command: what was run.
        began_ns: when it started, in the kernel's coarse time, which stamps files; clock_gettime(2).
        status: its exit status.
        found: its changes, sorted by path.
    """

    name: str
    directory: str
    tree: HostTree
    command: tuple[str, ...]
    began_ns: int
    status: int
    found: tuple[Found, ...]

    def overlays(self) -> Overlays:
        """Open its overlays, to read new files."""
        return Overlays(self.tree, self.directory)


def write(trial: Trial) -> None:
    """Write a trial's record into its directory.

    Raises:
        OSError: the disk is full.
    """
    TRIAL.write(
        f"{trial.directory}/{RECORD}",
        {
            "Command": list(trial.command),
            "Over": trial.tree.over,
            "Began": trial.began_ns,
            "Status": trial.status,
            "Parts": [{"Path": part.path, "Lower": part.lower} for part in trial.tree.parts],
            "Changes": [_change(each) for each in trial.found],
        },
    )


def _change(found: Found) -> dict[str, Any]:
    return {
        "Kind": found.kind,
        "Path": found.path,
        "Part": found.part,
        "Mode": found.mode,
        "Bytes": found.size_bytes,
        "Before": list(found.before or ()),
        "Privilege": found.privilege,
    }


def place(root: str, name: str) -> str:
    """Return the directory of a kept trial."""
    return f"{root}/trials/{name}"


def names(root: str) -> list[str]:
    """Return the names of all kept trials."""
    return names_in(f"{root}/trials")


def all_kept(root: str) -> list[Trial]:
    """Return all kept trials. One that is damaged is reported (`base.damage`) and left out."""
    found = []
    for name in names(root):
        try:
            found.append(read(root, name))
        except Unreadable as error:
            damage.tell(error)
    return found


def read(root: str, name: str) -> Trial:
    """Read a kept trial.

    Raises:
        ContainerNotFound: there is none of that name.
        Unreadable: its record is damaged, or was never written.
    """
    _check(root, name)
    directory = place(root, name)
    path, hint = f"{directory}/{RECORD}", f"minibox tried {name} --discard removes it"
    try:
        fields = TRIAL.read(path)
    except FileNotFoundError:
        raise Damaged(path, "it was never written", hint) from None
    except Damaged as error:
        error.hint = hint
        raise
    parts = tuple(Part(each["Path"], each["Lower"]) for each in fields["Parts"])
    found = tuple(_found(each) for each in fields["Changes"])
    tree = HostTree(fields["Over"], parts)
    return Trial(name, directory, tree, tuple(fields["Command"]), fields["Began"], fields["Status"], found)


def _check(root: str, name: str) -> None:
    if not path_part(name) or name not in names(root):
        raise ContainerNotFound(f"no such trial: {name!r}", "minibox tried lists those that are kept")


def _found(fields: dict[str, Any]) -> Found:
    before = tuple(fields["Before"])
    return Found(
        fields["Kind"],
        fields["Path"],
        fields["Part"],
        fields["Mode"],
        fields["Bytes"],
        before if len(before) == len(IDENTITY) else None,
        fields["Privilege"],
    )


def keep(root: str, trial: Trial) -> Trial:
    """Keep a trial whose container is about to be removed; return it as it is then.

    Raises:
        OSError: the kernel refused.
    """
    name = os.path.basename(trial.directory)[:12]
    target = place(root, name)
    os.makedirs(target, 0o700)
    for part in ("upper", "parts", "skeleton"):
        if os.path.exists(f"{trial.directory}/{part}"):
            _move(f"{trial.directory}/{part}", f"{target}/{part}")
    moved = replace(trial, name=name, directory=target)
    write(moved)
    return moved


def _move(path: str, target: str) -> None:
    """Rename a directory, for which the kernel wants the right to write in it."""
    mode = stat.S_IMODE(os.stat(path).st_mode)
    os.chmod(path, mode | 0o700)
    os.rename(path, target)
    os.chmod(target, mode)


def discard(root: str, name: str) -> None:
    """Remove a kept trial, even if its record is damaged.

    Raises:
        ContainerNotFound: there is none of that name.
        StoreError: the kernel refused.
    """
    _check(root, name)
    remove_directory(place(root, name))
