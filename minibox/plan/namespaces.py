"""The namespaces, ids and cgroups of a container's first process, as operations."""

from __future__ import annotations

from minibox.plan import labels, parent
from minibox.plan import operations as op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from minibox.oci.runtime import LinuxIDMapping, Spec
    from minibox.plan.operations import Op
    from minibox.plan.start import Start

# clone(2) flags by the Spec's namespace types
NAMESPACES = {
    "time": 0x80,
    "mount": 0x20000,
    "cgroup": 0x2000000,
    "uts": 0x4000000,
    "ipc": 0x8000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "network": 0x40000000,
}


def types(spec: Spec) -> set[str]:
    """Return the types of the container's new namespaces."""
    return {each["type"] for each in spec.get("linux", {}).get("namespaces", []) if not each.get("path")}


def joined(spec: Spec) -> dict[str, str]:
    """Return the paths of the namespaces to join, by type, in the order of joining.

    A user namespace comes last: a process that may join it has rights over everything that belongs to it, but loses its
    rights over the host's namespaces. An ordinary user gets rights only by joining it: see `_join`.
    """
    found: dict[str, str] = {
        each["type"]: each["path"] for each in spec.get("linux", {}).get("namespaces", []) if each.get("path")
    }
    if not found:
        return found
    return {kind: found[kind] for kind in sorted(found, key=lambda kind: (kind == "user", kind))}


def shares_mounts(spec: Spec) -> bool:
    """Return whether its mounts are made in a namespace shared with others: joined, or the caller's."""
    return "mount" not in types(spec)


def net_devices(spec: Spec) -> dict[str, str]:
    """Return the host's network devices to move into the container, by name outside, with their name inside."""
    devices = spec.get("linux", {}).get("netDevices", {})
    return {name: device.get("name") or name for name, device in devices.items()}


def _all_at_once(spec: Spec) -> int:
    """Return clone(2) flags of all new namespaces except two.

    The root of a cgroup namespace is the cgroup at the time it is made, so it waits until the process is in its own.
    The clocks of a time namespace can't be set from inside.
    """
    return sum(NAMESPACES[kind] for kind in types(spec) - {"cgroup", "time"})


def _needs_sibling(spec: Spec) -> bool:
    """Return whether the process must continue as another one after joining.

    A pid namespace demands it. Joining a user namespace costs the right to join the host's other namespaces, and it
    must own those that are made with it or after it.
    """
    paths = joined(spec)
    return "pid" in paths or "user" in paths or bool(paths and "user" in types(spec))


def has_own_ids(spec: Spec) -> bool:
    """Return whether the user namespace isn't the caller's."""
    return "user" in types(spec) or "user" in joined(spec)


def on_host(inside: int, mappings: Iterable[LinuxIDMapping]) -> int:
    """Return the host's id of an id inside; the same id if it isn't mapped."""
    for entry in mappings:
        if entry["containerID"] <= inside < entry["containerID"] + entry["size"]:
            return entry["hostID"] + inside - entry["containerID"]
    return inside


def clone_flags(spec: Spec) -> int:
    """Return the clone(2) flags of the container's first process."""
    return 0 if _needs_sibling(spec) else _all_at_once(spec)


def namespace_flags(spec: Spec) -> int:
    """Return clone(2) flags of all namespaces that aren't the caller's."""
    return sum(map(NAMESPACES.__getitem__, types(spec) | joined(spec).keys()))


def birth(spec: Spec, start: Start) -> list[Op]:
    """Return the steps in which the parent makes the process and gives it its identity."""
    steps = [
        *start.cgroup_steps,
        parent.clone(clone_flags(spec), start.cgroups, not start.cgroup_joins),
        *dies_with_parent(start, "a container must not outlive its minibox"),
        *_join(spec, start),
        *_time(spec),
        op.wait(op.TAG_IDENTITY, "wait until the parent has mapped its ids"),
    ]
    if _needs_sibling(spec):
        steps.append(parent.take_sibling())
    steps += start.cgroup_joins
    # Before a kernel setting or a hook needs them. The network namespace may not be joined yet, so it is given by path.
    netns = joined(spec).get("network", "")
    steps += [parent.move_device(here, there, netns) for here, there in net_devices(spec).items()]
    if "user" in types(spec):
        steps += id_maps(spec, start)
    adjustment = spec["process"].get("oomScoreAdj")
    if adjustment is not None:
        steps.append(parent.oom_score_adj(adjustment))
    steps.append(parent.send(op.TAG_IDENTITY, "the child may go on"))
    return steps


def id_maps(spec: Spec, start: Start) -> list[Op]:
    """Root writes the maps. An ordinary user may map one id, and needs set-uid programs for more; user_namespaces(7)."""
    linux = spec.get("linux", {})
    maps = {"uid": linux.get("uidMappings", []), "gid": linux.get("gidMappings", [])}
    alone = start.ordinary and has_one_group(spec)
    steps = [parent.deny_setgroups()] if alone else []
    for kind, entries in maps.items():
        lines = tuple([f"{each['containerID']} {each['hostID']} {each['size']}" for each in entries])
        by_program = f"new{kind}map" if start.ordinary and not alone else ""
        steps.append(parent.write_id_map(kind, lines, by_program))
    return steps


def has_one_group(spec: Spec) -> bool:
    """Return whether only one id is mapped. Then groups can't change, since the kernel requires setgroups to be denied."""
    found = spec["linux"].get("gidMappings", [])
    return len(found) == 1 and found[0]["size"] == 1


def dies_with_parent(start: Start, why: str) -> list[Op]:
    """Return a step that kills the process when its parent ends, unless the container is to outlive it."""
    return [] if start.detached else [op.die_with_parent(why)]


def _join(spec: Spec, start: Start) -> list[Op]:
    paths = joined(spec)
    if not paths:
        return []
    slots = dict(zip(paths, range(op.FIRST_JOINED, op.FIRST_BIND)))
    steps: list[Op] = [op.open_(path, 0, slots[kind], f"the {kind} namespace to join") for kind, path in paths.items()]
    if "mount" in paths and (labels.is_labelled(spec["process"]) or "time" in types(spec)):
        steps += labels.hold_proc()
    order = sorted(paths, key=lambda kind: kind != "user") if start.rootless else list(paths)
    if "pid" in paths:
        steps.append(op.undumpable("no process inside may trace or inspect it before its exec"))
    steps += [op.setns(slots[kind], NAMESPACES[kind], f"share the {kind} namespace") for kind in order]
    if _needs_sibling(spec):
        steps.append(op.clone_sibling("only a new process can be in a pid namespace", _all_at_once(spec)))
        steps += dies_with_parent(start, "a new process must ask again")
    return steps


def _time(spec: Spec) -> list[Op]:
    """Return the steps for a time namespace; time_namespaces(7).

    unshare(2) makes it for children, so that its clocks can be set first. Since Linux 6.2 an exec enters it as well;
    setns(2) works everywhere. The steps come before the change of ids, because /proc/self/timens_offsets belongs to the
    user who cloned this process.
    """
    if "time" not in types(spec):
        return []
    steps = [op.unshare(NAMESPACES["time"], "new clocks, for now only for its children")]
    lines = [
        f"{clock} {offset.get('secs', 0)} {offset.get('nanosecs', 0)}\n"
        for clock, offset in spec.get("linux", {}).get("timeOffsets", {}).items()
    ]
    if lines:
        why, text = "set how far they are ahead of the host's", "".join(lines).encode()
        held = (op.PROC, "/self/timens_offsets") if "mount" in joined(spec) else (op.HOST, "/proc/self/timens_offsets")
        steps.append(op.write_proc(*held, text, why))
    path, why = "self/ns/time_for_children", "open the new namespace"
    return [
        *steps,
        # In a shared mount namespace /proc can't be trusted, so use the host's, which is held.
        op.open_at(op.PROC, path, 0, op.SCRATCH, why)
        if "mount" in joined(spec)
        else op.open_(f"/proc/{path}", 0, op.SCRATCH, why),
        op.setns(op.SCRATCH, NAMESPACES["time"], "enter it, now that its clocks are set"),
    ]


def identity(spec: Spec, start: Start) -> list[Op]:
    """Return the steps that the process does itself once the parent has mapped its ids."""
    own = types(spec)
    steps = enter_cgroups(start)
    if has_own_ids(spec):
        steps += own_ids(start.setgroups, *first_ids(spec))
        steps += dies_with_parent(start, "a change of ids resets it")
    if "cgroup" in own:
        steps.append(op.unshare(NAMESPACES["cgroup"], "make its own cgroup look like the root of the hierarchy"))
    return steps


def enter_cgroups(start: Start) -> list[Op]:
    """Enter v1 cgroups; on v2 a process is born in its cgroup.

    A thread that moves itself takes no lock on all processes of the host; being moved takes 5 to 20 ms.
    """
    directories = () if start.cgroup_joins else tasks_of(start.cgroups)
    return [
        op.write_fd(slot, b"0", f"enter the cgroup {directory}: its limits apply from here on")
        for slot, directory in enumerate(directories, op.FIRST_CGROUP)
    ]


def tasks_of(cgroups: tuple[str, ...]) -> tuple[str, ...]:
    """Return the v1 directories in `Start`'s cgroups; a co-mounted one only once."""
    found = (each.partition(":") for each in cgroups)
    return tuple(dict.fromkeys(path for controller, _, path in found if controller))


def first_ids(spec: Spec) -> tuple[int, int]:
    """Return the ids that set up a container: root, or the only user in a namespace that has no root."""
    linux = spec.get("linux", {})
    first = []
    for mappings in (linux.get("uidMappings", []), linux.get("gidMappings", [])):
        alone = len(mappings) == 1 and mappings[0]["size"] == 1
        first.append(mappings[0]["containerID"] if alone else 0)
    return first[0], first[1]


def own_ids(setgroups: bool, uid: int = 0, gid: int = 0) -> list[Op]:
    """Become root of the process's user namespace, or its only user."""
    who = "the only user inside" if uid else "root inside"
    return [
        *([op.setgroups((), "drop the caller's groups")] if setgroups else []),
        op.setresgid(gid, who),
        op.setresuid(uid, f"{who}, unprivileged outside: it owns the files made from here on"),
    ]
