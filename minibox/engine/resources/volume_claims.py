"""Named volumes, ``root/volumes/<name>/``, and which containers claim them.

A container first records its volumes in ``root/containers/<id>/named-volumes``, and then checks that they exist. A
process that removes a volume first locks its directory with flock, and then reads all records. So one of the two
notices the other. The record goes with the container's directory, whoever removes that.
"""

from __future__ import annotations

import fcntl
import os

from minibox.base import damage
from minibox.base.codec import FileKind
from minibox.base.shape import path_part
from minibox.engine.state import containers
from minibox.errors import StoreError, Unreadable, kernel_says, trying

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from minibox.base.home import Home
    from minibox.engine.spec.options import Volume
    from minibox.storage.drivers import Snapshotter
    from minibox.storage.snapshot import Snapshot

RECORD = "named-volumes"
VOLUMES = FileKind(
    RECORD,
    {"Volumes": [path_part]},
    before=lambda data: {"Volumes": [name for name in data.decode().split("\n") if name]},
)


class LockedVolume:
    """A context manager that makes the directory of a volume if needed, and locks it.

    More than `base.lock`: the directory may be removed while we wait for its lock.
    """

    def __init__(self, root: str, name: str) -> None:
        self.path = f"{root}/volumes/{name}"
        self._fd = -1

    def __enter__(self) -> LockedVolume:
        while self._fd < 0:
            try:
                # Set-user-ID files in a volume must be out of reach for other users.
                os.makedirs(os.path.dirname(self.path), 0o700, exist_ok=True)
                os.makedirs(self.path, exist_ok=True)
                fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # it was removed just before we locked it
            except OSError as error:
                raise StoreError(f"make the volume {self.path}: {kernel_says(error)}") from error
            fcntl.flock(fd, fcntl.LOCK_EX)
            if _is_at(fd, self.path):
                self._fd = fd
            else:
                os.close(fd)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
        self._fd = -1


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def provide(volumes: Sequence[Volume], root: str, container_id: str, make: Callable[[Volume], None]) -> None:
    """Make the volumes of a container, and claim them for as long as the container exists.

    Args:
        make: makes a volume, or fills an empty one.

    Raises:
        StoreError: the disk is full, or the kernel refused.
    """
    named = [volume for volume in volumes if not volume.anonymous]
    if named:
        _record(f"{root}/containers/{container_id}/{RECORD}", [volume.name for volume in named])
    for volume in volumes:
        if volume.anonymous:
            if not os.path.isdir(volume.path):
                make(volume)
            continue
        with LockedVolume(root, volume.name):
            if _wants_content(volume, root, container_id):
                make(volume)


def make_volumes(
    home: Home, container_id: str, volumes: Sequence[Volume], storage: Snapshotter, snapshot: Snapshot
) -> None:
    """Make those volumes of a container that don't exist yet, with the image's content; see `provide`.

    Args:
        snapshot: the container's, which has that content.
    """
    from functools import partial

    from minibox.engine.files.volume_content import make_volume, opened
    from minibox.engine.host.user_namespace import run_inside
    from minibox.engine.state import events

    def make(volume: Volume) -> None:
        with opened(storage, snapshot) as directories:
            layers = directories if volume.copy else ()
            new = not os.path.isdir(volume.path)
            run_inside(partial(make_volume, volume.path, layers, volume.destination, durable=not volume.anonymous))
            if new and not volume.anonymous:
                events.note_volume(home.runroot, volume.name, "create")

    provide(volumes, home.root, container_id, make)


def _record(path: str, names: list[str]) -> None:
    with trying(StoreError, f"write {path}"):
        VOLUMES.write(path, {"Volumes": names})


def named_volumes(root: str, container_id: str) -> list[str]:
    """Return the volumes in a container's record; none if it is unreadable, which is reported elsewhere."""
    try:
        found: list[str] = VOLUMES.read(f"{root}/containers/{container_id}/{RECORD}")["Volumes"]
        return found
    except OSError:
        return []
    except Unreadable as error:
        damage.tell(error)
        return []


def users(root: str) -> dict[str, list[str]]:
    """Return the ids of the containers that claim each volume: starting, running or ended."""
    found: dict[str, list[str]] = {}
    prefix = f"{root}/volumes/"
    for container_id in sorted(containers.container_ids(root)):
        names = set(named_volumes(root, container_id))
        mounts = containers.read(root, container_id).get("Mounts")
        for mount in mounts if isinstance(mounts, list) else ():
            source = str(mount.get("Source", "")) if isinstance(mount, dict) else ""
            if source.startswith(prefix):
                names.add(source.removeprefix(prefix).partition("/")[0])
        for name in names:
            found.setdefault(name, []).append(container_id)
    return found


def _wants_content(volume: Volume, root: str, container_id: str) -> bool:
    """Return whether the volume doesn't exist yet, or is empty and unused by other containers."""
    try:
        with os.scandir(volume.path) as entries:
            if not volume.copy or next(entries, None):
                return False
    except FileNotFoundError:
        return True
    except PermissionError:
        return False  # the image's owner keeps this ordinary user out, so it has been filled
    return users(root).get(volume.name, [container_id]) == [container_id]
