"""What this host can do for containers: each check with its consequence and the exact fix.

Checks try things where that is cheap, in processes and namespaces that are gone afterwards, and
leave nothing. Texts are for a person at a terminal; a fix is a command to paste.
"""

from __future__ import annotations

import os
from functools import partial

from minibox.base.directories import why_not_ours
from minibox.base.lines import lines_of
from minibox.base.paths import absolute
from minibox.errors import MiniboxError, NetworkError, ProbeFailed
from minibox.linux.mount_table import file_system_type
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Probe = Callable[[str], str]

PASS, DEGRADED, MISSING = "pass", "degraded", "missing"
LOW_SPACE_BYTES = 1 << 30


@record
class Check:
    """One thing that containers need.

    Attributes:
        name: what was looked at.
        status: "pass"; "degraded": containers start, and lack something; "missing": none starts.
        found: what is there.
        consequence: what follows for the user; "" on pass.
        fix: the command that changes it, or the words where no command can; "" on pass.
    """

    name: str
    status: str
    found: str
    consequence: str = ""
    fix: str = ""


def diagnose(root: str, runroot: str) -> list[Check]:
    """Look at this host as the calling user would use it.

    Args:
        root: where images and containers are, or will be, kept.
        runroot: where runtime state is kept.
    """
    import shutil
    import tempfile

    try:
        directory = tempfile.mkdtemp(prefix=".minibox-doctor-", dir=nearest_existing(root))
    except OSError:
        directory = tempfile.mkdtemp(prefix="minibox-doctor-")
    try:
        os.chmod(directory, 0o755)  # another user's probe looks in
        probe = partial(_answer, directory)
        return [
            check_kernel(os.uname().release),
            check_cgroups(),
            check_user_namespaces(probe),
            check_ordinary_users(probe),
            check_subordinate_ids(*_user()),
            check_overlay(probe),
            check_idmapped_layers(probe),
            check_storage_drivers(directory, nearest_existing(root)),
            check_terminals(probe),
            check_seccomp(),
            *check_network(),
            check_rootless_network(),
            *(check_directory(name, path) for name, path in (("root", root), ("runroot", runroot))),
        ]
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def check_kernel(release: str) -> Check:
    """5.12 gave id-mapped mounts and mount_setattr(2), 5.19 the former under overlayfs."""
    numbers = [int(word) for word in release.partition("-")[0].split(".")[:2] if word.isdigit()]
    if numbers < [5, 12]:
        return Check("kernel", MISSING, release, "containers need Linux 5.12", "install a newer kernel, and reboot")
    if numbers < [5, 19]:
        return Check(
            *("kernel", DEGRADED, release),
            "root's containers get no user namespace of their own (Linux 5.19); root inside is root outside",
            "install a newer kernel, and reboot",
        )
    return Check("kernel", PASS, release)


_LIMITS = {"memory": "--memory", "pids": "--pids-limit", "cpu": "--cpus", "cpuset": "--cpuset-cpus"}


def check_cgroups() -> Check:
    """Makes and removes a cgroup, and compiles one limit of each kind."""
    from minibox.errors import LimitError
    from minibox.linux.cgroup import cgroup_steps, create, detect
    from minibox.linux.cgroup.scope import scope_host, usable

    host, name = detect(), f"minibox-doctor{os.getpid()}"
    by_systemd = host.mode == "v2" and os.geteuid() != 0 and usable(os.geteuid(), os.environ)
    if by_systemd:
        host = scope_host(f"{name}.scope", euid=os.geteuid(), environ=os.environ)
    refused, fix = [], ""
    asked = {
        "memory": ("memory", "limit"),
        "pids": ("pids", "limit"),
        "cpu": ("cpu", "quota"),
        "cpuset": ("cpu", "cpus"),
    }
    for controller, (key, field) in asked.items():
        try:
            cgroup_steps(host, name, {key: {field: 1 << 30 if field != "cpus" else "0"}})
        except LimitError as error:
            refused.append(controller)
            fix = fix or error.hint or ""
    words = {
        "v1": "cgroup v1",
        "v2": "cgroup v2",
        "hybrid": "cgroup v1 with v2 beside it",
        "none": "no cgroups mounted",
    }
    found = words[host.mode] + (" through systemd" if by_systemd else "")
    if host.usable:
        found += ": " + (
            " ".join(controller for controller in _LIMITS if controller not in refused) or "no controllers"
        )
        try:
            create(host, name, {}).remove()
        except MiniboxError as error:
            return Check("cgroups", DEGRADED, f"{found}; {error}", "limits can't be set", error.hint or "")
    if not refused:
        return Check("cgroups", PASS, found)
    flags = " ".join(_LIMITS[controller] for controller in refused)
    return Check("cgroups", DEGRADED, found, f"refused, since they can't be applied: {flags}", fix)


def check_user_namespaces(probe: Probe) -> Check:
    """For whoever runs this: root isolates with them, a user can't do without."""
    answer, name = probe("user_namespace"), "user namespaces"
    if answer == "ok":
        return Check(name, PASS, f"work for {'root' if os.geteuid() == 0 else 'this user'}")
    if os.geteuid() == 0:
        return Check(name, DEGRADED, answer, "root inside a container is root outside", _user_namespace_fix())
    return Check(name, MISSING, answer, "only root can run containers", _user_namespace_fix())


def check_ordinary_users(probe: Probe) -> Check:
    """Rootless containers; for an ordinary user the check before has said it."""
    name = "rootless"
    if os.geteuid() != 0:
        return Check(name, PASS, "this is an ordinary user: see user namespaces")
    answer = probe("ordinary_user_namespace")
    if answer == "ok":
        return Check(name, PASS, "ordinary users may make user namespaces")
    return Check(name, DEGRADED, answer, "only root can run containers", _user_namespace_fix())


_USER_NAMESPACE_SWITCHES = (
    # sysctl, the value that forbids, the value that allows
    ("user.max_user_namespaces", "0", "65536"),
    ("kernel.unprivileged_userns_clone", "0", "1"),  # Debian's
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),  # Ubuntu's, since 23.10
)


def _user_namespace_fix() -> str:
    for name, forbids, allows in _USER_NAMESPACE_SWITCHES:
        if _text(f"/proc/sys/{name.replace('.', '/')}").strip() == forbids:
            return f"echo {name}={allows} | sudo tee /etc/sysctl.d/60-minibox.conf && sudo sysctl --system"
    if not os.path.exists("/proc/self/ns/user"):
        return "use a kernel built with CONFIG_USER_NS"
    return "a security policy or an outer container forbids them (seccomp, SELinux): allow unshare and mount there"


def check_subordinate_ids(user: str, uid: int) -> Check:
    """newuidmap(1) and its ranges: with them a rootless container has more ids than one."""
    import shutil

    name = "subordinate ids"
    if uid == 0:
        return Check(name, PASS, "root needs none")
    lost = "rootless containers have one id only: no other users inside, and images with more owners don't unpack"
    programs = [program for program in ("newuidmap", "newgidmap") if not shutil.which(program)]
    if programs:
        return Check(name, DEGRADED, f"no {' and no '.join(programs)}", lost, "sudo apt-get install uidmap")
    for option, path in (("--add-subuids", "/etc/subuid"), ("--add-subgids", "/etc/subgid")):
        if subordinate_ids(_text(path), user, uid) < 65536:
            found = f"{path} gives {user} fewer than 65536 ids"
            return Check(name, DEGRADED, found, lost, f"sudo usermod {option} {_free_range(_text(path))} {user}")
    return Check(name, PASS, f"65536 or more for {user}, and newuidmap")


def subordinate_ids(text: str, user: str, uid: int) -> int:
    """How many ids a text as of subuid(5) gives a user, by name or number."""
    fields = [line.split(":") for line in lines_of(text)]
    return sum(int(each[2]) for each in fields if len(each) == 3 and each[0] in (user, str(uid)) and each[2].isdigit())


def _free_range(text: str) -> str:
    """65536 ids above all that the text gives away: ``FIRST-LAST`` for usermod(8)."""
    first = 100000
    for line in lines_of(text):
        fields = line.split(":")
        if len(fields) == 3 and fields[1].isdigit() and fields[2].isdigit():
            first = max(first, int(fields[1]) + int(fields[2]))
    return f"{first}-{first + 65535}"


def check_overlay(probe: Probe) -> Check:
    """A root file system of layers, mounted and written to."""
    answer = probe("overlay")
    if answer == "ok":
        return Check("overlayfs", PASS, "mounts and takes writes")
    fix = "set --root to a directory on ext4, xfs or btrfs"
    if "overlay" not in _text("/proc/filesystems"):
        fix = "sudo modprobe overlay"
    elif os.geteuid() != 0 and "EPERM" in answer:
        fix = _user_namespace_fix()
    return Check("overlayfs", MISSING, answer, "containers can't have a root file system", fix)


def check_idmapped_layers(probe: Probe) -> Check:
    """What gives root's containers ids of their own without changing owners on disk."""
    name = "id-mapped layers"
    if os.geteuid() != 0:
        return Check(name, PASS, "an ordinary user needs none")
    answer = probe("idmapped_layers")
    if answer == "ok":
        return Check(name, PASS, "overlayfs takes them")
    lost = "root's containers get no user namespace of their own; root inside is root outside"
    return Check(
        name, DEGRADED, answer, lost, "use Linux 5.19 or newer, and set --root to a directory on ext4, xfs or btrfs"
    )


def check_storage_drivers(directory: str, root: str) -> Check:
    """Which of --storage-driver work here: tried in ``directory``, which is on the file system of ``root``."""
    from minibox.storage import btrfs, clone, erofs

    reflinks = clone.can_reflink(directory)
    found = ["overlay", "copy (by reflinks)" if reflinks else "copy (byte by byte)"]
    missing = []
    for name, why in (("btrfs", btrfs.refusal(directory, root)), ("erofs", erofs.refusal(directory))):
        if why:
            missing.append(f"not {name} ({why})")
        else:
            found.append(name)
    return Check("storage drivers", PASS, "; ".join([", ".join(found), *missing]))


def check_terminals(probe: Probe) -> Check:
    """A devpts for the container, and what is in front of the user."""
    answer = probe("pseudo_terminals")
    if answer != "ok":
        return Check("terminals", DEGRADED, answer, "run -t fails", "sudo mount -t devpts devpts /dev/pts")
    here = "stdin is a terminal" if os.isatty(0) else "stdin is none now, so -t would be refused"
    return Check("terminals", PASS, f"a devpts of its own for each container; {here}")


def check_seccomp() -> Check:
    """The kernel's filters, and the library that compiles ours."""
    import ctypes

    actions = _text("/proc/sys/kernel/seccomp/actions_avail").split()
    if "errno" not in actions:
        fix = "use a kernel built with CONFIG_SECCOMP_FILTER, or run with --security-opt seccomp=unconfined"
        return Check("seccomp", MISSING, "no filters in this kernel", "system calls can't be restricted", fix)
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        fix = "sudo apt-get install libseccomp2"
        return Check("seccomp", MISSING, "no libseccomp.so.2", "the system call filter can't be compiled", fix)
    return Check("seccomp", PASS, "filters in the kernel, and libseccomp.so.2")


def check_network() -> list[Check]:
    """What `--network bridge` needs, of root."""
    if os.geteuid() != 0:
        return [Check("nftables", PASS, "an ordinary user needs none")]
    from minibox.network import firewall

    lost = "--network bridge fails; none and host work"
    try:
        firewall.find_nft()
        firewall.generation()
    except NetworkError as error:
        fix = "modprobe nf_tables" if "ask the kernel" in str(error) else "apt-get install nftables"
        return [Check("nftables", DEGRADED, str(error), lost, fix)]
    checks = [Check("nftables", PASS, "nft and the kernel's nf_tables")]
    for chain in firewall.blocking_chains():
        rule = f"nft insert rule {chain} {{}} accept"
        fix = rule.format('iifname "minibox0"') + "\n" + rule.format('oifname "minibox0"')
        lost = "containers on the bridge may not reach the outside: another program's firewall decides"
        checks.append(Check("firewall", DEGRADED, f"{chain} drops what it has no rule for", lost, fix))
    if _text(firewall.IP_FORWARD).strip() == "1":
        return [*checks, Check("ip forwarding", PASS, "net.ipv4.ip_forward is on")]
    if os.access(firewall.IP_FORWARD, os.W_OK):
        return [*checks, Check("ip forwarding", PASS, "off; minibox switches it on for the first bridged container")]
    lost = "containers on the bridge can't reach the outside"
    return [
        *checks,
        Check("ip forwarding", DEGRADED, "off, and not ours to set", lost, "sysctl -w net.ipv4.ip_forward=1"),
    ]


def check_rootless_network() -> Check:
    """A program that carries a rootless container's traffic."""
    import shutil

    name = "rootless network"
    found = [program for program in ("pasta", "slirp4netns") if shutil.which(program)]
    device = "/dev/net/tun"
    if not found:
        lost = "an ordinary user's containers have no network"
        return Check(name, DEGRADED, "neither pasta nor slirp4netns", lost, "sudo apt-get install passt")
    if not os.path.exists(device):
        lost = f"{found[0]} can't make its link, so an ordinary user's containers have no network"
        return Check(name, DEGRADED, f"{found[0]}, and no {device}", lost, "sudo modprobe tun")
    if os.stat(device).st_mode & 0o006 != 0o006 and not (os.geteuid() and os.access(device, os.R_OK | os.W_OK)):
        lost = f"{found[0]} can't make its link, so an ordinary user's containers have no network"
        return Check(name, DEGRADED, f"{found[0]}, and {device} for root only", lost, f"sudo chmod 666 {device}")
    return Check(name, PASS, " and ".join(found))


def check_directory(name: str, path: str) -> Check:
    """A directory of ours: that it can be written, where it is, and how much fits."""
    if unsafe := why_not_ours(path):
        return Check(name, MISSING, str(unsafe), "no command uses it", unsafe.hint or "")
    existing = nearest_existing(path)
    if not os.access(existing, os.W_OK | os.X_OK):
        lost, fix = "nothing can be stored", f"sudo install -d -o {os.geteuid()} {path}"
        return Check(name, MISSING, f"{path}: {existing} is not writable", lost, fix)
    kind = file_system_type(existing) or "an unknown file system"
    usage = os.statvfs(existing)
    free = usage.f_bavail * usage.f_frsize
    found = f"{path} on {kind}, {free / (1 << 30):.1f} GiB free"
    if name != "root":
        return Check(name, PASS, f"{path} on {kind}")
    from minibox.storage.overlay import UNSUITABLE_UPPER

    if kind in UNSUITABLE_UPPER:
        fix = "--root DIRECTORY on ext4, xfs or btrfs; or MINIBOX_ROOT=DIRECTORY; or --storage-driver copy"
        return Check(name, MISSING, found, f"{kind} can't hold what a container writes (overlayfs's upperdir)", fix)
    if free < LOW_SPACE_BYTES:
        return Check(
            name, DEGRADED, found, "images and containers may not fit", f"free space on {existing}, or set --root"
        )
    return Check(name, PASS, found)


def nearest_existing(path: str) -> str:
    """The directory itself or the nearest above it that exists."""
    path = absolute(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _answer(directory: str, name: str) -> str:
    """What a probe says: "ok", or why not, as far as that is known."""
    from minibox.engine.host import probes

    try:
        return probes.ask(name, directory).refusal or "ok"
    except ProbeFailed as error:
        return str(error)


def _user() -> tuple[str, int]:
    """Who would run rootless containers: the caller, or who called sudo. Name and id."""
    import pwd

    uid = os.getuid()
    sudo = os.environ.get("SUDO_UID", "")
    if uid == 0 and sudo.isdigit():
        uid = int(sudo)
    try:
        return pwd.getpwuid(uid).pw_name, uid
    except KeyError:
        return str(uid), uid


def _text(path: str) -> str:
    try:
        with open(path, errors="surrogateescape", newline="\n") as file:
            return file.read()
    except OSError:
        return ""
