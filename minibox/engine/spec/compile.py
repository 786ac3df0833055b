"""Compile options and an image to a Spec and a Plan: what a run would do, before it does anything."""

from __future__ import annotations

import os

from minibox.engine.host.ids import IdMappings
from minibox.engine.spec import image_files
from minibox.engine.spec.cgroup_manager import plan_cgroup
from minibox.engine.spec.host import host_facts
from minibox.engine.spec.limits import disk_bytes
from minibox.engine.spec.runtime_spec import asked_mounts, make_spec
from minibox.errors import Unsupported, UsageError
from minibox.linux import cgroup
from minibox.linux.cgroup.group import shown_hierarchies
from minibox.linux.executable import INIT
from minibox.linux.seccomp import filter_flags
from minibox.linux.seccomp.program import has_default, program_of
from minibox.plan.compiler import compile_plan
from minibox.plan.namespaces import has_one_group
from minibox.plan.parent import systemd_attach
from minibox.plan.rootfs import Rootfs, Stacked
from minibox.plan.start import Start
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from minibox.engine.spec.options import RunOptions, Volume
    from minibox.linux.cgroup import Cgroup, CgroupHost
    from minibox.oci.runtime import Spec
    from minibox.plan.compiler import Plan
    from minibox.plan.disk import Disk
    from minibox.plan.operations import Op
    from minibox.storage.drivers import Snapshotter
    from minibox.storage.snapshot import Snapshot

FILES = {"/etc/hosts": "hosts", "/etc/hostname": "hostname", "/etc/resolv.conf": "resolv.conf"}


@record
class Identity:
    """What is individual to one container.

    Attributes:
        directory: the container's own, under ``root/containers``.
        ids: the id mappings of its user namespace; None: it uses the host's.
        network: the mode in effect: none, host, bridge, pasta or slirp4netns.
        steps: the steps of the start that differ from container to container.
    """

    id: str
    directory: str
    ids: IdMappings | None
    network: str
    steps: IdentitySteps


@record
class IdentitySteps:
    """The steps of a start that differ from one container to the next with the same options.

    Attributes:
        held, ports, network, published: as in `plan.compiler.Start`.
    """

    held: tuple[Op, ...] = ()
    ports: tuple[Op, ...] = ()
    network: tuple[Op, ...] = ()
    published: tuple[Op, ...] = ()


@record
class CompiledRun:
    """A compiled run. Nothing has been executed yet.

    Attributes:
        group: the cgroup that the plan makes on ``cgroup_host``.
        volumes: directories that must exist before the start.
        rootfs: what its root file system is made of.
    """

    spec: Spec
    start: Start
    plan: Plan
    cgroup_host: CgroupHost
    group: Cgroup
    volumes: tuple[Volume, ...]
    rootfs: Rootfs = Rootfs()


def needs_user_namespace(options: RunOptions, euid: int, refusal: Callable[[], str]) -> bool:
    """Return whether the container gets a user namespace of its own.

    Args:
        refusal: returns why layers can't be id-mapped, or "". Called only if root's container needs it.

    Raises:
        Unsupported: ``host`` as an ordinary user, or ``private`` on a host that can't do it.
        UsageError: ``--userns`` has an invalid value.
    """
    if options.userns not in ("", "host", "private", "auto"):
        raise UsageError(f"unknown user namespace mode {options.userns!r}", "one of host, private, auto")
    if euid:
        if options.userns == "host":
            raise Unsupported("--userns host needs root", "leave it out: root inside is you outside")
        return True
    if options.userns in ("private", "auto"):
        if why := refusal():
            raise Unsupported(
                f"--userns {options.userns}: {why}",
                "use Linux 5.19 or newer, and set --root to a directory on ext4, xfs or btrfs; or --userns host",
            )
        return True
    return not options.userns and not options.privileged and not refusal()


def prepare(
    options: RunOptions,
    config: dict[str, Any],
    storage: Snapshotter,
    chain_ids: tuple[str, ...],
    identity: Identity,
    terminal: tuple[int, int] | None,
    *,
    once: bool = False,
) -> CompiledRun:
    """Compile a run. Looks at the host; changes nothing.

    Args:
        config, chain_ids: the image's config, from `checked_config`, and its layers.

    Raises:
        MiniboxError: the options can't be carried out; the message says why.
    """
    snapshot = storage.describe(identity.id, chain_ids)
    euid = os.geteuid()
    own_ids = identity.ids is not None
    id_mapped = own_ids and euid == 0
    facts = host_facts(swap_limit=False)  # cgroup_steps knows what this kernel counts
    mounts = asked_mounts(options, config, facts, root=storage.root, container_id=identity.id, idmap_binds=id_mapped)
    name = f"minibox-{identity.id}"
    spec = make_spec(
        options,
        config,
        lookup=lambda path: image_files.read_text(storage.open_lower, snapshot.lowers, path),
        host=facts,
        container_id=identity.id,
        rootfs=f"{identity.directory}/root/root",
        root=storage.root,
        network=identity.network,
        files={path: f"{identity.directory}/{FILES[path]}" for path in _own_files(snapshot, identity.network)},
        id_mappings=identity.ids,
        idmap_binds=id_mapped,
        cgroups_path=f"/{name}",
        init_path=INIT if options.init or options.idle else "",
        mounts=mounts,
    )
    # A container in a user namespace can't make device nodes, but the ones it is given may be read-only.
    filtered = not own_ids or (id_mapped and bool(options.device))
    host, steps = plan_cgroup(options, spec, identity.id, euid, devices=filtered)
    planned = cgroup.planned(host, name, steps)
    start = Start(
        id_mapped=id_mapped,
        setgroups=not (own_ids and has_one_group(spec)),
        seccomp=program_of(spec, storage.root) or b"",
        seccomp_flags=filter_flags(spec["linux"].get("seccomp")),
        denies_keys=has_default(spec),
        ordinary=bool(euid),
        held=identity.steps.held,
        cgroup_steps=steps,
        cgroups=planned.labels,
        cgroup_joins=(systemd_attach(host.scope, f"/{name}", planned.v2),) if host.joined else (),
        cgroup_mounts=cgroup_mounts(host, planned, euid),
        terminal=terminal,
        network=identity.steps.network,
        ports=identity.steps.ports,
        published=identity.steps.published,
    )
    rootfs = Rootfs(
        identity.directory,
        snapshot.lowers,
        images=snapshot.kind == "erofs",
        tree=snapshot.upper if snapshot.kind == "tree" else "",
        userxattr=bool(euid),
        volatile=once,
        disk=_disk(options, snapshot),
        stacked=tuple(Stacked(*each) for each in snapshot.below),
    )
    return CompiledRun(spec, start, compile_plan(spec, rootfs, start), host, planned, mounts.volumes, rootfs)


def _own_files(snapshot: Snapshot, network: str) -> Iterable[str]:
    """Return the files that the container gets as its own. With the host's files only its name servers differ."""
    if not snapshot.of_host:
        return FILES
    return () if network in ("none", "host") else ("/etc/resolv.conf",)


def _disk(options: RunOptions, snapshot: Snapshot) -> Disk | None:
    """Describe the layer in memory for ``--disk``, with the owner and mode of the layer on disk."""
    size = disk_bytes(options, snapshot.kind)
    if not size:
        return None
    from minibox.plan.disk import Disk

    try:
        status = os.stat(snapshot.upper)
    except FileNotFoundError:  # for `explain`
        return Disk(size)
    owner = (0, 0) if os.geteuid() else (status.st_uid, status.st_gid)  # an ordinary user is root inside
    return Disk(size, status.st_mode & 0o7777, *owner)


def cgroup_mounts(host: CgroupHost, planned: Cgroup, euid: int) -> tuple[tuple[str, str, str], ...]:
    """Return the mounts below /sys/fs/cgroup: v2, or the v1 hierarchies in which the container has a group."""
    if euid and host.mode != "v2":
        return ()
    return shown_hierarchies(host.mode, planned)
