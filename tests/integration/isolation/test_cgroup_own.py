"""A container that makes cgroups, as an init system does, makes them below its own: on cgroup v1 in every hierarchy."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.container_box import Box
from tests.oci_runtime import Runtime
from tests.probes import requires

pytestmark = [
    requires("root", "cgroup"),
    pytest.mark.not_in_vm("cgroup v1"),
    pytest.mark.skipif(not Path("/sys/fs/cgroup/memory").exists(), reason="needs cgroup v1"),
]
NAME = f"minibox-scope{os.getpid()}"
#: As systemd does: mount what isn't mounted, and make a cgroup in each hierarchy; those that there are, one a line.
MAKE = f"""
for options in $(cut -d: -f2 /proc/self/cgroup); do
  mkdir -p /tmp/c/$options && mount -t cgroup -o $options none /tmp/c/$options && mkdir /tmp/c/$options/{NAME} && echo $options
done
grep -q '^0::' /proc/self/cgroup && mkdir /tmp/c/v2 && mount -t cgroup2 none /tmp/c/v2 && mkdir /tmp/c/v2/{NAME} && echo v2"""


def hierarchies() -> list[str]:
    """As `MAKE` says them."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return sorted(line.split(":")[1] or "v2" for line in lines)


def made() -> list[str]:
    """The host's directories of them."""
    found = subprocess.run(
        ["find", "/sys/fs/cgroup", "-name", NAME], capture_output=True, text=True
    )  # some go meanwhile
    return sorted(found.stdout.split())


@pytest.mark.parametrize(
    "options",
    [("--privileged",), ("--userns", "host", "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined")],
)
def test_what_a_container_makes_is_below_its_own_and_goes_with_it(box: Box, options: tuple[str, ...]) -> None:
    container_id = box.start("cc", f"{MAKE}\necho ready; exec sleep 1000", *options)
    box.until_logged("cc", "ready")
    assert sorted(box("logs", "cc").stdout.split()) == sorted([*hierarchies(), "ready"])
    found = made()
    assert len(found) == len(hierarchies()) and all(path.endswith(f"/minibox-{container_id}/{NAME}") for path in found)
    box.ok("rm", "-f", "cc")
    assert made() == [] and not list(Path("/sys/fs/cgroup").glob(f"*/minibox-{container_id}"))


def test_what_is_mounted_for_it_is_its_own(box: Box) -> None:
    script = f"cd /sys/fs/cgroup; for h in *; do [ -L $h ] || mkdir $h/{NAME}; done; ls -d */{NAME}"
    for options, least in (("--security-opt", "writable-cgroups=true"), 8), (("--privileged",), 8):
        words = ("run", "--rm", "--network", "none", "--userns", "host", *options, "base", "sh", "-c", script)
        assert len(box.ok(*words).split()) >= least
        assert made() == []


def test_one_that_can_make_none_pays_for_none(box: Box) -> None:
    lines = box.ok("run", "--rm", "--network", "none", "base", "ls", "/sys/fs/cgroup").split()
    assert lines == ["memory"]


def test_minibox_oci(runtime: Runtime) -> None:
    spec = runtime.bundle.shell(f"{MAKE}\necho; ls /sys/fs/cgroup")
    (runtime.bundle.rootfs / "tmp").mkdir()
    for applet in ("cut", "mount", "mkdir"):
        assert (runtime.bundle.rootfs / "bin" / applet).exists()
    spec["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), ["CAP_SYS_ADMIN"])
    spec["linux"]["namespaces"].append({"type": "cgroup"})
    spec["mounts"] += [
        {"destination": "/sys", "type": "sysfs", "source": "sysfs"},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"},
    ]
    runtime.write(spec)
    done = runtime.ok("run", "--bundle", str(runtime.bundle.path), "c1")
    own, _, shown = done.partition("\n\n")
    assert sorted(own.split()) == hierarchies()
    assert made() == []
    names = {name for each in hierarchies() if each != "v2" for name in each.removeprefix("name=").split(",")}
    assert names <= set(shown.split())
