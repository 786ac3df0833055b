"""A new named volume begins with what the image has where it is mounted, as Docker does it.

The layers are merged by hand, bottom first: mounting them would need a mount namespace for some
files that are copied once. A whiteout, a character device 0:0, hides the name below it and an opaque
directory all names below; https://docs.kernel.org/filesystems/overlayfs.html. No symlink is followed
by the kernel here: each part of a path is looked at first.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from errno import EEXIST, ENOTEMPTY
from stat import S_IMODE, S_ISCHR, S_ISDIR, S_ISLNK, S_ISREG

from minibox.errors import StoreError, kernel_says

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from minibox.storage import Snapshot, Snapshotter

OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
OVERLAY_ATTRIBUTES = ("trusted.overlay.", "user.overlay.")
SYMLINKS_MAX = 40  # path_resolution(7)
CHUNK = 1 << 20


@contextmanager
def opened(storage: Snapshotter, snapshot: Snapshot) -> Iterator[tuple[str, ...]]:
    """Paths of the directories of a snapshot's layers, topmost first: of descriptors, as images have no others."""
    fds: list[int] = []
    try:
        for lower in snapshot.lowers:
            fds.append(storage.open_lower(lower))
        yield tuple(f"/proc/self/fd/{fd}/." for fd in fds)
    finally:
        for fd in fds:
            os.close(fd)


def make_volume(path: str, lowerdirs: tuple[str, ...], destination: str, *, durable: bool = False) -> None:
    """Make the volume directory ``path``; one that is there and has something in it is left as it is.

    Args:
        lowerdirs: of the image, topmost first; () for a volume that begins empty.
        destination: where the container will see it, absolute and normalised.
        durable: after a power loss too it is there whole or not at all.

    Raises:
        StoreError: the disk is full, or the kernel refused otherwise; nothing is left.
    """
    new = f"{path}.{os.getpid()}.new"
    try:
        os.makedirs(os.path.dirname(os.path.dirname(path)), 0o700, exist_ok=True)  # a set-uid file is no other user's
        os.makedirs(new)
        os.chmod(new, 0o755)
        inside = _resolve(lowerdirs, destination)
        has_content = [_apply_layer(layer, inside, new) for layer in reversed(lowerdirs)]
        if not any(has_content) and os.path.isdir(path):
            os.rmdir(new)  # it is as it was made
            return
        if durable:
            _sync(new)
        os.rename(new, path)
    except OSError as error:
        from minibox.storage.removal import remove_tree

        try:
            remove_tree(new)
        except OSError:
            pass  # the first failure says more
        if error.errno in (EEXIST, ENOTEMPTY) and os.path.isdir(path):
            return  # another container was faster
        raise StoreError(f"fill the new volume {path} from the image's {destination}: {kernel_says(error)}") from error


def _resolve(lowerdirs: tuple[str, ...], path: str) -> str:
    """``path`` without symlinks, as the merged layers have it."""
    parts, done, links = path.split("/")[::-1], "", 0
    while parts:
        part = parts.pop()
        if part in ("", "."):
            continue
        if part == "..":
            done = os.path.dirname(done)
            continue
        target = _link(lowerdirs, f"{done}/{part}")
        if target is None or links == SYMLINKS_MAX:
            done = f"{done}/{part}"
            continue
        links += 1
        parts += target.split("/")[::-1]
        done = "" if target.startswith("/") else done
    return done


def _link(lowerdirs: tuple[str, ...], path: str) -> str | None:
    """Where the topmost entry at ``path`` points, when it is a symlink."""
    for layer in lowerdirs:
        status, hidden = _look(layer, path)
        if status is not None:
            return os.readlink(layer + path) if S_ISLNK(status.st_mode) else None
        if hidden:
            return None
    return None


def _look(layer: str, path: str) -> tuple[os.stat_result | None, bool]:
    """The status of ``path`` in one layer, and whether the layer hides what those below have there."""
    current, hidden = layer, False
    for part in path.strip("/").split("/"):
        hidden = hidden or _is_opaque(current)
        current = f"{current}/{part}"
        try:
            status = os.lstat(current)
        except OSError:
            return None, hidden
        if _is_whiteout(status):
            return None, True
        if current != layer + path and not S_ISDIR(status.st_mode):
            return None, True
    return status, hidden


def _sync(path: str) -> None:
    """Write all files below, and the directory, to the disk."""
    for directory, _, names in os.walk(path):
        for name in (".", *names):
            try:
                fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                continue  # a symlink, a socket, a device that isn't there
            try:
                if S_ISREG(os.fstat(fd).st_mode) or name == ".":
                    os.fsync(fd)
            finally:
                os.close(fd)


def _apply_layer(layer: str, path: str, target: str) -> bool:
    """Whether the layer has a directory there."""
    status, hidden = _look(layer, path)
    if hidden or (status is not None and not S_ISDIR(status.st_mode)):
        for name in os.listdir(target):
            _remove(f"{target}/{name}")
    if status is None or not S_ISDIR(status.st_mode):
        return False
    _apply_directory(layer + path, status, target)
    return True


def _apply_directory(source: str, status: os.stat_result, target: str) -> None:
    if _is_opaque(source):
        for name in os.listdir(target):
            _remove(f"{target}/{name}")
    for entry in os.scandir(source):
        there = f"{target}/{entry.name}"
        found = entry.stat(follow_symlinks=False)
        if not (S_ISDIR(found.st_mode) and os.path.isdir(there) and not os.path.islink(there)):
            _remove(there)
        if _is_whiteout(found):
            continue
        if S_ISDIR(found.st_mode):
            os.makedirs(there, exist_ok=True)
            _apply_directory(entry.path, found, there)
        else:
            _copy(entry.path, found, there)
            _copy_status(entry.path, found, there)
    _copy_status(source, status, target)


def _copy(source: str, status: os.stat_result, target: str) -> None:
    if S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
    elif S_ISREG(status.st_mode):
        with open(source, "rb", 0) as reader, open(target, "xb", 0) as writer:
            while os.sendfile(writer.fileno(), reader.fileno(), None, CHUNK):
                pass
    else:
        os.mknod(target, status.st_mode, status.st_rdev)


def _copy_status(source: str, status: os.stat_result, target: str) -> None:
    """Owner, then mode, since a change of owner takes set-uid away, then attributes and times."""
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if not S_ISLNK(status.st_mode):
        os.chmod(target, S_IMODE(status.st_mode))
    for name in os.listxattr(source, follow_symlinks=False):
        if not name.startswith(OVERLAY_ATTRIBUTES):
            os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def _is_whiteout(status: os.stat_result) -> bool:
    return S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_opaque(directory: str) -> bool:
    for name in OPAQUE:
        try:
            if os.getxattr(directory, name, follow_symlinks=False) == b"y":
                return True
        except OSError:
            continue
    return False


def _remove(path: str) -> None:
    from minibox.storage.removal import remove_tree

    if os.path.lexists(path):
        remove_tree(path)
