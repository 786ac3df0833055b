"""`system check`: verify everything on disk. `--repair` removes or rewrites what is damaged."""

from __future__ import annotations

import fcntl
import os

from minibox.base.files import ASIDE, names_in
from minibox.base.home import Home
from minibox.engine.container import collection, removal
from minibox.engine.container.snapshots import all_snapshots, is_in_use
from minibox.engine.host.user_namespace import run_inside
from minibox.engine.process import undo
from minibox.engine.resources import volumes
from minibox.engine.state import claim, containers, names
from minibox.engine.upkeep.image_check import DAMAGED, LEFTOVER, Finding, check_images, check_layers
from minibox.engine.upkeep.image_garbage import alone, collect
from minibox.engine.upkeep.images import uses
from minibox.engine.upkeep.state_check import check_state, mend
from minibox.errors import MiniboxError, StoreBusy, StoreError
from minibox.image.layout.inventory import inventory
from minibox.image.layout.layout import Layout
from minibox.image.layout.rebuild import rebuild
from minibox.image.reference import is_digest
from minibox.linux import cgroup
from minibox.linux.removal import remove_tree
from minibox.network import lease, members, named
from minibox.record import record
from minibox.storage.drivers import snapshotter
from minibox.storage.layers import REMOVED
from minibox.storage.snapshot import DRIVERS, read_record

Row = tuple[str, str, str, tuple[str, ...], tuple[str, ...]]

PATIENCE_S = 10.0
UNFINISHED = "unfinished-"
LAYER_DIRECTORIES = ("layers", *(driver for driver in DRIVERS if driver != "overlay"))
OF_A_LAYOUT = ("blobs", "index.json", "oci-layout")


@record
class Report:
    """The findings. ``counts`` says how many images, blobs, layers and containers were checked."""

    findings: tuple[Finding, ...]
    counts: dict[str, int]

    @property
    def damaged(self) -> int:
        return sum(each.kind == DAMAGED for each in self.findings)


def check(home: Home, *, content: bool = True) -> Report:
    """Verify the whole store without changing anything.

    Args:
        home: without a runroot, what running containers need isn't checked.
        content: read every blob, and compare every file of the unpacked layers.
    """
    layout = Layout(home.root)

    def look() -> tuple[list[Row], dict[str, int]]:
        with layout.adding():  # keeps others from removing anything
            needed = uses(home.root)
            found = [
                *check_images(layout, needed, content=content),
                *check_layers(layout, needed, content=content),
                *check_containers(home.root),
                *leftovers(home.root),
            ]
        return [(each.kind, each.what, each.problem, each.affects, each.thing) for each in found], _counts(layout)

    rows, counts = run_inside(look) if os.geteuid() else look()
    held = held_by_nobody(home) if home.runroot else []
    return Report((*check_state(home), *(Finding(*row) for row in rows), *held), counts)


def check_containers(root: str) -> list[Finding]:
    """Verify that the containers' states are readable and that their layers exist."""
    layers = {driver: set(snapshotter(root, driver).layers()) for driver in DRIVERS}
    findings = []
    for found in containers.containers(root):
        what = f"container {found['Name'] or found['Id'][:12]}"
        if not claim.is_live(root, found["Id"]) and not containers.is_written(root, found["Id"]):
            if os.path.isdir(f"{root}/containers/{found['Id']}"):  # otherwise it has ended in the meantime
                findings.append(Finding(LEFTOVER, what, "its minibox was killed"))
        elif found["Status"] == "damaged":
            continue  # reported by `check_state`
        elif found["Name"] != names.default_name(found["Id"]) and names.holder(root, found["Name"]) != found["Id"]:
            findings.append(
                Finding(DAMAGED, what, "its name is not registered", (), ("name", found["Name"], found["Id"]))
            )
        snapshot = read_record(root, found["Id"])
        if snapshot and snapshot[0] in layers:
            missing = [chain_id for chain_id in snapshot[1] if chain_id not in layers[snapshot[0]]]
            findings += [
                Finding(DAMAGED, what, f"its layer {chain_id} ({snapshot[0]}) is missing") for chain_id in missing
            ]
    return findings


def leftovers(root: str) -> list[Finding]:
    """Return what killed commands left and nothing uses any more."""
    findings = [Finding(LEFTOVER, f"container {name[:12]}", "its minibox was killed") for name in _ownerless(root)]
    findings += [
        Finding(LEFTOVER, f"snapshot {frozen.id[:12]}", "its program was killed")
        for frozen, held in all_snapshots(root)
        if not held and not is_in_use(root, frozen.id)
    ]
    findings += [Finding(LEFTOVER, f"name {name}", "its container is gone") for name in _free_names(root)]
    findings += [Finding(LEFTOVER, path, "unfinished") for path in _unfinished(root)]
    for name in names_in(f"{root}/images"):
        if name not in OF_A_LAYOUT:
            findings.append(Finding(LEFTOVER, f"images/{name}", "not part of an OCI image layout"))
    return findings


def held_by_nobody(home: Home) -> list[Finding]:
    """Return ranges of ids, addresses, sockets and cgroups whose container isn't running."""
    findings = []
    for slot in names_in(f"{home.root}/ids"):
        if _is_lost(home.root, f"{home.root}/ids/{slot}"):
            findings.append(Finding(LEFTOVER, f"ids/{slot}", "a range of ids of an ended container"))
    for bridge in lease.bridges(home.runroot):
        place = f"{lease.directory(home.runroot, bridge)}/leases"
        for address in names_in(place):
            if _is_lost(home.root, f"{place}/{address}"):
                findings.append(Finding(LEFTOVER, f"address {address}", f"on {bridge}, of an ended container"))
    for name in names_in(f"{home.runroot}/attach"):
        if not claim.is_live(home.root, name) and os.path.lexists(f"{home.runroot}/attach/{name}"):
            findings.append(Finding(LEFTOVER, f"attach/{name[:12]}", "a socket of an ended container"))
    for bridge in named.lost_bridges(home):
        findings.append(Finding(LEFTOVER, f"bridge {bridge}", "its network is gone"))
    for container_id in _lost_groups(home.root):
        findings.append(Finding(LEFTOVER, f"cgroup minibox-{container_id[:12]}", "its container has ended"))
    return findings


def _is_lost(root: str, link: str) -> bool:
    """Return whether a link to a container's id is left over. A live container removes it before its claim ends."""
    try:
        return not claim.is_live(root, os.readlink(link)) and os.path.lexists(link)
    except OSError:
        return False


def _lost_groups(root: str) -> list[str]:
    """Return the ids of this root's ended containers that still have a cgroup; it can't be told for other roots."""
    host = cgroup.detect()
    return [
        container_id
        for container_id in sorted(containers.container_ids(root))
        if cgroup.find(host, f"minibox-{container_id}").directories and not claim.is_live(root, container_id)
    ]


def repair(home: Home, report: Report) -> Report:
    """Remove what ``report`` found damaged or left over, unless something needs it; return a new report.

    Only the damaged blob of an image is removed, so pulling the image again fetches no more than that.

    Raises:
        StoreBusy: images are being added all the time.
        StoreError: the kernel refused.
    """
    collection.collect(home)
    for container_id in containers.container_ids(home.root):  # including those whose owner's file is lost
        if not claim.is_live(home.root, container_id) and not containers.is_written(home.root, container_id):
            removal.remove(home, container_id)
    _mend(home, report)
    _release(home, report)
    layout = Layout(home.root)

    def work() -> bool:
        with alone(layout, PATIENCE_S) as held:
            if not held:
                return False
            if any(each.thing[:1] in (("index",), ("entries",), ("oci-layout",)) for each in report.findings):
                _mend_layout(layout, report)
            needed = uses(home.root)
            for each in report.findings:
                if each.thing[:1] == ("blob",):
                    remove_tree(layout.blob_path(each.thing[1]))
                elif (
                    len(each.thing) == 3
                    and each.thing[0] == "layer"
                    and each.thing[1:] not in needed.layers
                    and each.thing[2] not in needed.chain_ids
                ):
                    snapshotter(home.root, each.thing[1]).remove_layer(each.thing[2])
            collect(layout, lambda: needed)
            for path in _unfinished(home.root):
                remove_tree(f"{home.root}/{path}")
            for name in _free_names(home.root):
                os.unlink(f"{home.root}/names/{name}")
        return True

    if not (run_inside(work) if os.geteuid() else work()):
        raise StoreBusy("can't repair now: images are being pulled, loaded or built")
    return check(home, content=bool(report.damaged))


def _mend(home: Home, report: Report) -> None:
    """Repair one finding after the other, state.json first: others depend on it. The next report shows failures."""
    order = {"state": 0}
    found = [each for each in report.findings if each.thing[:1] == ("file",)]
    for each in sorted(found, key=lambda each: order.get(each.thing[1], 1)):
        try:
            mend(home, each)
        except (MiniboxError, OSError):
            continue


def _mend_layout(layout: Layout, report: Report) -> None:
    if any(each.thing == ("index",) for each in report.findings):
        rebuild(layout)
    else:
        layout.rewrite([each for each in layout.descriptors() if is_digest(str(each.get("digest")))])


def _release(home: Home, report: Report) -> None:
    """Release what `held_by_nobody` found, and register names again that a power loss removed."""
    for slot in names_in(f"{home.root}/ids"):
        if _is_lost(home.root, f"{home.root}/ids/{slot}"):
            os.unlink(f"{home.root}/ids/{slot}")
    for bridge in lease.bridges(home.runroot):
        for container_id in set(lease.leased(lease.directory(home.runroot, bridge)).values()):
            if not claim.is_live(home.root, container_id):
                members.leave_all(home.runroot, container_id)
    for name in names_in(f"{home.runroot}/attach"):
        if not claim.is_live(home.root, name):
            os.unlink(f"{home.runroot}/attach/{name}")
    for bridge in named.lost_bridges(home):
        named.remove_bridge(home.runroot, bridge)
    for container_id in _lost_groups(home.root):
        undo.undo(removal.steps_by_id(home, container_id))
    for each in report.findings:
        if each.thing[:1] == ("name",) and not names.holder(home.root, each.thing[1]):
            names.take(home.root, each.thing[1], each.thing[2], lambda holder: claim.is_live(home.root, holder))


def _counts(layout: Layout) -> dict[str, int]:
    try:
        images = len(inventory(layout))
    except StoreError:  # reported as a finding
        images = 0
    return {
        "images": images,
        "blobs": len(names_in(f"{layout.path}/blobs/sha256")),
        "layers": sum(len(snapshotter(layout.root, driver).layers()) for driver in DRIVERS),
        "containers": len(names_in(f"{layout.root}/containers")),
    }


def _ownerless(root: str) -> list[str]:
    listed = (name for name in names_in(f"{root}/live") if not name.startswith(ASIDE))
    return [name for name in listed if not claim.is_live(root, name)]


def _free_names(root: str) -> list[str]:
    given = names_in(f"{root}/names")
    return [name for name in given if names.is_gone(root, names.holder(root, name))]


def _unfinished(root: str) -> list[str]:
    """Return files and directories below ``root`` whose writer is gone."""
    paths = [f"tmp/{name}" for name in names_in(f"{root}/tmp")]
    for directory in LAYER_DIRECTORIES:
        names = names_in(f"{root}/{directory}")
        paths += [f"{directory}/{name}" for name in names if name.startswith((UNFINISHED, REMOVED))]
    for name in names_in(f"{root}/volumes"):
        inside = names_in(f"{root}/volumes/{name}")
        if name.startswith(volumes.REMOVED) or not inside:
            paths.append(f"volumes/{name}")
        elif _is_free(f"{root}/volumes/{name}"):  # nobody is filling it
            paths += [f"volumes/{name}/{each}" for each in inside if each.endswith(".new")]
    return [path for path in paths if _is_free(f"{root}/{path}")]


def _is_free(path: str) -> bool:
    """Return whether nobody holds a lock on ``path``."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
