"""Mount the root file system of a container that isn't running as its processes saw it, so that `cp` can write to it.

As in `minibox.engine.files.rootfs_view`, the mounts are detached: they appear in no mount table and vanish with the
descriptor.
"""

from __future__ import annotations

import os
from contextlib import contextmanager

from minibox.engine.files.rootfs_view import detached, overlay, stage
from minibox.engine.spec.compile import FILES
from minibox.plan import operations as op
from minibox.storage.drivers import snapshotter
from minibox.storage.snapshot import container_directory, lost_memory, memory_of, read_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from minibox.plan.operations import Op
    from minibox.storage.snapshot import Snapshot

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
    fd = detached(_steps(root, snapshot, [*mounts, *files], read_only))
    try:
        yield fd
    finally:
        os.close(fd)


def _steps(root: str, snapshot: Snapshot, mounts: Sequence[dict[str, Any]], read_only: bool) -> list[Op]:
    place = f"{root}/tmp"
    if snapshot.kind == "tree":
        steps = stage(root, snapshot, ())
        steps.append(op.open_tree(snapshot.upper, op.ROOT, "make the tree a mount of its own"))
    else:
        steps = stage(root, snapshot, snapshot.lowers)
        steps.append(op.open_tree(os.path.dirname(snapshot.upper), op.SCRATCH, "the container's own layer"))
        steps.append(op.attach(op.SCRATCH, op.HOST, f"{place}/rw", "under a short name"))
        layers = ":".join(str(number) for number in range(len(snapshot.lowers)))
        steps += overlay(root, f"lowerdir={layers},upperdir=rw/upper,workdir=rw/work")
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
