"""Explain what a run, an exec or a stop would do: the rows and the shell script of its Plan. Nothing is executed."""

from __future__ import annotations

import os

from minibox.engine.files.rootfs_setup import unpack
from minibox.engine.host.id_map_support import refusal
from minibox.engine.host.ids import example_range, own_ids
from minibox.engine.resources import container_network
from minibox.engine.spec.compile import CompiledRun, Identity, needs_user_namespace, prepare
from minibox.engine.spec.image_config import checked_config
from minibox.engine.spec.ports import with_publish_address
from minibox.image.store import ImageStore
from minibox.plan import explain as plan_explain
from minibox.plan import shell
from minibox.plan.compiler import Plan
from minibox.plan.parent import hold_ids
from minibox.storage.drivers import snapshotter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.base.home import Home
    from minibox.engine.container.exec import ExecOptions
    from minibox.engine.spec.options import RunOptions
    from minibox.storage.snapshot import Snapshot

EXAMPLE_ID = "0123456789abcdef" * 4
EXAMPLE_TERMINAL = (24, 80)


def explain(home: Home, options: RunOptions, *, storage_driver: str = "") -> list[dict[str, Any]]:
    """The rows of a run's plan; see `plan.explain.rows`. This only unpacks the image if needed.

    Raises:
        MiniboxError: as `run` before its first step.
    """
    prepared, _ = _prepare(home, options, storage_driver, EXAMPLE_ID)
    return plan_explain.rows(prepared.plan)


def explain_exec(name_or_id: str, options: ExecOptions, *, root: str) -> list[dict[str, Any]]:
    """The rows of an exec in a running container.

    Raises:
        MiniboxError: as `exec` before its first step.
    """
    from minibox.engine.container.exec import DETACHED_SIZE, exec_of, host_of
    from minibox.engine.container.lifecycle import Process

    with Process(root, name_or_id, "explain a command in") as container:
        command = exec_of(host_of(container), options)
        return plan_explain.rows(command.plan(DETACHED_SIZE if options.tty else None))


def explain_stop(
    home: Home, name_or_id: str, *, timeout_s: float | None = None, signal_number: int = 0
) -> list[dict[str, Any]]:
    """The rows of a stop: ending the processes, and undoing the start.

    Raises:
        ContainerNotFound, ContainerNotRunning
    """
    from minibox.engine.container import removal
    from minibox.engine.container.lifecycle import Process, stop_steps
    from minibox.engine.state import containers

    with Process(home.root, name_or_id, "explain the end of") as container:
        found = containers.read(home.root, container.id)
        asked = stop_steps(container, found, timeout_s, signal_number)
        undone = removal.undo_steps(home, container.id, container.live.undo)
    return plan_explain.rows(Plan((*asked, *undone), 0))


def script(home: Home, options: RunOptions, *, storage_driver: str = "") -> str:
    """A shell script that starts the same container; see `plan.shell.script`.

    Raises:
        Unsupported: the plan is too complex for a script.
        MiniboxError: as `run` before its first step.
    """
    container_id = os.urandom(32).hex()  # a new one, so that two scripts can run at once
    prepared, snapshot = _prepare(home, options, storage_driver, container_id)
    directory = prepared.spec["root"]["path"].removesuffix("/root/root")
    return shell.script(
        prepared.plan,
        before=(
            f"mkdir -p {directory}",
            _snapshot_command(storage_driver, snapshot),
            f"printf '127.0.0.1 localhost\\n' > {directory}/hosts",
            f"echo {shell.quote(prepared.spec['hostname'])} > {directory}/hostname",
            f"cp /etc/resolv.conf {directory}/resolv.conf",
        ),
        after=(f"rm -rf {directory}",),
    )


def _snapshot_command(driver: str, snapshot: Snapshot) -> str:
    """The command that does the same as the driver's `prepare`."""
    if snapshot.kind != "tree":
        return f"mkdir {snapshot.upper} {os.path.dirname(snapshot.upper)}/work"
    clone = "btrfs subvolume snapshot" if driver == "btrfs" else "cp --archive --reflink=auto"
    return f"{clone} {snapshot.lowers[0]} {snapshot.upper} >/dev/null"


def _prepare(home: Home, options: RunOptions, storage_driver: str, container_id: str) -> tuple[CompiledRun, Snapshot]:
    store = ImageStore(home.root)
    with store.layout.adding():  # nobody removes the layers meanwhile
        return _prepare_on(home, store, options, storage_driver, container_id)


def _prepare_on(
    home: Home, store: ImageStore, options: RunOptions, storage_driver: str, container_id: str
) -> tuple[CompiledRun, Snapshot]:
    root, storage = home.root, snapshotter(home.root, storage_driver)
    image = store.resolve(options.image)
    config = checked_config(image.config)
    unpack(storage, store, image)
    euid = os.geteuid()
    ids = None
    if needs_user_namespace(options, euid, lambda: refusal(root, storage.driver)):
        ids = own_ids() if euid else example_range(root, container_id)
    network = container_network.choose(options, euid, root)
    ports, _ = container_network.ports_to_publish(with_publish_address(options, os.environ), config, network)
    directory = f"{root}/containers/{container_id}"
    connection = container_network.Connection.example(network, home.runroot, container_id, ports)
    held = [hold_ids(ids.lease, container_id)] if ids and ids.lease else []
    own = connection.steps(directory, (*held, *connection.held))
    identity = Identity(container_id, directory, ids, network.mode, own)
    prepared = prepare(
        options, config, storage, image.chain_ids, identity, EXAMPLE_TERMINAL if options.tty else None, once=options.rm
    )
    return prepared, storage.describe(container_id, image.chain_ids)
