"""Named volumes: create, list, inspect, remove.

``root/volumes/<name>/`` has ``_data``, which containers see, and volume.json with the time of creation and the labels.
A volume that `run` made has no volume.json. The directory counts as a volume once ``_data`` exists.
"""

from __future__ import annotations

import datetime
import os

from minibox.base import damage
from minibox.base.codec import FileKind, plain
from minibox.base.files import names_in, sync_directory
from minibox.base.values import has_label
from minibox.docker_words.filters import parse_filters, parse_truth
from minibox.docker_words.mounts import volume_name
from minibox.engine.host.user_namespace import run_inside
from minibox.engine.resources.volume_claims import LockedVolume, users
from minibox.engine.state import events
from minibox.errors import (
    NewerFormat,
    StoreError,
    Unreadable,
    Unsupported,
    VolumeInUse,
    VolumeNotFound,
    trying,
)
from minibox.linux.removal import remove_tree
from minibox.record import record
from minibox.storage.usage import tree_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from minibox.base.home import Home
    from minibox.docker_words.filters import Filter

LIST_KEYS = ("dangling", "driver", "label", "name")
PRUNE_KEYS = ("all", "label", "label!")
# Marks a volume whose name was generated; by default `prune` removes only these.
ANONYMOUS_LABEL = "com.docker.volume.anonymous"
DRIVER = "local"
REMOVED = ".removed-"  # no name begins like this
NOTE = "volume.json"


def date(value: object) -> bool:
    """A shape for JSON: an ISO 8601 date and time."""
    try:
        return isinstance(value, str) and datetime.datetime.fromisoformat(value).timestamp() >= 0
    except (ValueError, OverflowError):
        return False


VOLUME = FileKind("volume", {"CreatedAt": date, "Labels": {str: str}}, before=plain)


@record
class StoredVolume:
    """A volume.

    Attributes:
        path: the directory that containers see.
        created_s: when it was made, in seconds since 1970.
        users: ids of the containers that use it, including ended ones.
    """

    name: str
    path: str
    created_s: float
    labels: dict[str, str]
    users: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """Return the output of `volume inspect`, with Docker's fields."""
        created = datetime.datetime.fromtimestamp(int(self.created_s), datetime.UTC)
        return {
            "CreatedAt": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "Driver": DRIVER,
            "Labels": self.labels or None,
            "Mountpoint": self.path,
            "Name": self.name,
            "Options": None,
            "Scope": DRIVER,
        }


def create(
    home: Home, name: str = "", *, labels: Sequence[str] = (), driver: str = DRIVER, options: Sequence[str] = ()
) -> str:
    """Make a volume unless it exists; return its name.

    Args:
        name: "" to generate one.
        labels: ``KEY=VALUE`` or ``KEY`` each.

    Raises:
        UsageError: an invalid name.
        Unsupported: another driver, or driver options.
        StoreError: the disk is full, or the kernel refused.
    """
    if driver != DRIVER:
        raise Unsupported(f"volume driver {driver!r}", "minibox has local volumes only")
    if options:
        raise Unsupported(
            f"volume option {options[0]!r}: volumes are plain directories and take no options",
            "mount another directory with -v /PATH:DESTINATION, and memory with --tmpfs DESTINATION:size=64m",
        )
    given = dict(label.partition("=")[::2] for label in labels)
    if not name:
        name = os.urandom(32).hex()
        given[ANONYMOUS_LABEL] = ""
    volume_name(name, name)
    with trying(StoreError, f"make the volume {name}"):
        with LockedVolume(home.root, name) as volume:
            if not os.path.isdir(f"{volume.path}/_data"):
                try:
                    _fill(volume.path, given)
                except OSError:
                    remove_tree(volume.path)
                    raise
                events.note_volume(home.runroot, name, "create")
    return name


def _fill(directory: str, labels: dict[str, str]) -> None:
    _write_note(directory, labels)
    os.mkdir(f"{directory}/_data")
    os.chmod(f"{directory}/_data", 0o755)
    for each in (directory, os.path.dirname(directory)):
        sync_directory(each)


def _write_note(directory: str, labels: dict[str, str]) -> None:
    now = datetime.datetime.now(datetime.UTC)
    VOLUME.write(f"{directory}/{NOTE}", {"CreatedAt": now.isoformat(), "Labels": labels}, durable=True)


def volumes(root: str) -> list[StoredVolume]:
    """Return all volumes, sorted by name."""
    used = users(root)
    found = [_read(root, name, used.get(name, [])) for name in names_in(f"{root}/volumes")]
    return [each for each in found if each]


def inspect(root: str, name: str) -> StoredVolume:
    """Return the volume of that name.

    Raises:
        VolumeNotFound: there is none.
    """
    found = _read(root, name, users(root).get(name, [])) if _is_name(name) else None
    if found is None:
        raise VolumeNotFound(f"get {name}: no such volume", "minibox volume ls lists all of them")
    return found


def _read(root: str, name: str, used_by: Sequence[str]) -> StoredVolume | None:
    """Return a volume; an unreadable volume.json costs only its content, and is reported elsewhere."""
    directory = f"{root}/volumes/{name}"
    if not _is_name(name) or not os.path.isdir(f"{directory}/_data"):
        return None
    labels, created_s = {}, 0.0
    try:
        note = VOLUME.read(f"{directory}/{NOTE}")
        created_s, labels = datetime.datetime.fromisoformat(note["CreatedAt"]).timestamp(), note["Labels"]
    except OSError:
        pass
    except Unreadable as error:
        damage.tell(error)
    try:
        created_s = created_s or os.stat(directory).st_mtime
    except FileNotFoundError:
        return None  # it has just been removed
    return StoredVolume(name, f"{directory}/_data", created_s, labels, tuple(used_by))


def _is_name(name: str) -> bool:
    return name[:1].isalnum() and "/" not in name and "\0" not in name


def parse_list_filters(words: Iterable[str]) -> list[Filter]:
    """Parse the filters of `volume ls`.

    Raises:
        UsageError: not KEY=VALUE, an unknown key, or an invalid value.
    """
    return parse_filters(words, LIST_KEYS)


def parse_prune_filters(words: Iterable[str]) -> tuple[bool, list[Filter]]:
    """Parse the filters of `volume prune`: return whether ``all`` is set, and the filters for single volumes.

    Raises:
        UsageError: as `parse_list_filters`.
    """
    filters = parse_filters(words, PRUNE_KEYS)
    everything = any(each.key == "all" and parse_truth(each.value) for each in filters)
    return everything, [each for each in filters if each.key != "all"]


def passes(volume: StoredVolume, filters: Sequence[Filter]) -> bool:
    """Return whether a volume passes: one of the names, one of the drivers, and all other filters must match."""
    for key in ("name", "driver"):
        values = [each.value for each in filters if each.key == key]
        if values and not any(value in volume.name if key == "name" else value == DRIVER for value in values):
            return False
    for each in filters:
        if (
            (each.key == "label" and not has_label(volume.labels, each.value))
            or (each.key == "label!" and has_label(volume.labels, each.value))
            or (each.key == "dangling" and parse_truth(each.value) == bool(volume.users))
        ):
            return False
    return True


def remove(home: Home, name: str, *, force: bool = False) -> None:
    """Remove a volume and its content.

    Args:
        force: don't fail if it doesn't exist.

    Raises:
        VolumeNotFound: no volume has that name.
        VolumeInUse: a container uses it, running or not.
        StoreError: the kernel refused.
    """
    if not _is_name(name) or not os.path.isdir(f"{home.root}/volumes/{name}"):
        if force:
            return
        raise VolumeNotFound(f"get {name}: no such volume", "minibox volume ls lists all of them")
    place = _take_away(home.root, name)
    events.note_volume(home.runroot, name, "destroy")
    _remove_tree(place)


def _take_away(root: str, name: str) -> str:
    """Rename an unused volume so that it no longer counts as one; return its new path."""
    with LockedVolume(root, name) as volume:
        if used_by := users(root).get(name):
            short = " ".join(each[:12] for each in used_by)
            raise VolumeInUse(
                f"remove {name}: volume is in use - [{', '.join(used_by)}]",
                f"remove its containers first: minibox rm {short}",
            )
        place = f"{root}/volumes/{REMOVED}{name[:200]}-{os.urandom(4).hex()}"
        with trying(StoreError, f"remove {name}"):
            os.rename(volume.path, place)
            sync_directory(f"{root}/volumes")
        return place


def _remove_tree(place: str) -> None:
    def work() -> None:
        remove_tree(place)

    with trying(StoreError, f"remove {place}"):
        run_inside(work) if os.geteuid() else work()


def prune(home: Home, *, everything: bool = False, filters: Sequence[Filter] = ()) -> tuple[list[str], int]:
    """Remove unused volumes; return their names and the bytes that were freed.

    Args:
        everything: include volumes with a name of the user's choice.
    """
    gone, freed = [], 0
    for volume in volumes(home.root):
        if volume.users or not (everything or ANONYMOUS_LABEL in volume.labels) or not passes(volume, filters):
            continue
        if _is_newer(home.root, volume.name):
            continue
        try:
            place = _take_away(home.root, volume.name)
        except VolumeInUse:
            continue  # a container has just taken it
        events.note_volume(home.runroot, volume.name, "destroy")
        freed += sizes([place])[0]
        _remove_tree(place)
        gone.append(volume.name)
    return gone, freed


def _is_newer(root: str, name: str) -> bool:
    """Return whether a newer minibox made the volume: only that one can tell whether it is in use."""
    try:
        VOLUME.read(f"{root}/volumes/{name}/{NOTE}")
    except NewerFormat:
        return True
    except (OSError, Unreadable):
        pass
    return False


def sizes(paths: Sequence[str]) -> list[int]:
    """Return the disk space of directories in bytes, measured in a user namespace if necessary."""
    places = list(paths)

    def look() -> list[int]:
        return [tree_bytes(place) for place in places]

    return run_inside(look) if os.geteuid() else look()
