"""What a test needs of the machine, looked for rather than guessed from its name.

A test says `@requires("root", "command:skopeo")`. A probe answers None, or what is missing: then the
test is skipped, and in CI (``MINIBOX_REQUIRE=all``, or a comma-separated list of probes) it fails.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from minibox.linux import lsm

Missing = str | None


def requires(*names: str) -> pytest.MarkDecorator:
    """Mark a test, class or module with the probes it needs: ``root``, ``user``, ``command:NAME``, ..."""
    for name in names:
        if name.partition(":")[0] not in PROBES:
            raise ValueError(f"no probe called {name}; there are {', '.join(sorted(PROBES))}")
    return pytest.mark.requires(*names)


@functools.cache
def missing(name: str) -> Missing:
    """What the probe ``name`` ("probe" or "probe:argument") finds missing, or None."""
    probe, _, argument = name.partition(":")
    return PROBES[probe](argument)


def missing_is_failure(name: str) -> bool:
    """Whether this run insists on the probe ``name``."""
    required = os.environ.get("MINIBOX_REQUIRE", "").split(",")
    return "all" in required or name in required


def _root(_: str) -> Missing:
    return None if os.geteuid() == 0 else "root"


def _command(name: str) -> Missing:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    return None if shutil.which(name, path=path) else f"the command {name}"


def _commit(name: str) -> Missing:
    """A commit of this repository's history, which a shallow clone lacks."""
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"],
        cwd=Path(__file__).parent, capture_output=True, check=False,
    )  # fmt: skip
    return None if done.returncode == 0 else f"the commit {name}: git fetch --unshallow brings the whole history"


def _user(_: str) -> Missing:
    """An ordinary user of ours: root makes one, and it must be able to start this Python."""
    if os.geteuid() != 0:
        return "root, to run something as an ordinary user"
    if not Path("/proc/self/ns/user").exists():
        return "user namespaces"
    return _command("newuidmap") or _unreachable(Path(sys.executable).resolve())


def _unreachable(path: Path) -> Missing:
    for part in (path, *path.parents):
        if not part.stat().st_mode & 0o001:
            return f"a Python that others may run ({part} keeps them out)"
    return None


def _cgroup(controller: str) -> Missing:
    """A controller of either hierarchy, or just any cgroup."""
    v1 = {line.split()[0] for line in _text("/proc/cgroups").splitlines() if not line.startswith("#")}
    v2 = set(_text("/sys/fs/cgroup/cgroup.controllers").split())
    mounted = {path.name for path in Path("/sys/fs/cgroup").iterdir()} if os.path.isdir("/sys/fs/cgroup") else set()
    usable = v2 | (v1 & mounted)
    return None if (controller in usable or (not controller and usable)) else f"the cgroup controller {controller}"


def kernel_version() -> tuple[int, ...]:
    """Major and minor number."""
    return tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])


def _idmap(_: str) -> Missing:
    """Id-mapped mounts under overlayfs, Linux 5.19."""
    return None if kernel_version() >= (5, 19) else "id-mapped layers (Linux 5.19)"


def _internet(_: str) -> Missing:
    """The machine's own package mirror; the session's network namespace has none (`host_netns` leads back)."""
    netns = os.environ.get("MINIBOX_TEST_HOST_NETNS")
    enter = ["nsenter", f"--net={netns}"] if netns else []
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)"], capture_output=True, text=True, check=False
    )
    mirror = urlsplit(targets.stdout.partition("\n")[0]).hostname or "no mirror"
    done = subprocess.run([*enter, "getent", "hosts", mirror], capture_output=True, check=False, timeout=30)
    return None if done.returncode == 0 else "the internet"


def _apparmor(_: str) -> Missing:
    return None if lsm.has_apparmor() else "AppArmor in the kernel"


def _selinux(_: str) -> Missing:
    return None if "selinuxfs" in _text("/proc/filesystems") else "SELinux in the kernel"


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


PROBES: dict[str, Callable[[str], Missing]] = {
    "root": _root,
    "user": _user,
    "command": _command,
    "commit": _commit,
    "cgroup": _cgroup,
    "idmap": _idmap,
    "internet": _internet,
    "apparmor": _apparmor,
    "selinux": _selinux,
}

requires_root = requires("root")
requires_user = requires("user")
