"""What a run would do: the rows and the shell script of its Plan, without a container being made."""

from __future__ import annotations

import os

from minibox.engine import networking
from minibox.engine.files import unpack
from minibox.engine.id_map_support import refusal
from minibox.engine.ids import FIRST_ID, RANGE, IdMappings, own_ids
from minibox.engine.port_words import with_address
from minibox.engine.prepare import Identity, Prepared, prepare, wants_own_ids
from minibox.image.store import ImageStore
from minibox.linux import cgroup
from minibox.plan import explain as plan_explain
from minibox.plan import shell
from minibox.storage.drivers import snapshotter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.engine.options import RunOptions
    from minibox.oci.runtime import LinuxIDMapping
    from minibox.storage.snapshot import Snapshot

EXAMPLE_ID = "0123456789abcdef" * 4
EXAMPLE_TERMINAL = (24, 80)


def explain(options: RunOptions, *, root: str, storage_driver: str = "") -> list[dict[str, Any]]:
    """The plan's rows, see `plan.explain.rows`; the image is unpacked when it isn't yet, nothing else happens.

    Raises:
        MiniboxError: what `run` would raise before its first step.
    """
    prepared, _ = _prepare(options, root, storage_driver, EXAMPLE_ID)
    rows = plan_explain.rows(prepared.plan)
    for row in rows:
        if row["operation"] == "create_cgroup":
            row["shell"] = "\n".join(step.shell() for step in prepared.cgroup_steps)
        elif row["operation"] == "write_id_maps":
            linux = prepared.spec["linux"]
            row["arguments"] = {"uid": _maps(linux["uidMappings"]), "gid": _maps(linux["gidMappings"])}
            pairs = ("uid", linux["uidMappings"]), ("gid", linux["gidMappings"])
            row["shell"] = "\n".join(_mapping_command(kind, mappings) for kind, mappings in pairs)
    return rows


def script(options: RunOptions, *, root: str, storage_driver: str = "") -> str:
    """The plan as a shell script that starts the same container; see `plan.shell.script`.

    Raises:
        Unsupported: the plan is not simple enough for one.
        MiniboxError: what `run` would raise before its first step.
    """
    container_id = os.urandom(32).hex()  # its own, so that two scripts can run at once
    prepared, snapshot = _prepare(options, root, storage_driver, container_id)
    directory = prepared.spec["root"]["path"].removesuffix("/root/root")
    made = [step.path for step in prepared.cgroup_steps if step.op == "mkdir"]
    return shell.script(
        prepared.plan,
        before=(
            f"mkdir -p {directory}",
            _snapshot_command(storage_driver, snapshot),
            f"printf '127.0.0.1 localhost\\n' > {directory}/hosts",
            f"echo {shell.quote(prepared.spec['hostname'])} > {directory}/hostname",
            f"cp /etc/resolv.conf {directory}/resolv.conf",
        ),
        cgroup=tuple(step.shell() for step in prepared.cgroup_steps),
        born_in=cgroup.planned(prepared.cgroup_host, prepared.cgroup_name, prepared.cgroup_steps).v2,
        after=(*(f"rmdir {path}" for path in reversed(made)), f"rm -rf {directory}"),
    )


def _snapshot_command(driver: str, snapshot: Snapshot) -> str:
    """What the driver's `prepare` does."""
    if snapshot.kind != "tree":
        return f"mkdir {snapshot.upper} {os.path.dirname(snapshot.upper)}/work"
    clone = "btrfs subvolume snapshot" if driver == "btrfs" else "cp --archive --reflink=auto"
    return f"{clone} {snapshot.lowers[0]} {snapshot.upper} >/dev/null"


def _maps(mappings: list[LinuxIDMapping]) -> str:
    return ", ".join(f"{each['containerID']} {each['hostID']} {each['size']}" for each in mappings)


def _mapping_command(kind: str, mappings: list[LinuxIDMapping]) -> str:
    """Root writes the map; an ordinary user may write one id, and asks a set-uid program for more."""
    if os.geteuid() and len(mappings) > 1:
        return f'new{kind}map "$INIT" {_maps(mappings).replace(",", "")}'
    deny = 'echo deny > "/proc/$INIT/setgroups"; ' if os.geteuid() and kind == "gid" else ""
    return f'{deny}echo {_maps(mappings)} > "/proc/$INIT/{kind}_map"'


def _prepare(options: RunOptions, root: str, storage_driver: str, container_id: str) -> tuple[Prepared, Snapshot]:
    store = ImageStore(root)
    with store.layout.adding():  # nobody removes the layers meanwhile
        return _prepare_on(store, options, storage_driver, container_id)


def _prepare_on(
    store: ImageStore, options: RunOptions, storage_driver: str, container_id: str
) -> tuple[Prepared, Snapshot]:
    root, storage = store.root, snapshotter(store.root, storage_driver)
    image = store.resolve(options.image)
    unpack(storage, store, image)
    euid = os.geteuid()
    ids = None
    if wants_own_ids(options, euid, lambda: refusal(root, storage.driver)):
        first: LinuxIDMapping = {"containerID": 0, "hostID": FIRST_ID, "size": RANGE}
        ids = own_ids() if euid else IdMappings((first,), (first,))
    network = networking.choose(options, euid, root)
    ports, _ = networking.ports_to_publish(with_address(options, os.environ), image.config, network)
    directory = f"{root}/containers/{container_id}"
    identity = Identity(container_id, directory, ids, network.mode, tuple(map(str, ports)))
    prepared = prepare(options, storage, image, identity, EXAMPLE_TERMINAL if options.tty else None, once=options.rm)
    return prepared, storage.describe(container_id, image.chain_ids)
