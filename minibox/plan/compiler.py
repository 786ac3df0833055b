"""Spec -> Plan: every step of a start, in order. Pure: it asks the host nothing and changes nothing.

The order is where the security of a container lies, so here is why it is as it is:

1. Sources of bind mounts are opened while the host's file system is still in sight.
2. The container's root is put together under a private mount namespace, from detached mounts.
3. Everything below it is reached through its descriptor, by paths that can't lead out of it.
4. pivot_root takes the host's file system away before anything of the image has run.
5. Privileges go last, in an order in which each step still has the privilege that it needs.

Source for the order of 5: credentials(7), capabilities(7), seccomp(2).
"""

from __future__ import annotations

from os import fsencode, makedev

from minibox.errors import ConfigError
from minibox.linux import capabilities
from minibox.plan import mounts
from minibox.plan import operations as op
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.oci.runtime import LinuxDevice, Process, Spec
    from minibox.plan.operations import Op

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
CLONE_VM = 0x100
RLIMITS = {
    name: number
    for number, name in enumerate(
        ("CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING",
         "MSGQUEUE", "NICE", "RTPRIO", "RTTIME")
    )
}  # fmt: skip
DEVICE_TYPES = {"c": 0o020000, "u": 0o020000, "b": 0o060000, "p": 0o010000}
O_PATH_DIRECTORY = 0o10200000
OWNERS = "its files keep their ids on disk and show the container's"
INFINITY = (1 << 64) - 1


@record
class Rootfs:
    """What the container's root file system is made of.

    Attributes:
        directory: the container's own directory, with ``upper`` and ``work`` in it.
        lowerdirs: unpacked layers, topmost first.
        images: each layer is not a directory but an EROFS image.
        tree: a directory that is the whole root file system, instead of layers; "" for layers.
        userxattr: overlayfs keeps its marks in ``user.`` attributes, as it must without privilege.
        volatile: nothing is synced to disk at the end; for what is thrown away anyway.
    """

    directory: str
    lowerdirs: tuple[str, ...]
    images: bool = False
    tree: str = ""
    userxattr: bool = False
    volatile: bool = False


@record
class Start:
    """What a start needs to know beside the Spec.

    Attributes:
        id_mapped: files keep the image's ids on disk and are shown with the container's; needs the
            host's root and Linux 5.19. A mounter does it: the container's own processes can't.
        setgroups: the container may change its supplementary groups (a range of ids was mapped).
        seccomp: the compiled filter, an array of ``struct sock_filter``.
        seccomp_flags: of seccomp(2).
        cgroup: the name of its cgroup; "" for none of its own.
        cgroup_tasks: directories of its cgroup in v1 hierarchies; on v2 it is born in it.
        cgroup_joined: it isn't born in its cgroup, but moved there by who may.
        cgroup_mounts: what /sys/fs/cgroup shows: ``("", "cgroup2", "")`` or one entry a v1 hierarchy.
        terminal: rows and columns of the terminal, None for plain streams.
        network: how the network namespace gets its links; "" for not at all.
    """

    id_mapped: bool = False
    setgroups: bool = True
    seccomp: bytes = b""
    seccomp_flags: int = 0
    cgroup: str = ""
    cgroup_tasks: tuple[str, ...] = ()
    cgroup_joined: bool = False
    cgroup_mounts: tuple[tuple[str, str, str], ...] = ()
    terminal: tuple[int, int] | None = None
    network: str = ""


@record
class Plan:
    """A start as data: all steps of all actors, in the order in which they begin."""

    ops: tuple[Op, ...]
    flags: int  # of the clone3(2) that makes the container's first process

    def of(self, actor: str) -> list[Op]:
        """The steps of one actor, in order."""
        return [step for step in self.ops if step.actor == actor]


def compile_plan(spec: Spec, rootfs: Rootfs, start: Start) -> Plan:
    """Compile a start.

    Raises:
        ConfigError: the Spec asks for something that has no meaning here.
    """
    _check(spec)
    wanted = mounts.read(spec.get("mounts", []), start.cgroup_mounts)
    binds = [mount for mount in wanted if mount.bind]
    # A loop device, which an image may need, is none of the container's: its cgroup would forbid it.
    below_mounter = start.id_mapped or rootfs.images
    devices = spec["linux"].get("devices", [])
    handed_over = [mount.destination for mount in binds] + [device["path"] for device in devices if below_mounter]
    if len(handed_over) > op.SLOTS - op.FIRST_BIND:
        raise ConfigError(
            f"{len(handed_over)} bind mounts and devices are more than the {op.SLOTS - op.FIRST_BIND} of one start"
        )
    mounter = _mounter(rootfs, spec, binds, start.id_mapped) if below_mounter else []
    return Plan(
        (
            *_birth(spec, start),
            *([_clone_mounter(start.id_mapped)] if below_mounter else []),
            *map(op.by_mounter, mounter),
            *_identity(spec, start),
            *(_receive(handed_over) if below_mounter else _own_root(rootfs, binds)),
            *_furnish(spec, wanted, below_mounter),
            *_close_up(spec),
            *session(start.terminal, console=True),
            *_network(spec, start),
            *become(spec["process"], start, dies_with_parent=True),
        ),
        _flags(spec),
    )  # fmt: skip


def _check(spec: Spec) -> None:
    """Refuse what would be left out of the plan or stop it half-way."""
    linux = spec["linux"]
    for namespace in linux.get("namespaces", []):
        if namespace["type"] not in NAMESPACES:
            raise ConfigError(f"unknown namespace type {namespace['type']!r}")
        if namespace.get("path"):
            raise ConfigError(f"the {namespace['type']} namespace {namespace['path']} can't be joined, only made anew")
    propagation = linux.get("rootfsPropagation", "")
    if propagation and propagation not in mounts.PROPAGATION:
        raise ConfigError(f"unknown rootfsPropagation {propagation!r}")
    for limit in spec["process"].get("rlimits", []):
        if limit["type"].removeprefix("RLIMIT_") not in RLIMITS:
            raise ConfigError(f"unknown limit {limit['type']!r}")
    for device in linux.get("devices", []):
        if device["type"] not in DEVICE_TYPES:
            raise ConfigError(f"unknown type {device['type']!r} of the device {device['path']}")


def _types(spec: Spec) -> set[str]:
    return {namespace["type"] for namespace in spec["linux"].get("namespaces", [])}


def _flags(spec: Spec) -> int:
    """All at once but two: the root of a cgroup namespace is the cgroup at the time it is made, so it
    waits until the process is in its own; and the clocks of a time namespace can't be set from within."""
    flags = 0
    for kind in _types(spec) - {"cgroup", "time"}:
        flags |= NAMESPACES[kind]
    return flags


def namespace_flags(spec: Spec) -> int:
    """clone(2) flags of all namespaces that the container has of its own."""
    return sum(NAMESPACES[kind] for kind in _types(spec))


def _birth(spec: Spec, start: Start) -> list[Op]:
    """The parent makes the process and gives it its identity."""
    steps = []
    if start.cgroup:
        steps.append(
            op.parent("create_cgroup", start.cgroup, why="a group for the limits, made before its first member")
        )
    steps += [
        op.parent("clone", _flags(spec), why="a process in namespaces of its own"),
        op.die_with_parent("a container must not outlive the minibox that owns it"),
        *_time(spec),
        op.wait(op.TAG_IDENTITY, "until the parent has mapped its ids"),
    ]
    if start.cgroup_joined:
        steps.append(op.parent("join_cgroup", why="this session is somebody else's cgroup: only systemd may move it"))
    if "user" in _types(spec):
        steps.append(op.parent("write_id_maps", why="only a process outside may map more than one id"))
    adjustment = spec["process"].get("oomScoreAdj")
    if adjustment is not None:
        steps.append(op.parent("oom_score_adj", adjustment, why="how soon the kernel kills it when memory runs out"))
    steps.append(op.parent("send", op.TAG_IDENTITY, why="the child may go on"))
    return steps


def _time(spec: Spec) -> list[Op]:
    """A time namespace; time_namespaces(7). unshare(2) makes it for children, whose clocks can then be set;
    that this process enters it too by its exec is new in Linux 6.2, so it does by setns(2).

    Before the ids change: /proc/self/timens_offsets belongs to who cloned this process.
    """
    if "time" not in _types(spec):
        return []
    steps = [op.unshare(NAMESPACES["time"], "clocks of its own, for its children as yet")]
    lines = [
        f"{clock} {offset.get('secs', 0)} {offset.get('nanosecs', 0)}\n"
        for clock, offset in spec["linux"].get("timeOffsets", {}).items()
    ]
    if lines:
        text = "".join(lines).encode()
        steps.append(op.write_file(op.HOST, "/proc/self/timens_offsets", text, "how far they run ahead of the host's"))
    return [
        *steps,
        op.open_("/proc/self/ns/time_for_children", 0, op.SCRATCH, "the namespace that was made"),
        op.setns(op.SCRATCH, NAMESPACES["time"], "into it, now that its clocks are set"),
    ]


def _identity(spec: Spec, start: Start) -> list[Op]:
    types = _types(spec)
    steps = enter_cgroups(start)
    if "user" in types:
        steps += own_ids(start.setgroups)
        steps.append(op.die_with_parent("a change of ids forgets it"))
    if "cgroup" in types:
        steps.append(op.unshare(NAMESPACES["cgroup"], "its own cgroup looks like the root of the hierarchy"))
    return steps


def enter_cgroups(start: Start) -> list[Op]:
    """On v1; on v2 a process is born in its cgroup.

    A thread that moves itself takes no lock on all processes of the host; being moved costs 5 to 20 ms.
    """
    return [
        op.write_fd(slot, b"0", f"into the cgroup {directory}: from here on its limits hold")
        for slot, directory in enumerate(start.cgroup_tasks, op.FIRST_CGROUP)
    ]


def own_ids(setgroups: bool) -> list[Op]:
    """Root of the user namespace that the process is in."""
    return [
        *([op.setgroups((), "the caller's groups stay outside")] if setgroups else []),
        op.setresgid(0, "root inside"),
        op.setresuid(0, "root inside, nobody outside: from here on files are made in its name"),
    ]


def _stage(rootfs: Rootfs) -> list[Op]:
    return [
        op.propagation("/", op.MS_REC | op.MS_PRIVATE, "no mount of ours may reach the host"),
        op.mount("tmpfs", f"{rootfs.directory}/root", "a place to put the layers together, gone with this namespace",
                 source="minibox", options="mode=0755", attributes=op.NOSUID, root=op.HOST),
    ]  # fmt: skip


def _stack(rootfs: Rootfs, id_mapped: bool, ids: tuple[int, int]) -> list[Op]:
    """Mount the overlay of the image's layers and the container's own in ``rootfs.directory``/root.

    Every layer is attached under a number: mount(2) takes one page of options, and a hundred long
    paths don't fit into it.
    """
    stage = f"{rootfs.directory}/root"
    steps = _stage(rootfs)
    layers = [(str(number), path) for number, path in enumerate(rootfs.lowerdirs)]
    for name, path in [*layers, ("rw", rootfs.directory)]:
        what = "the container's own layer" if name == "rw" else f"layer {len(layers) - int(name)} of {len(layers)}"
        if rootfs.images and name != "rw":
            steps.append(op.open_image(path, op.SCRATCH, f"{what}, a read-only file system in a file"))
        else:
            steps.append(op.open_tree(path, op.SCRATCH, f"{what}, as a mount of its own"))
        if id_mapped:
            steps.append(op.id_map(op.SCRATCH, OWNERS))
        steps.append(op.attach(op.SCRATCH, op.HOST, f"{stage}/{name}", "under a short name"))
    steps.append(op.mkdir(op.HOST, f"{stage}/root", "the root to be"))
    if id_mapped:
        steps.append(op.set_fs_ids(*ids, "the overlay works with the ids of who mounts it, and they must be mapped"))
        steps.append(op.die_with_parent("a change of ids forgets it"))
    options = f"lowerdir={':'.join(name for name, _ in layers)},upperdir=rw/upper,workdir=rw/work"
    # What changed must be in the upperdir, for `commit`; some kernels do otherwise by default, never with userxattr.
    options += ",userxattr" if rootfs.userxattr else ",metacopy=off,redirect_dir=off"
    options += ",volatile" if rootfs.volatile else ""
    steps.append(op.mount_overlay(stage, options, "root", "layers read-only below, one read/write layer on top"))
    return steps


def _open_tree(rootfs: Rootfs) -> Op:
    return op.open_tree(rootfs.tree, op.ROOT, "the container's tree, as a mount of its own")


def _tree_attributes(rootfs: Rootfs) -> list[Op]:
    """Attributes of the container's tree, cloned as `op.ROOT`."""
    if rootfs.userxattr:
        return []  # an ordinary user's mounts are locked
    cleared = op.RDONLY | op.NOSUID | op.NODEV | op.NOEXEC | mounts.ATIME
    why = "as the image needs it, whatever the host's mount forbids; and reading doesn't unshare what was cloned"
    return [op.mount_attributes(op.ROOT, why, set_=op.NOATIME, clear=cleared)]


def _clone_mounter(id_mapped: bool) -> Op:
    why = "only the host's root may id-map layers" if id_mapped else "the container may not mount images itself"
    return op.parent("clone_mounter", CLONE_VM | NAMESPACES["mount"], why=why)


def _mounter(rootfs: Rootfs, spec: Spec, binds: list[mounts.Mount], id_mapped: bool) -> list[Op]:
    linux, ids = spec["linux"], (0, 0)
    if id_mapped:
        ids = linux["uidMappings"][0]["hostID"], linux["gidMappings"][0]["hostID"]
    steps = [op.die_with_parent("it must not outlive minibox either")]
    for slot, mount in enumerate(binds, op.FIRST_BIND):
        steps += mounts.open_bind(mount, slot)
    steps += _stage(rootfs) if rootfs.tree else _stack(rootfs, id_mapped, ids)
    handed_over = [mount.destination for mount in binds]
    for device in linux.get("devices", []):
        # Made by the host's root, which may, and given to the container's ids, which a bind of the host's lacks.
        slot, path = op.FIRST_BIND + len(handed_over), f"{rootfs.directory}/root/device-{len(handed_over)}"
        steps.append(_device(device, path, op.HOST, ids))
        steps.append(op.open_tree(path, slot, f"to be {device['path']}"))
        handed_over.append(device["path"])
    if rootfs.tree:
        steps += [_open_tree(rootfs), op.id_map(op.ROOT, OWNERS), *_tree_attributes(rootfs)]
    else:
        steps.append(op.open_tree(f"{rootfs.directory}/root/root", op.ROOT, "the root, detached, to hand it over"))
    steps.append(op.send_fd(op.CHANNEL, op.ROOT, 0, "the container's process attaches it"))
    for slot, destination in enumerate(handed_over, op.FIRST_BIND):
        steps.append(op.send_fd(op.CHANNEL, slot, 0, f"the source of {destination}"))
    return steps


def _receive(handed_over: list[str]) -> list[Op]:
    steps = [
        op.propagation("/", op.MS_REC | op.MS_PRIVATE, "pivot_root wants it, and nothing may reach the host"),
        op.recv_fd(op.ROOT, "the root that the mounter has put together"),
        op.attach(op.ROOT, op.HOST, "/tmp", "in this namespace only, over a directory that every host has"),
    ]
    for slot, destination in enumerate(handed_over, op.FIRST_BIND):
        steps.append(op.recv_fd(slot, f"the source of {destination}"))
    return steps


def _own_root(rootfs: Rootfs, binds: list[mounts.Mount]) -> list[Op]:
    steps: list[Op] = []
    for slot, mount in enumerate(binds, op.FIRST_BIND):
        steps += mounts.open_bind(mount, slot)
    if rootfs.tree:
        return [
            *steps,
            *_stage(rootfs)[:1],
            _open_tree(rootfs),
            op.attach(op.ROOT, op.HOST, f"{rootfs.directory}/root", "in this namespace only"),
            *_tree_attributes(rootfs),
        ]
    steps += _stack(rootfs, False, (0, 0))
    steps.append(op.open_(f"{rootfs.directory}/root/root", O_PATH_DIRECTORY, op.ROOT, "the container's root directory"))
    return steps


def _furnish(spec: Spec, wanted: list[mounts.Mount], below_mounter: bool) -> list[Op]:
    """Mounts, devices and links below the new root."""
    steps: list[Op] = []
    slot = op.FIRST_BIND
    for mount in wanted:
        if mount.bind:
            steps.append(op.attach(slot, op.ROOT, mount.destination, "a bind mount"))
            slot += 1
        else:
            steps.append(mounts.fresh(mount))
    if any(mount.destination == "/dev" and not mount.bind for mount in wanted):
        for path in mounts.DEVICES:
            steps.append(op.bind(path, path, "a device that every program may expect; the host's own"))
        devices = spec["linux"].get("devices", [])
        for parent in sorted({device["path"].rpartition("/")[0] for device in devices} - {"", "/dev"}):
            steps.append(op.mkdir(op.ROOT, parent, "a device is to be in it"))
        for slot_of_device, device in enumerate(devices, slot):
            if below_mounter:
                steps.append(op.attach(slot_of_device, op.ROOT, device["path"], "a device that was asked for"))
            else:
                steps.append(_device(device, device["path"], op.ROOT, (0, 0)))
        for target, path in mounts.DEV_LINKS:
            steps.append(op.symlink(target, path, "programs expect it"))
    if "hostname" in spec:
        steps.append(op.sethostname(spec["hostname"], "the name of the new UTS namespace"))
    if "domainname" in spec:
        steps.append(op.setdomainname(spec["domainname"], "the domain of the new UTS namespace"))
    return steps


def _device(device: LinuxDevice, path: str, root: int, ids: tuple[int, int]) -> Op:
    """Make a node; ``ids`` are those of the container's root, from which its owner is counted."""
    kind = DEVICE_TYPES[device["type"]]
    number = makedev(device.get("major", 0), device.get("minor", 0))
    mode = kind | device.get("fileMode", 0o666) & 0o7777
    uid, gid = ids[0] + device.get("uid", 0), ids[1] + device.get("gid", 0)
    return op.mknod(path, mode, number, uid, gid, "a device that was asked for", root=root)


def _close_up(spec: Spec) -> list[Op]:
    """Nothing below the root changes after this; then the host's file system goes away."""
    linux = spec["linux"]
    steps = []
    for name, value in linux.get("sysctl", {}).items():
        path = f"/proc/sys/{name if '/' in name.partition('.')[0] else _dots_to_slashes(name)}"
        steps.append(op.write_file(op.ROOT, path, fsencode(value), "a kernel setting of the new namespaces"))
    cwd = spec["process"]["cwd"]
    if cwd != "/":
        steps.append(op.mkdir(op.ROOT, cwd, "the working directory, made when missing"))
    steps += [op.read_only(path, "the host's kernel is not for writing") for path in linux.get("readonlyPaths", [])]
    steps += [op.mask(path, "tells of the host") for path in linux.get("maskedPaths", [])]
    if spec.get("root", {}).get("readonly"):
        steps.append(op.mount_attributes(op.ROOT, "a read-only root", set_=op.RDONLY))
    steps.append(op.pivot_root("the container's root becomes /, the host's file system is gone"))
    propagation = linux.get("rootfsPropagation", "")
    if propagation:
        steps.append(op.propagation("/", mounts.PROPAGATION[propagation], "as the Spec wants it"))
    return steps


def _dots_to_slashes(name: str) -> str:
    """``net.ipv4.conf.eth0/1.forwarding`` is the file of the interface eth0.1; sysctl(8)."""
    return "/".join(part.replace("/", ".") for part in name.split("."))


def session(terminal: tuple[int, int] | None, *, console: bool) -> list[Op]:
    """A session of its own, and the standard streams."""
    steps = [
        op.setsid("no terminal of the caller's is within reach"),
        op.session_keyring("nor its keys"),
    ]
    if terminal:
        steps += [
            op.open_pty(*terminal, "a terminal of the container's own"),
            op.send_fd(op.STATUS, op.PTY_MASTER, op.TAG_PTY, "minibox copies between it and the user's"),
        ]
        if console:
            why = "the same terminal, under the name that init systems use"
            steps.append(op.bind_fd(op.PTY_SLAVE, op.HOST, "/dev/console", why))
        steps += [
            op.controlling_tty(op.PTY_SLAVE, "so that Ctrl-C and job control work"),
            op.stdio(op.PTY_SLAVE, op.PTY_SLAVE, op.PTY_SLAVE, "standard streams are the terminal"),
        ]
    else:
        steps.append(op.stdio(op.STDIN, op.STDOUT, op.STDERR, "standard streams, passed through"))
    return steps


def _network(spec: Spec, start: Start) -> list[Op]:
    steps: list[Op] = []
    if "network" in _types(spec):
        steps.append(op.loopback_up("a new network namespace has its loopback down"))
    if start.network:
        steps.append(op.parent("network", start.network, why="wired while the mounts are made"))
    if start.terminal:
        steps.append(op.parent("take_terminal", why="the user inside may open it by name, as tmux(1) does"))
    steps += [
        op.parent("send", op.TAG_GO, why="nothing is missing any more"),
        op.wait(op.TAG_GO, "until network and bookkeeping are ready"),
    ]
    return steps


def become(process: Process, start: Start, *, dies_with_parent: bool) -> list[Op]:
    """From the container's root to the process that was asked for."""
    user = process["user"]
    caps = {name: capabilities.mask_of(names) for name, names in process.get("capabilities", {}).items()}  # type: ignore[arg-type]
    filter_ = op.seccomp(start.seccomp, start.seccomp_flags, "only these system calls") if start.seccomp else None
    no_new_privs = process.get("noNewPrivileges", False)
    steps = [
        op.umask(user.get("umask", 0o022), "files are made with this mask"),
        op.chdir(process["cwd"], "the working directory"),  # opens a descriptor, which a limit may forbid
    ]
    steps += [
        op.setrlimit(
            RLIMITS[limit["type"].removeprefix("RLIMIT_")], limit["soft"], limit["hard"], "a limit of the process"
        )
        for limit in process.get("rlimits", [])
    ]
    steps.append(op.cap_bounding(caps.get("bounding", 0), "what is not in here can never be gained"))
    if start.setgroups:
        steps.append(op.setgroups(tuple(user.get("additionalGids", [])), "the user's groups"))
    if filter_ and not no_new_privs:
        steps.append(filter_)  # needs CAP_SYS_ADMIN, which the next steps drop
    steps += [
        op.setresgid(user["gid"], "the user's group"),
        op.setresuid(user["uid"], "the user"),
        op.capset(
            caps.get("effective", 0), caps.get("permitted", 0), caps.get("inheritable", 0), "only these capabilities"
        ),
    ]
    if caps.get("ambient"):
        steps.append(op.cap_ambient(caps["ambient"], "kept by a command that is not root"))
    if dies_with_parent:
        steps.append(op.die_with_parent("a change of ids forgets it"))
    steps.append(op.close_fds("no descriptor of the host's stays open"))
    if no_new_privs:
        steps.append(op.no_new_privs("no set-uid file gives more"))
        if filter_:
            steps.append(filter_)
    argv, env = tuple(process["args"]), tuple(process.get("env", []))
    steps.append(op.exec_(candidates(argv[0], env), argv, env, "the command"))
    return steps


def candidates(name: str, env: tuple[str, ...]) -> tuple[str, ...]:
    """The paths at which execvp(3) would look for a command, by the container's own PATH."""
    if "/" in name or not name:
        return (name,)
    path = next((item[5:] for item in env if item.startswith("PATH=")), "/usr/local/bin:/usr/bin:/bin")
    return tuple(f"{directory or '.'}/{name}" for directory in path.split(":"))
