"""Our Specs under other runtimes: runc and crun must read them and start what we would start."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from minibox.docker_words.limits import Ulimit
from minibox.docker_words.mounts import parse_tmpfs
from minibox.engine.spec.host import host_facts
from minibox.engine.spec.options import RunOptions
from minibox.engine.spec.runtime_spec import complete, make_spec
from tests.probes import requires

SCRIPT = """
busybox id
busybox unshare -u true || echo no namespaces
busybox grep -E '^(CapEff|Seccomp):' /proc/self/status
busybox ls /dev/pts /dev/shm > /dev/null && echo devices
echo x 2> /dev/null > /proc/sys/kernel/hostname || echo read-only
busybox hostname
ulimit -n
pwd
"""


@requires("root")
@pytest.mark.parametrize(
    "runtime", [pytest.param(each, marks=requires(f"command:{each}")) for each in ("runc", "crun")]
)
def test_other_runtimes_start_our_spec(runtime, state):
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("needs a static busybox")
    bundle = Path(state) / "bundle"
    (bundle / "rootfs/bin").mkdir(parents=True)
    shutil.copy(busybox, bundle / "rootfs/bin/busybox")
    (bundle / "rootfs/bin/sh").symlink_to("busybox")
    options = RunOptions(
        image="base", command=("/bin/sh", "-c", SCRIPT), hostname="box", ulimit=(Ulimit("nofile", 100, 200),), workdir="/made/here",
        user="7:8", cap_drop=("ALL",), tmpfs=(parse_tmpfs("/scratch:size=1m"),), memory_bytes=None,
    )  # fmt: skip
    spec = make_spec(
        options, {}, lookup=lambda path: "", host=host_facts(), container_id="f" * 64, rootfs="rootfs",
        root=str(state),
    )  # fmt: skip
    (bundle / "config.json").write_text(json.dumps(complete(spec)))
    name = f"minibox-interop-{os.getpid()}"
    command = [runtime, "--root", str(Path(state) / "runtime"), "run", "--bundle", str(bundle), name]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    if "hybrid mode not supported" in done.stderr:
        pytest.skip(f"{runtime} refuses hosts with both versions of cgroups")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "uid=7 gid=8 groups=8", "no namespaces", "CapEff:\t0000000000000000", "Seccomp:\t2", "devices", "read-only",
        "box", "100", "/made/here",
    ]  # fmt: skip
