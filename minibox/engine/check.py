"""`system check`: is all that is on disk as it should be? And `--repair`: away with what isn't."""

from __future__ import annotations

import fcntl
import os

from minibox.engine import names, ownership, removal, state
from minibox.engine.images import uses
from minibox.engine.user_namespace import run_inside
from minibox.errors import StoreBusy, StoreError
from minibox.image.check import DAMAGED, LEFTOVER, Finding, check_images, check_layers
from minibox.image.collect import alone, collect
from minibox.image.inventory import inventory
from minibox.image.layout import Layout
from minibox.record import record
from minibox.storage import DRIVERS, read_record, snapshotter
from minibox.storage.layers import REMOVED
from minibox.storage.removal import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    Row = tuple[str, str, str, tuple[str, ...], tuple[str, ...]]

PATIENCE_S = 10.0
UNFINISHED = "unfinished-"
LAYER_DIRECTORIES = ("layers", *(driver for driver in DRIVERS if driver != "overlay"))
OF_A_LAYOUT = ("blobs", "index.json", "oci-layout")


@record
class Report:
    """What was looked at, and what was found. ``counts`` are of images, blobs, layers and containers."""

    findings: tuple[Finding, ...]
    counts: dict[str, int]

    @property
    def damaged(self) -> int:
        return sum(each.kind == DAMAGED for each in self.findings)


def check(*, root: str, content: bool = True) -> Report:
    """Verify the whole store; nothing is changed.

    Args:
        content: read every blob, and compare every file of an unpacked layer.
    """
    layout = Layout(root)

    def look() -> tuple[list[Row], dict[str, int]]:
        with layout.adding():  # nobody removes anything meanwhile
            needed = uses(root)
            found = [
                *check_images(layout, needed, content=content),
                *check_layers(layout, needed, content=content),
                *check_containers(root),
                *leftovers(root),
            ]
        return [(each.kind, each.what, each.problem, each.affects, each.thing) for each in found], _counts(layout)

    rows, counts = run_inside(look) if os.geteuid() else look()
    return Report(tuple(Finding(*row) for row in rows), counts)


def check_containers(root: str) -> list[Finding]:
    """Verify the containers' states, and that what they stand on is there."""
    layers = {driver: set(snapshotter(root, driver).layers()) for driver in DRIVERS}
    findings = []
    for found in state.containers(root):
        what = f"container {found['Name'] or found['Id'][:12]}"
        live = ownership.is_live(root, found["Id"])
        if found["Status"] == "damaged":
            findings.append(Finding(DAMAGED, what, "its state.json can't be read: minibox rm removes it"))
        elif not live and not os.path.exists(f"{root}/containers/{found['Id']}/state.json"):
            findings.append(Finding(LEFTOVER, what, "its minibox was killed"))
        snapshot = read_record(root, found["Id"])
        if snapshot and snapshot[0] in layers:
            missing = [chain_id for chain_id in snapshot[1] if chain_id not in layers[snapshot[0]]]
            findings += [
                Finding(DAMAGED, what, f"its layer {chain_id} ({snapshot[0]}) is missing") for chain_id in missing
            ]
    return findings


def leftovers(root: str) -> list[Finding]:
    """What killed commands left, and nobody holds any more."""
    findings = [Finding(LEFTOVER, f"container {name[:12]}", "its minibox was killed") for name in _ownerless(root)]
    findings += [Finding(LEFTOVER, f"name {name}", "its container is gone") for name in _free_names(root)]
    findings += [Finding(LEFTOVER, path, "unfinished") for path in _unfinished(root)]
    for name in _listed(f"{root}/images"):
        if name not in OF_A_LAYOUT:
            findings.append(Finding(LEFTOVER, f"images/{name}", "not part of an OCI image layout"))
    return findings


def repair(report: Report, *, root: str, runroot: str) -> Report:
    """Remove what ``report`` found damaged or left over, where nobody needs it; what is wrong afterwards.

    Of an image only the damaged blob goes, so that pulling it again brings no more than that.

    Raises:
        StoreBusy: somebody is adding images for long.
        StoreError: the kernel refused.
    """
    removal.collect(root, runroot)
    layout = Layout(root)

    def work() -> bool:
        with alone(layout, PATIENCE_S) as held:
            if not held:
                return False
            needed = uses(root)
            for each in report.findings:
                if each.thing[:1] == ("blob",):
                    os.unlink(layout.blob_path(each.thing[1]))
                elif each.thing and each.thing[1:] not in needed.layers and each.thing[2] not in needed.chain_ids:
                    snapshotter(root, each.thing[1]).remove_layer(each.thing[2])
            if not any(each.what == "index.json" for each in report.findings):
                collect(layout, lambda: needed)
            for path in _unfinished(root):
                remove_tree(f"{root}/{path}")
            for name in _free_names(root):
                os.unlink(f"{root}/names/{name}")
        return True

    if not (run_inside(work) if os.geteuid() else work()):
        raise StoreBusy("nothing can be repaired now: somebody is pulling, loading or building images")
    return check(root=root, content=bool(report.damaged))


def _counts(layout: Layout) -> dict[str, int]:
    try:
        images = len(inventory(layout))
    except StoreError:  # a finding says it
        images = 0
    return {
        "images": images,
        "blobs": len(_listed(f"{layout.path}/blobs/sha256")),
        "layers": sum(len(snapshotter(layout.root, driver).layers()) for driver in DRIVERS),
        "containers": len(_listed(f"{layout.root}/containers")),
    }


def _ownerless(root: str) -> list[str]:
    return [name for name in _listed(f"{root}/live") if not ownership.is_live(root, name)]


def _free_names(root: str) -> list[str]:
    given = _listed(f"{root}/names")
    return [name for name in given if names.is_nobodys(root, os.readlink(f"{root}/names/{name}"))]


def _unfinished(root: str) -> list[str]:
    """Files and directories below ``root`` that were being written by somebody who is no more."""
    paths = [f"tmp/{name}" for name in _listed(f"{root}/tmp")]
    for directory in LAYER_DIRECTORIES:
        names = _listed(f"{root}/{directory}")
        paths += [f"{directory}/{name}" for name in names if name.startswith((UNFINISHED, REMOVED))]
    return [path for path in paths if _is_free(f"{root}/{path}")]


def _is_free(path: str) -> bool:
    """Whether nobody holds a lock on ``path``."""
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


def _listed(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
