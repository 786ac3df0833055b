"""Mount the root file system of a container that isn't running as its processes saw it, so that `cp` can write to it.

A short-lived process mounts it in a mount namespace of its own, with the same operations as a start, and hands over a
detached mount: a descriptor that appears in no mount table and vanishes when it is closed.
"""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager

from minibox.base.files import closing
from minibox.engine.spec.compile import FILES
from minibox.image.layer.stack import USERS_MARKS, own_marks
from minibox.linux.process import DONE, Child, signatures
from minibox.plan import operations as op
from minibox.plan.encode import encode
from minibox.plan.namespaces import NAMESPACES
from minibox.plan.operations import Op
from minibox.plan.rootfs import CLONE_VM
from minibox.storage.drivers import snapshotter
from minibox.storage.snapshot import Snapshot, container_directory, lost_memory, memory_of, read_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any


WHOLE = op.FIRST_BIND  # slot of the root with its mounts


@contextmanager
def writable_root(root: str, key: str, mounts: Sequence[dict[str, Any]], *, read_only: bool) -> Iterator[int]:
    """Yield a directory descriptor of a container's root with its bind mounts, volumes, and its /etc/hosts,
    /etc/hostname and /etc/resolv.conf. The container must not be running.

    Files have their owners on disk, which are the image's own.

    Args:
        mounts: from the container's state: ``Source``, ``Destination`` and ``ReadOnly``; a missing source is left out.
        read_only: mount the root read-only, but not the mounts in it.

    Raises:
        StepError: a mount was refused.
        Unsupported: the container's layer was in memory and is lost.
    """
    if memory_of(root, key):
        raise lost_memory(key)
    found = read_record(root, key)
    assert found is not None, "the caller has found its tree"
    snapshot = snapshotter(root, found[0]).describe(key, found[1])
    taken = {mount["Destination"] for mount in mounts}
    files = [
        {"Source": f"{container_directory(root, key)}/{file}", "Destination": path, "ReadOnly": read_only}
        for path, file in FILES.items()
        if path not in taken
    ]
    with closing(_detached(_steps(root, snapshot, [*mounts, *files], read_only))) as fd:
        yield fd


@contextmanager
def readable_layers(root: str, driver: str, chain_ids: tuple[str, ...]) -> Iterator[int]:
    """Yield a directory descriptor of the root file system that unpacked layers make, read-only.

    Files have their owners on disk, which are the image's own.

    Raises:
        StepError: a mount was refused.
    """
    snapshot = snapshotter(root, driver).describe("none", chain_ids)
    layers = snapshot.lowers[:1] if snapshot.kind == "tree" else snapshot.lowers
    steps = _stage(root, snapshot, layers)
    if len(layers) == 1:
        steps.append(op.open_tree(f"{root}/tmp/0", op.ROOT, "the only layer"))
    else:
        steps += _overlay(root, f"lowerdir={':'.join(str(number) for number in range(len(layers)))}")
    steps.append(op.mount_attributes(op.ROOT, "layers never change", set_=op.RDONLY))
    fd = _detached([*steps, op.send_fd(op.CHANNEL, op.ROOT, 0, "pass it to the process that reads")])
    try:
        yield fd
    finally:
        os.close(fd)


def _steps(root: str, snapshot: Snapshot, mounts: Sequence[dict[str, Any]], read_only: bool) -> list[Op]:
    place = f"{root}/tmp"
    if snapshot.kind == "tree":
        steps = _stage(root, snapshot, ())
        steps.append(op.open_tree(snapshot.upper, op.ROOT, "make the tree a mount of its own"))
    else:
        steps = _stage(root, snapshot, snapshot.lowers)
        steps.append(op.open_tree(os.path.dirname(snapshot.upper), op.SCRATCH, "the container's own layer"))
        steps.append(op.attach(op.SCRATCH, op.HOST, f"{place}/rw", "under a short name"))
        layers = ":".join(str(number) for number in range(len(snapshot.lowers)))
        steps += _overlay(root, f"lowerdir={layers},upperdir=rw/upper,workdir=rw/work")
    if read_only:
        steps.append(op.mount_attributes(op.ROOT, "the container was run with --read-only", set_=op.RDONLY))
    steps.append(op.mkdir(op.HOST, f"{place}/whole", "mount point of the whole tree"))
    steps.append(op.attach(op.ROOT, op.HOST, f"{place}/whole", "attach it, to mount in it"))
    for mount in mounts:
        if os.path.exists(mount["Source"]):
            attributes = op.RDONLY if mount["ReadOnly"] else 0
            why = "the container's own mount"
            steps.append(op.bind(mount["Source"], mount["Destination"], why, attributes=attributes, recursive=True))
    steps.append(op.open_tree(f"{place}/whole", WHOLE, "take it with its mounts", recursive=True))
    return [*steps, op.send_fd(op.CHANNEL, WHOLE, 0, "pass it to the process that copies")]


def _detached(steps: list[Op]) -> int:
    """Run ``steps`` in a mount namespace of their own; the last one sends a mount through `operations.CHANNEL`.

    Returns:
        The mount's descriptor; the mount belongs to no namespace any more.

    Raises:
        StepError: a step failed.
    """
    flags, first = CLONE_VM | NAMESPACES["mount"], [op.die_with_parent("it must not outlive minibox")]
    if os.geteuid():
        flags |= NAMESPACES["user"]
        first += _map_one_id()
    first.append(op.propagation("/", op.MS_REC | op.MS_PRIVATE, "keep our mounts off the host"))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            _run([*first, *steps], flags, theirs.fileno())
        _, fds, *_ = socket.recv_fds(ours, 8, 1, socket.MSG_CMSG_CLOEXEC)
    return fds[0]


def _run(steps: list[Op], flags: int, channel: int) -> None:
    try:
        child = Child(encode(steps, signatures()), flags, [channel, channel], len(steps))
    except OSError as error:
        from minibox.plan.explain import clone_error

        raise clone_error(error, flags) from error
    try:
        state, index, errno, _ = child.progress()
    finally:
        child.close()
    if state != DONE:
        from minibox.plan.explain import step_error

        raise step_error(index, len(steps), steps[index], errno)


def _map_one_id() -> list[Op]:
    """Make an ordinary user root of a user namespace that has only the user's own id."""
    return [
        op.write_proc(
            op.HOST, f"/proc/self/{file}", text.encode(), "an ordinary user can mount only as root of a namespace"
        )
        for file, text in (
            ("setgroups", "deny"),
            ("uid_map", f"0 {os.geteuid()} 1"),
            ("gid_map", f"0 {os.getegid()} 1"),
        )
    ]


def _stage(root: str, snapshot: Snapshot, layers: Sequence[str]) -> list[Op]:
    """Mount layers, topmost first, on ``root``/tmp/0, 1 and so on, visible to these steps only."""
    path = f"{root}/tmp"
    os.makedirs(path, 0o700, exist_ok=True)
    steps = [op.mount("tmpfs", op.HOST, path, "a place to put the layers together", source="minibox")]
    for number, layer in enumerate(layers):
        steps.append((op.open_image if snapshot.kind == "erofs" else op.open_tree)(layer, op.SCRATCH, "a layer"))
        steps.append(op.attach(op.SCRATCH, op.HOST, f"{path}/{number}", "under a short name"))
    return steps


def _overlay(root: str, options: str) -> list[Op]:
    """Mount the layers that `_stage` has mounted as one; `operations.ROOT` is the mount."""
    options += ",userxattr" if own_marks() == USERS_MARKS else ",metacopy=off,redirect_dir=off"
    return [
        op.mkdir(op.HOST, f"{root}/tmp/root", "mount point of the merged tree"),
        op.mount_overlay(f"{root}/tmp", options, "root", "merge the layers into one tree"),
        op.open_tree(f"{root}/tmp/root", op.ROOT, "detach it, to pass it on"),
    ]
