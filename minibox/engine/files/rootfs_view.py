"""View a root file system from outside: the merged tree of a container or of an image's layers, read-only.

A short-lived process in a mount namespace of its own mounts the layers, with the same operations as a start, and passes
the result on as a detached mount: a descriptor that appears in no mount table and vanishes when it is closed. Not used
on the hot path.

An ordinary user with a range of ids calls this in `user_namespace.run_inside`: outside, files of the other ids aren't
readable.
"""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager

from minibox.image.layer.stack import USERS_MARKS, own_marks
from minibox.linux.process import DONE, Child, signatures
from minibox.plan import operations as op
from minibox.plan.encode import encode
from minibox.plan.namespaces import NAMESPACES
from minibox.plan.rootfs import CLONE_VM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from minibox.plan.operations import Op
    from minibox.storage.drivers import Snapshotter
    from minibox.storage.snapshot import Snapshot

OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def image_view(storage: Snapshotter, chain_ids: tuple[str, ...]) -> Iterator[int]:
    """Yield a directory descriptor of a stack of unpacked layers; ``chain_ids`` are bottom first.

    Raises:
        StepError: a mount was refused.
    """
    snapshot = storage.describe("", chain_ids)
    with _tree(storage.root, snapshot, snapshot.lowers) as fd:
        yield fd


@contextmanager
def _tree(root: str, snapshot: Snapshot, layers: tuple[str, ...]) -> Iterator[int]:
    """``layers`` are topmost first; if the snapshot is a tree, the first layer is the whole of it."""
    mount = _mounted(root, snapshot, layers)
    fd = -1
    try:
        fd = os.open(".", OPEN_DIRECTORY, dir_fd=mount)  # a mount's own descriptor (O_PATH) can't be listed
        yield fd
    finally:
        for each in (fd, mount):
            if each >= 0:
                os.close(each)


def _mounted(root: str, snapshot: Snapshot, layers: tuple[str, ...]) -> int:
    """Return the descriptor of a detached, read-only mount of ``layers`` as one."""
    if snapshot.kind == "tree":
        steps = [
            op.open_tree(layers[0], op.ROOT, "make the tree a mount of its own"),
            op.mount_attributes(op.ROOT, "it is only read", set_=op.RDONLY),
        ]
    else:
        steps = stage(root, snapshot, layers)
        # An overlay needs two layers; without it, a single layer's whiteouts would show.
        steps.append(op.mkdir(op.HOST, f"{root}/tmp/none", "an empty second layer"))
        steps += overlay(root, f"lowerdir={':'.join(map(str, range(len(layers))))}:none")
    return detached([*steps, op.send_fd(op.CHANNEL, op.ROOT, 0, "pass it to the reader")])


def detached(steps: list[Op]) -> int:
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


def stage(root: str, snapshot: Snapshot, layers: tuple[str, ...]) -> list[Op]:
    """Mount layers, topmost first, on ``root``/tmp/0, 1 and so on, visible to these steps only."""
    path = f"{root}/tmp"
    os.makedirs(path, 0o700, exist_ok=True)
    steps = [op.mount("tmpfs", op.HOST, path, "a place to put the layers together", source="minibox")]
    for number, layer in enumerate(layers):
        image = snapshot.kind == "erofs" and layer != snapshot.upper
        steps.append((op.open_image if image else op.open_tree)(layer, op.SCRATCH, "a layer"))
        steps.append(op.attach(op.SCRATCH, op.HOST, f"{path}/{number}", "under a short name"))
    return steps


def overlay(root: str, options: str) -> list[Op]:
    """Mount the layers that `stage` has mounted as one; `operations.ROOT` is the mount."""
    options += ",userxattr" if own_marks() == USERS_MARKS else ",metacopy=off,redirect_dir=off"
    return [
        op.mkdir(op.HOST, f"{root}/tmp/root", "mount point of the merged tree"),
        op.mount_overlay(f"{root}/tmp", options, "root", "merge the layers into one tree"),
        op.open_tree(f"{root}/tmp/root", op.ROOT, "detach it, to pass it on"),
    ]
