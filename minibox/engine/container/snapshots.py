"""Snapshots: what a container has written, as a layer on top of its image, so that other containers can start from it.

On disk, ``root/snapshots``:

    <hex>             the snapshot's record; each process that uses it holds a shared flock on it
    <hex>.lock        locked by the process that makes a snapshot with a key, while others wait
    unfinished-<hex>  a layer that the process that holds <hex> is making

The layer itself, ``sha256:<hex>``, is stored by the storage driver. `collect` removes a snapshot that no process holds
and no container is based on.
"""

from __future__ import annotations

import fcntl
import os
from stat import S_ISREG
from weakref import WeakSet

from minibox.base import damage
from minibox.base.codec import NO_FILE_OF_OURS, FileKind, damage_of, plain
from minibox.base.files import discard, names_in, write_all
from minibox.engine.state.claim import is_id, live_ids, lock_new, read_live
from minibox.errors import Damaged, MiniboxError, NewerFormat, Unreadable, kernel_says, suppress
from minibox.image.layout.image import ResolvedImage
from minibox.linux.removal import remove_directory
from minibox.record import record
from minibox.storage.drivers import snapshotter
from minibox.storage.snapshot import DRIVERS, chain_id, driver_name, layers_in_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SNAPSHOT = FileKind(
    "frozen",
    {
        "Driver": driver_name,
        "Reference": str,
        "Digest": str,
        "ImageId": str,
        "ChainIds": [chain_id],
        "Config": dict,
    },
    before=plain,
)
OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@record
class SnapshotRecord:
    """The record of a snapshot.

    Attributes:
        id: 64 hexadecimal digits; its layer is ``sha256:`` and these digits.
        driver: the storage driver that stores the layer.
        image: the container's image with this layer on top, and the container's config.
    """

    id: str
    driver: str
    image: ResolvedImage


class HeldSnapshot:
    """A snapshot that this process holds until `close`."""

    def __init__(self, root: str, frozen: SnapshotRecord, fd: int) -> None:
        self.root, self.frozen = root, frozen
        self._fd = fd
        _held_here.add(self)

    @property
    def is_closed(self) -> bool:
        return self._fd < 0

    def close(self) -> None:
        """Let go of the snapshot. The last process to do so removes it. You can call it twice."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        _held_here.discard(self)
        os.close(fd)
        # It may also have been the last user of the snapshots below it.
        _collect(self.root, [chain_id[7:] for chain_id in reversed(self.frozen.image.chain_ids)])

    def after_fork(self) -> None:
        """Let go of the snapshot in the child after a fork."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def freeze(root: str, container_id: str, driver: str, image: ResolvedImage, snapshot_id: str = "") -> HeldSnapshot:
    """Make a snapshot of what a container has written. Nothing may write to it meanwhile.

    Args:
        image: the container's image, with the config for the snapshot.
        snapshot_id: "" to make one up.

    Raises:
        MiniboxError: the disk is full, or a file can't be read.
        Unsupported: its files were in memory, and are gone.
    """
    from minibox.engine.files.tree import open_memory

    frozen_id = snapshot_id or os.urandom(32).hex()
    chain_ids = (*image.chain_ids, f"sha256:{frozen_id}")
    whole = ResolvedImage(image.reference, image.digest, image.config, chain_ids, image.config_digest)
    frozen = SnapshotRecord(frozen_id, driver, whole)
    memory_fd = open_memory(root, container_id)
    fd = lock_new(_directory(root), frozen_id, shared=True)
    try:
        # Write the record first, so that nobody collects the new layer.
        os.ftruncate(fd, 0)
        write_all(fd, _encoded(frozen))
        place = f"{_directory(root)}/unfinished-{frozen_id}"

        def commit() -> None:
            try:
                remove_directory(place)  # a killed process may have left it
                os.mkdir(place, 0o700)
                snapshotter(root, driver).commit(container_id, chain_ids[-1], place, memory_fd)
            finally:
                remove_directory(place)

        _with_file_rights(commit)
    except OSError as error:
        os.close(fd)
        _collect(root, [frozen_id])
        where = f" ({error.filename!r})" if error.filename else ""
        raise MiniboxError(f"freeze container {container_id[:12]}{where}: {kernel_says(error)}") from error
    except BaseException:
        os.close(fd)
        _collect(root, [frozen_id])
        raise
    finally:
        if memory_fd >= 0:
            os.close(memory_fd)
    return HeldSnapshot(root, frozen, fd)


def hold(root: str, snapshot_id: str) -> HeldSnapshot | None:
    """Hold an existing snapshot. Return None if it is missing or was never finished."""
    path = f"{_directory(root)}/{snapshot_id}"
    try:
        fd = os.open(path, OPEN)
    except OSError:
        return None
    fcntl.flock(fd, fcntl.LOCK_SH)
    try:
        frozen = _read(fd, path)
        if os.fstat(fd).st_nlink and frozen:
            if frozen.image.chain_ids[-1] in snapshotter(root, frozen.driver).layers():
                return HeldSnapshot(root, frozen, fd)
    except NewerFormat:
        os.close(fd)
        raise
    except Damaged:
        pass  # the caller makes it again
    os.close(fd)
    return None


def hold_or_freeze(root: str, snapshot_id: str, make: Callable[[], HeldSnapshot]) -> HeldSnapshot:
    """Hold an existing snapshot, or make it. If several processes need it, only one makes it.

    Args:
        make: makes the snapshot with `freeze`.
    """
    if found := hold(root, snapshot_id):
        return found
    path = f"{_directory(root)}/{snapshot_id}.lock"
    lock = lock_new(_directory(root), f"{snapshot_id}.lock")
    try:
        return hold(root, snapshot_id) or make()
    finally:
        os.unlink(path)
        os.close(lock)


def collect(root: str) -> None:
    """Remove the snapshots and locks that nobody holds any more."""
    try:
        names = os.listdir(_directory(root))
    except FileNotFoundError:
        return
    if names:
        _collect(root, [name for name in names if is_id(name)])
    for name in names:
        if name.endswith(".lock"):
            _remove_lock(f"{_directory(root)}/{name}")


def _collect(root: str, ids: list[str]) -> None:
    for snapshot_id in ids:
        path = f"{_directory(root)}/{snapshot_id}"
        fd = _unheld(path)
        if fd < 0:
            continue
        try:
            drivers: tuple[str, ...] = ()
            try:
                if frozen := _read(fd, path):
                    drivers = (frozen.driver,)
            except Damaged:
                drivers = DRIVERS  # any of them may store the layer
            # Check this under the lock: a container's use is written down before the snapshot is let go.
            if is_in_use(root, snapshot_id):
                continue

            def remove(drivers: tuple[str, ...] = drivers, snapshot_id: str = snapshot_id) -> None:
                remove_directory(f"{_directory(root)}/unfinished-{snapshot_id}")
                for driver in drivers:
                    snapshotter(root, driver).remove_layer(f"sha256:{snapshot_id}")

            _with_file_rights(remove)
            discard(path)
        except (MiniboxError, OSError):
            continue  # the next command tries again
        finally:
            os.close(fd)


def is_in_use(root: str, snapshot_id: str) -> bool:
    """Is a container (even one that is being started) or another snapshot based on this snapshot?"""
    layer = f"sha256:{snapshot_id}"
    for container_id in live_ids(root):
        try:
            if layer in read_live(root, container_id).chain_ids:
                return True
        except OSError:
            continue
    if any(layer == used for _, used in layers_in_use(root)):
        return True
    return any(layer in other.image.chain_ids[:-1] for other in read_all(root)[0])


def all_snapshots(root: str) -> Iterator[tuple[SnapshotRecord, bool]]:
    """Yield all snapshots, and whether a process holds them. Report the damaged ones."""
    found, damaged = read_all(root)
    for each in damaged:
        damage.tell(each)
    for frozen in found:
        fd = _unheld(f"{_directory(root)}/{frozen.id}")
        if fd >= 0:
            os.close(fd)
        yield frozen, fd < 0


def read_all(root: str) -> tuple[list[SnapshotRecord], list[Unreadable]]:
    """All snapshots, and the errors of those whose record is damaged."""
    found: list[SnapshotRecord] = []
    damaged: list[Unreadable] = []
    for name in filter(is_id, names_in(_directory(root))):
        path = f"{_directory(root)}/{name}"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if wrong := damage_of(error, path):
                damaged.append(wrong)
            continue
        try:
            if frozen := _read(fd, path):
                found.append(frozen)
        except Unreadable as error:
            damaged.append(error)
        finally:
            os.close(fd)
    return found, damaged


def _unheld(path: str) -> int:
    """Open and lock a file that no process holds; return -1 if one does, or if it is gone. Delete what isn't a file."""
    try:
        fd = os.open(path, OPEN)
    except OSError as error:
        if error.errno in NO_FILE_OF_OURS:
            discard(path)
        return -1
    with suppress(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_nlink:
            return fd
    os.close(fd)
    return -1


def _remove_lock(path: str) -> None:
    fd = _unheld(path)
    if fd >= 0:
        os.unlink(path)
        os.close(fd)


def _with_file_rights(function: Callable[[], None]) -> None:
    """Call a function with the rights to the container's files. Without root they belong to subordinate ids, which we
    only have in a user namespace."""
    if os.geteuid() == 0:
        function()
        return
    from minibox.engine.host.user_namespace import run_inside

    run_inside(function)


def _directory(root: str) -> str:
    return f"{root}/snapshots"


def _encoded(frozen: SnapshotRecord) -> bytes:
    image = frozen.image
    fields = {
        "Driver": frozen.driver,
        "Reference": image.reference,
        "Digest": image.digest,
        "ImageId": image.config_digest,
        "ChainIds": list(image.chain_ids),
        "Config": image.config,
    }
    return SNAPSHOT.encode(fields)


def _read(fd: int, path: str) -> SnapshotRecord | None:
    """Read an open record; return None if it is still empty.

    Raises:
        Unreadable
    """
    if S_ISREG(os.fstat(fd).st_mode) and not os.fstat(fd).st_size:
        return None
    found = SNAPSHOT.read_fd(fd, path)
    if not found["ChainIds"]:
        raise Damaged(path, "it has no layers")
    names = found["Reference"], found["Digest"], found["Config"]
    image = ResolvedImage(*names, tuple(found["ChainIds"]), found["ImageId"])
    return SnapshotRecord(os.path.basename(path), found["Driver"], image)


_held_here: WeakSet[HeldSnapshot] = WeakSet()


def _after_fork() -> None:
    for each in list(_held_here):
        each.after_fork()
    _held_here.clear()


os.register_at_fork(after_in_child=_after_fork)
