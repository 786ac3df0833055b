"""Check what this host offers for containers. Each check says what is missing, what follows, and how to fix it.

If it is cheap, a check tries the thing itself, in processes and namespaces that are gone afterwards; it leaves nothing.
The texts are for a person at a terminal; a fix is a command to paste.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from minibox.base.directories import why_not_ours
from minibox.base.files import text_of
from minibox.base.home import Home
from minibox.base.lines import lines_of
from minibox.base.paths import absolute
from minibox.errors import MiniboxError, NetworkError, ProbeFailed
from minibox.linux.mount_table import file_system_type
from minibox.record import record

Probe = Callable[[str], str]

PASS, DEGRADED, MISSING = "pass", "degraded", "missing"
LOW_SPACE_BYTES = 1 << 30


@record
class Check:
    """The result of one check.

    Attributes:
        name: what was checked.
        status: "pass"; "degraded" if containers start, but something doesn't work; "missing" if no container starts.
        found: what was found.
        consequence: what follows for the user; "" for "pass".
        fix: the command that fixes it, or advice if there is no command; "" for "pass".
    """

    name: str
    status: str
    found: str
    consequence: str = ""
    fix: str = ""


def diagnose(home: Home) -> list[Check]:
    """Check this host for the calling user.

    Args:
        home: its directories may not exist yet.
    """
    import shutil
    import tempfile

    try:
        directory = tempfile.mkdtemp(prefix=".minibox-doctor-", dir=nearest_existing(home.root))
    except OSError:
        directory = tempfile.mkdtemp(prefix="minibox-doctor-")
    try:
        os.chmod(directory, 0o755)  # a probe runs as another user
        probe = partial(_answer, directory)
        return [
            check_kernel(os.uname().release),
            check_cgroups(),
            check_user_namespaces(probe),
            check_ordinary_users(probe),
            check_subordinate_ids(*_user()),
            check_overlay(probe),
            check_idmapped_layers(probe),
            check_storage_drivers(directory, nearest_existing(home.root)),
            check_terminals(probe),
            check_seccomp(),
            *check_network(),
            check_rootless_network(),
            *(check_directory(name, path) for name, path in (("root", home.root), ("runroot", home.runroot))),
        ]
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def check_kernel(release: str) -> Check:
    """Linux 5.12 has mount_setattr(2) and id-mapped mounts; 5.19 supports these below overlayfs, too."""
    numbers = [int(word) for word in release.partition("-")[0].split(".")[:2] if word.isdigit()]
    if numbers < [5, 12]:
        return Check("kernel", MISSING, release, "containers need Linux 5.12", "install a newer kernel and reboot")
    if numbers < [5, 19]:
        return Check(
            *("kernel", DEGRADED, release),
            "root's containers have no user namespace (needs Linux 5.19): root inside is root outside",
            "install a newer kernel and reboot",
        )
    return Check("kernel", PASS, release)


_LIMITS = {"memory": "--memory", "pids": "--pids-limit", "cpu": "--cpus", "cpuset": "--cpuset-cpus"}


def check_cgroups() -> Check:
    """Make and remove a cgroup, and compile one limit of each kind."""
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
    return Check("cgroups", DEGRADED, found, f"these options are refused: {flags}", fix)


def check_user_namespaces(probe: Probe) -> Check:
    """Check user namespaces for this user. They isolate root's containers better, and ordinary users need them."""
    answer, name = probe("user_namespace"), "user namespaces"
    if answer == "ok":
        return Check(name, PASS, f"they work for {'root' if os.geteuid() == 0 else 'this user'}")
    if os.geteuid() == 0:
        return Check(name, DEGRADED, answer, "root inside a container is root outside", _user_namespace_fix())
    return Check(name, MISSING, answer, "only root can run containers", _user_namespace_fix())


def check_ordinary_users(probe: Probe) -> Check:
    """Check whether ordinary users can run containers. For an ordinary user the check before says so already."""
    name = "rootless"
    if os.geteuid() != 0:
        return Check(name, PASS, "you are an ordinary user: see user namespaces")
    answer = probe("ordinary_user_namespace")
    if answer == "ok":
        return Check(name, PASS, "ordinary users can make user namespaces")
    return Check(name, DEGRADED, answer, "only root can run containers", _user_namespace_fix())


_USER_NAMESPACE_SWITCHES = (
    # sysctl, the value that forbids, the value that allows
    ("user.max_user_namespaces", "0", "65536"),
    ("kernel.unprivileged_userns_clone", "0", "1"),  # Debian's
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),  # Ubuntu's, since 23.10
)


def _user_namespace_fix() -> str:
    for name, forbids, allows in _USER_NAMESPACE_SWITCHES:
        if text_of(f"/proc/sys/{name.replace('.', '/')}").strip() == forbids:
            return f"echo {name}={allows} | sudo tee /etc/sysctl.d/60-minibox.conf && sudo sysctl --system"
    if not os.path.exists("/proc/self/ns/user"):
        return "use a kernel built with CONFIG_USER_NS"
    return "a security policy (seccomp, SELinux) or an outer container forbids them: allow unshare and mount there"


def check_subordinate_ids(user: str, uid: int) -> Check:
    """Check newuidmap(1) and its ranges, which give a rootless container more than one id."""
    import shutil

    name = "subordinate ids"
    if uid == 0:
        return Check(name, PASS, "root needs none")
    lost = "rootless containers have only one id: no other users inside, and images with more owners don't unpack"
    programs = [program for program in ("newuidmap", "newgidmap") if not shutil.which(program)]
    if programs:
        return Check(name, DEGRADED, f"no {' and no '.join(programs)}", lost, "sudo apt-get install uidmap")
    for option, path in (("--add-subuids", "/etc/subuid"), ("--add-subgids", "/etc/subgid")):
        if subordinate_ids(text_of(path), user, uid) < 65536:
            found = f"{path} gives {user} fewer than 65536 ids"
            return Check(name, DEGRADED, found, lost, f"sudo usermod {option} {_free_range(text_of(path))} {user}")
    return Check(name, PASS, f"65536 or more for {user}, and newuidmap")


def subordinate_ids(text: str, user: str, uid: int) -> int:
    """How many ids a file like subuid(5) gives to a user, by name or number."""
    fields = [line.split(":") for line in lines_of(text)]
    return sum(int(each[2]) for each in fields if len(each) == 3 and each[0] in (user, str(uid)) and each[2].isdigit())


def _free_range(text: str) -> str:
    """A range of 65536 ids above all others in the file: ``FIRST-LAST``, for usermod(8)."""
    first = 100000
    for line in lines_of(text):
        fields = line.split(":")
        if len(fields) == 3 and fields[1].isdigit() and fields[2].isdigit():
            first = max(first, int(fields[1]) + int(fields[2]))
    return f"{first}-{first + 65535}"


def check_overlay(probe: Probe) -> Check:
    """Mount a root file system of layers, and write to it."""
    answer = probe("overlay")
    if answer == "ok":
        return Check("overlayfs", PASS, "it mounts and can be written to")
    fix = "set --root to a directory on ext4, xfs or btrfs"
    if "overlay" not in text_of("/proc/filesystems"):
        fix = "sudo modprobe overlay"
    elif os.geteuid() != 0 and "EPERM" in answer:
        fix = _user_namespace_fix()
    return Check("overlayfs", MISSING, answer, "containers can't have a root file system", fix)


def check_idmapped_layers(probe: Probe) -> Check:
    """Check id-mapped layers, which give root's containers their own ids without changing owners on disk."""
    name = "id-mapped layers"
    if os.geteuid() != 0:
        return Check(name, PASS, "an ordinary user needs none")
    answer = probe("idmapped_layers")
    if answer == "ok":
        return Check(name, PASS, "overlayfs supports them")
    lost = "root's containers have no user namespace: root inside is root outside"
    return Check(
        name, DEGRADED, answer, lost, "use Linux 5.19 or newer, and set --root to a directory on ext4, xfs or btrfs"
    )


def check_storage_drivers(directory: str, root: str) -> Check:
    """Check which storage drivers work here. ``directory`` is on the file system of ``root``."""
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
    """Check that a container can have a devpts, and whether the user has a terminal."""
    answer = probe("pseudo_terminals")
    if answer != "ok":
        return Check("terminals", DEGRADED, answer, "run -t fails", "sudo mount -t devpts devpts /dev/pts")
    here = "stdin is a terminal" if os.isatty(0) else "stdin is not a terminal now, so -it would be refused"
    return Check("terminals", PASS, f"each container gets its own devpts; {here}")


def check_seccomp() -> Check:
    """Check the kernel's filters, and the library that compiles ours."""
    import ctypes

    actions = text_of("/proc/sys/kernel/seccomp/actions_avail").split()
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
    """Check what `--network bridge` needs. Only root can use it."""
    if os.geteuid() != 0:
        return [Check("nftables", PASS, "an ordinary user doesn't need it")]
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
        lost = "containers on the bridge may not reach the outside, because another program's firewall blocks them"
        checks.append(Check("firewall", DEGRADED, f"{chain} drops packets by default", lost, fix))
    if text_of(firewall.IP_FORWARD).strip() == "1":
        return [*checks, Check("ip forwarding", PASS, "net.ipv4.ip_forward is on")]
    if os.access(firewall.IP_FORWARD, os.W_OK):
        return [*checks, Check("ip forwarding", PASS, "off; minibox turns it on for the first container on a bridge")]
    lost = "containers on the bridge can't reach the outside"
    return [
        *checks,
        Check("ip forwarding", DEGRADED, "off, and minibox can't turn it on", lost, "sysctl -w net.ipv4.ip_forward=1"),
    ]


def check_rootless_network() -> Check:
    """Check for a program that connects rootless containers to the network."""
    import shutil

    name = "rootless network"
    found = [program for program in ("pasta", "slirp4netns") if shutil.which(program)]
    device = "/dev/net/tun"
    if not found:
        lost = "an ordinary user's containers have no network"
        return Check(name, DEGRADED, "neither pasta nor slirp4netns", lost, "sudo apt-get install passt")
    if not os.path.exists(device):
        lost = f"{found[0]} can't make its link, so an ordinary user's containers have no network"
        return Check(name, DEGRADED, f"{found[0]}, but no {device}", lost, "sudo modprobe tun")
    if os.stat(device).st_mode & 0o006 != 0o006 and not (os.geteuid() and os.access(device, os.R_OK | os.W_OK)):
        lost = f"{found[0]} can't make its link, so an ordinary user's containers have no network"
        return Check(name, DEGRADED, f"{found[0]}, but {device} is for root only", lost, f"sudo chmod 666 {device}")
    return Check(name, PASS, " and ".join(found))


def check_directory(name: str, path: str) -> Check:
    """Check one of minibox's directories: is it writable, on which file system is it, and how much space is free?"""
    if unsafe := why_not_ours(path):
        return Check(name, MISSING, str(unsafe), "every command refuses it", unsafe.hint or "")
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
        return Check(name, MISSING, found, f"containers can't write their files on {kind} (overlayfs's upperdir)", fix)
    if free < LOW_SPACE_BYTES:
        return Check(
            name, DEGRADED, found, "images and containers may not fit", f"free space on {existing}, or set --root"
        )
    return Check(name, PASS, found)


def nearest_existing(path: str) -> str:
    """The directory itself, or the nearest one above it that exists."""
    path = absolute(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _answer(directory: str, name: str) -> str:
    """Run a probe. Return "ok", or why it failed."""
    from minibox.engine.host import probes

    try:
        return probes.ask(name, directory).refusal or "ok"
    except ProbeFailed as error:
        return str(error)


def _user() -> tuple[str, int]:
    """Name and id of the user who would run rootless containers: the caller, or the user who called sudo."""
    import pwd

    uid = os.getuid()
    sudo = os.environ.get("SUDO_UID", "")
    if uid == 0 and sudo.isdigit():
        uid = int(sudo)
    try:
        return pwd.getpwuid(uid).pw_name, uid
    except KeyError:
        return str(uid), uid
