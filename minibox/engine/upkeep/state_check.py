"""Check that our files about containers, volumes, networks, snapshots and trials can be read, and repair them.

Each file is checked and repaired by itself: it is rewritten if its content can be found elsewhere, and removed
otherwise. Files written by a newer minibox are left alone.
"""

from __future__ import annotations

import os

from minibox.base.codec import damage_of as wrong_of
from minibox.base.files import ASIDE, closing, discard, names_in, open_to_read
from minibox.engine.container import lifecycle, snapshots
from minibox.engine.container.health import HEALTH_FILE
from minibox.engine.resources import volumes
from minibox.engine.resources.container_network import JOINED, JOINED_NETWORKS
from minibox.engine.resources.volume_claims import RECORD, VOLUMES
from minibox.engine.state import claim, containers, live_file, names, ports
from minibox.engine.state.exit_record import EXIT
from minibox.engine.state.sent_signals import SIGNAL
from minibox.engine.state.state_format import CONTAINER
from minibox.engine.upkeep.image_check import DAMAGED, LEFTOVER, Finding
from minibox.errors import ContainerNotFound, MiniboxError, NewerFormat, Unreadable, suppress
from minibox.image.store import ImageStore
from minibox.network import lease, members, named
from minibox.storage.snapshot import RECORD as SNAPSHOT_RECORD
from minibox.storage.snapshot import SNAPSHOT, read_record, write_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from minibox.base.codec import FileKind
    from minibox.base.home import Home

# Files in a container's directory.
OF_A_CONTAINER: dict[str, FileKind] = {
    ports.FILE: ports.PORTS,
    JOINED: JOINED_NETWORKS,
    "health.json": HEALTH_FILE,
    "exit": EXIT,
    "stopped": lifecycle.STOP_MARK,
    RECORD: VOLUMES,
    SNAPSHOT_RECORD: SNAPSHOT,
}
LOGS = ("log", "signals")
LINKS = ("names", "ids")  # below root, each a symlink to a container's id


def check_state(home: Home) -> list[Finding]:
    """Return what can't be read of each container, volume, network, snapshot and trial."""
    return [
        *(
            each
            for container_id in sorted(containers.container_ids(home.root))
            for each in _of_container(home.root, container_id)
        ),
        *_of_owners(home.root),
        *_of_volumes(home.root),
        *(_finding(f"network {os.path.basename(each.path)}", each, "network") for each in named.look(home.root)[1]),
        *(
            _finding(f"snapshot {os.path.basename(each.path)[:12]}", each, "snapshot")
            for each in snapshots.read_all(home.root)[1]
        ),
        *_of_trials(home.root),
        *_of_links(home.root),
        *(each for name in ("live", "networks", "snapshots") for each in _asides(f"{home.root}/{name}", name)),
        *(_of_runroot(home.runroot) if home.runroot else ()),
    ]


def _finding(what: str, wrong: Unreadable, kind: str) -> Finding:
    """Make a finding whose ``thing`` says how to repair it. Files of a newer version need no repair."""
    thing = () if isinstance(wrong, NewerFormat) else ("file", kind, wrong.path)
    return Finding(DAMAGED, what, f"{os.path.basename(wrong.path)} {wrong.reason}", (), thing)


def _of_container(root: str, container_id: str) -> Iterator[Finding]:
    directory = f"{root}/containers/{container_id}"
    what = f"container {names.given(root, container_id) or container_id[:12]}"
    if (wrong := containers.damage_of(root, container_id)) and not isinstance(wrong, NewerFormat):
        yield Finding(DAMAGED, what, f"its state.json can't be read: {getattr(wrong, 'why', '')}: remove it with minibox rm",
                      (), ("file", "state", wrong.path))  # fmt: skip
    elif wrong:
        yield _finding(what, wrong, "state")
    for name, kind in OF_A_CONTAINER.items():
        try:
            kind.read(f"{directory}/{name}")
        except Unreadable as error:
            yield _finding(what, error, name)
        except OSError:
            continue
    for name in LOGS:
        if wrong := _no_file(f"{directory}/{name}"):
            yield _finding(what, wrong, name)
    if wrong := _signals(f"{directory}/signals"):
        yield _finding(what, wrong, "signals")
    yield from _asides(directory, what)


def _signals(path: str) -> Unreadable | None:
    try:
        with open(open_to_read(path), "rb") as file:
            for line in file:
                if line.endswith(b"\n"):  # otherwise an incomplete line, which a full disk leaves
                    SIGNAL.decode(line, path)
    except Unreadable as error:
        return error
    except OSError:
        pass
    return None


def _no_file(path: str) -> Unreadable | None:
    """Check that a file that we only append to is a regular file."""
    try:
        os.close(open_to_read(path))
    except OSError as error:
        return wrong_of(error, path)
    return None


def _asides(directory: str, what: str) -> Iterator[Finding]:
    for name in names_in(directory):
        if name.startswith(ASIDE):
            yield Finding(
                LEFTOVER, what, f"{name} was in the place of a file", (), ("file", "aside", f"{directory}/{name}")
            )


def _of_owners(root: str) -> Iterator[Finding]:
    for container_id in claim.live_ids(root):
        live = containers.owner(root, container_id)
        if live and live.damage:
            what = f"container {names.given(root, container_id) or container_id[:12]}"
            yield _finding(what, live.damage, "live")


def _of_volumes(root: str) -> Iterator[Finding]:
    for name in names_in(f"{root}/volumes"):
        path = f"{root}/volumes/{name}/{volumes.NOTE}"
        try:
            volumes.VOLUME.read(path)
        except Unreadable as error:
            yield _finding(f"volume {name}", error, "volume")
        except OSError:
            continue


def _of_trials(root: str) -> Iterator[Finding]:
    """A damaged one is never removed by a repair: what the command wrote may still be of value."""
    from minibox.engine.trial import kept

    for name in kept.names(root):
        try:
            kept.read(root, name)
        except Unreadable as error:
            yield Finding(DAMAGED, f"trial {name}", f"{error.reason}: minibox tried {name} --discard removes it")
        except ContainerNotFound:
            continue  # it was just discarded


def _of_links(root: str) -> Iterator[Finding]:
    for directory in LINKS:
        for name in names_in(f"{root}/{directory}"):
            path = f"{root}/{directory}/{name}"
            if not _leads_to_id(path):
                yield Finding(
                    DAMAGED, f"{directory}/{name}", "it doesn't lead to a container", (), ("file", "link", path)
                )


def _leads_to_id(path: str) -> bool:
    try:
        return claim.is_id(os.readlink(path))
    except FileNotFoundError:
        return True  # it was just removed
    except OSError:
        return False


def _of_runroot(runroot: str) -> Iterator[Finding]:
    for name in ("events", "events.1"):
        if error := _no_file(f"{runroot}/{name}"):
            yield _finding("events", error, "events")
    for bridge in lease.bridges(runroot):
        directory = lease.directory(runroot, bridge)
        try:
            lease.SUBNET.read(f"{directory}/subnet")
        except Unreadable as error:
            yield _finding(f"bridge {bridge}", error, "subnet")
        except OSError:
            pass
        for name in names_in(f"{directory}/names"):
            path = f"{directory}/names/{name}"
            try:
                if not name.startswith("."):
                    members.MEMBER.read(path)
            except Unreadable as error:
                yield _finding(f"bridge {bridge}", error, "member")
            except OSError:
                continue
        for name in lease.rubbish(directory):
            path = f"{directory}/leases/{name}"
            if not name.startswith("."):
                yield Finding(
                    DAMAGED, f"address {name}", "it is not leased to a container", (), ("file", "lease", path)
                )
        for place in (directory, f"{directory}/names"):
            yield from _asides(place, f"bridge {bridge}")
    yield from _asides(runroot, "events")


# ---- repair ---------------------------------------------------------------------------------------


def mend(home: Home, finding: Finding) -> None:
    """Repair a finding of `check_state`. The container may have been removed since.

    Raises:
        MiniboxError: the repair failed.
    """
    _, kind, path = finding.thing
    directory, name = os.path.split(path)
    owner = os.path.basename(directory)
    with suppress(FileNotFoundError):
        if kind == "state":
            _salvage(home.root, owner)
        elif kind == "stopped":
            lifecycle.mark_stopped(home.root, owner)
        elif kind == RECORD:
            _note_volumes(home.root, owner)
        elif kind == SNAPSHOT_RECORD:
            _note_snapshot(home.root, owner)
        elif kind == "live":
            _note_owner(home.root, name)
        elif kind == "volume":
            _note_volume(directory)
        elif kind == "network":
            named.restore(home, name)
        elif kind == "snapshot":
            snapshots.collect(home.root)
        elif kind == "lease":
            lease.remove_rubbish(os.path.dirname(directory))
        elif kind == "subnet":
            _note_subnet(directory)
        elif kind == "aside":
            _remove_tree(path)
        else:
            discard(path)
            _remove_aside(directory, name)


def _remove_tree(path: str) -> None:
    from minibox.linux.removal import remove_directory

    remove_directory(path)


def _remove_aside(directory: str, name: str) -> None:
    for each in names_in(directory):
        if each.startswith(f"{ASIDE}{name}."):
            _remove_tree(f"{directory}/{each}")


def _salvage(root: str, container_id: str) -> None:
    """Rewrite state.json from other sources, so that the container's files can be copied, committed and removed.

    The container's permissions and isolation are unknown, so it can't be started again.
    """
    record, live = read_record(root, container_id), claim.read_owner(root, container_id)
    found: dict[str, Any] = {
        "Id": container_id,
        "Name": names.given(root, container_id) or names.default_name(container_id),
        "Image": live.reference if live else "",
        "Command": list(live.command) if live else [],
        "Status": "running" if live and live.pid > 0 else "exited",
        "Pid": max(0, live.pid) if live else 0,
        "Supervised": bool(live and live.supervisor > 0),
        "Created": os.stat(f"{root}/containers/{container_id}").st_mtime,
        "Error": "its state.json was damaged: you can save its files, but not start it again",
        **({"Driver": record[0]} if record else {}),
        **(_image_of(root, record[1]) if record else {}),
    }
    CONTAINER.write(f"{root}/containers/{container_id}/state.json", found, durable=True)
    _remove_aside(f"{root}/containers/{container_id}", "state.json")


def _image_of(root: str, chain_ids: tuple[str, ...]) -> dict[str, Any]:
    """Return the image whose layers the container uses."""
    from minibox.image.layout.inventory import inventory

    try:
        images = inventory(ImageStore(root).layout)
    except MiniboxError:
        return {}
    for image in images:
        if image.chain_ids and image.chain_ids == chain_ids[: len(image.chain_ids)]:
            name = image.names[0].familiar if image.names else image.id
            return {"Image": name, "ImageDigest": image.digest, "ImageId": image.id}
    return {}


def _note_volumes(root: str, container_id: str) -> None:
    prefix, found = f"{root}/volumes/", set()
    for mount in containers.read(root, container_id).get("Mounts") or ():
        source = str(mount.get("Source", ""))
        if source.startswith(prefix):
            found.add(source.removeprefix(prefix).partition("/")[0])
    directory = f"{root}/containers/{container_id}"
    VOLUMES.write(f"{directory}/{RECORD}", {"Volumes": sorted(found)})
    _remove_aside(directory, RECORD)


def _note_snapshot(root: str, container_id: str) -> None:
    """Rewrite it from the container's state and image. Without them, its files can only be removed."""
    found = containers.read(root, container_id)
    if not found.get("Driver") or not found.get("ImageDigest"):
        raise MiniboxError(
            f"container {container_id[:12]}: the layers below its files are unknown", "remove it with minibox rm"
        )
    image = ImageStore(root).resolve(found["ImageDigest"])
    directory = f"{root}/containers/{container_id}"
    discard(f"{directory}/{SNAPSHOT_RECORD}")
    write_record(directory, found["Driver"], image.chain_ids)
    _remove_aside(directory, SNAPSHOT_RECORD)


def _note_owner(root: str, container_id: str) -> None:
    """Record the process id in the file that the owner locks. `exec` needs more, and works again after a restart."""
    live, path = containers.owner(root, container_id), live_file.live_path(root, container_id)
    if live is None or live.damage is None or isinstance(live.damage, NewerFormat) or live.pid <= 0:
        return
    found, image = containers.read(root, container_id), None
    with suppress(MiniboxError, KeyError):
        image = ImageStore(root).resolve(found["ImageDigest"])
    lines = live_file.image_line(False, str(found.get("Image", "")), image) + live.undo
    lines += live_file.process_line(live.pid, live.supervisor, found.get("Command", ()), None)
    with closing(os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)) as fd:
        os.pwrite(fd, lines, 0)
        os.ftruncate(fd, len(lines))


def _note_volume(directory: str) -> None:
    from datetime import UTC, datetime

    made = datetime.fromtimestamp(os.stat(directory).st_mtime, UTC).isoformat()
    volumes.VOLUME.write(f"{directory}/{volumes.NOTE}", {"CreatedAt": made, "Labels": {}}, durable=True)
    _remove_aside(directory, volumes.NOTE)


def _note_subnet(directory: str) -> None:
    if chosen := lease.recorded(directory):
        lease.record_subnet(directory, chosen)
    else:
        discard(f"{directory}/subnet")
    _remove_aside(directory, "subnet")
