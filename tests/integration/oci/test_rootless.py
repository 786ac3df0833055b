"""`minibox-oci` of an ordinary user, and of root of a user namespace alone, as below a rootless Podman."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import isolation
from tests.conftest import AS_USER, Run
from tests.leaks import SLOWNESS
from tests.oci_runtime import Runtime
from tests.probes import requires, requires_user

pytestmark = [requires("root", "command:busybox"), requires_user]
OWN = [{"containerID": 0, "hostID": isolation.USER_ID, "size": 1}]


@pytest.fixture
def runtime(user_state: Path, user_command: list[str], minibox_user: Run) -> Iterator[Runtime]:
    command = [*user_command[:-1], "minibox.oci_cli"] if user_command[-1] == "minibox" else [f"{user_command[0]}-oci"]
    runtime = Runtime(user_state, command, **AS_USER)
    subprocess.run(["chown", "-R", f"{isolation.USER_ID}:{isolation.USER_ID}", str(runtime.bundle.path)], check=True)
    yield runtime
    runtime.remove_all()
    assert runtime.left() == []


def rootless(runtime: Runtime, script: str, mappings=OWN):
    spec = runtime.bundle.shell(script)
    spec["linux"]["namespaces"].append({"type": "user"})
    spec["linux"]["uidMappings"] = spec["linux"]["gidMappings"] = mappings
    return spec


def test_alone_in_his_namespace(runtime):
    runtime.write(rootless(runtime, "id -u; echo x > /new; exec cat /proc/self/uid_map"))
    lines = runtime.ok("run", "-b", str(runtime.bundle.path), "c1").splitlines()
    assert lines[0] == "0" and lines[1].split() == ["0", str(isolation.USER_ID), "1"]
    assert os.stat(runtime.bundle.rootfs / "new").st_uid == isolation.USER_ID


def test_with_a_range_of_subordinate_ids(runtime):
    first = next(
        int(line.split(":")[1])
        for line in Path("/etc/subuid").read_text().splitlines()
        if line.startswith(isolation.USER_NAME)
    )
    more = [*OWN, {"containerID": 1, "hostID": first, "size": 100}]
    spec = rootless(runtime, "id -u", more)
    spec["process"]["user"] = {"uid": 5, "gid": 6, "additionalGids": [7]}
    spec["process"]["args"] = ["id"]
    runtime.write(spec)
    assert "uid=5 gid=6 groups=7" in runtime.ok("run", "-b", str(runtime.bundle.path), "c1")


def test_its_life(runtime):
    runtime.create("c1", rootless(runtime, "trap 'exit 3' TERM; sleep 1000 & wait"))
    runtime.ok("start", "c1")
    assert runtime.ok("exec", "c1", "id", "-u") == "0\n"
    pid = runtime.state("c1")["pid"]
    assert pid in json.loads(runtime.ok("ps", "-f", "json", "c1"))
    runtime.ok("kill", "c1", "KILL")
    runtime.wait_for("c1", "stopped")
    runtime.ok("delete", "c1")


def test_device_rules_are_not_his_to_make(runtime):
    spec = rootless(runtime, "echo fine")
    spec["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    spec["linux"]["devices"] = [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]
    del spec["linux"]["devices"]
    runtime.write(spec)
    assert runtime.ok("run", "-b", str(runtime.bundle.path), "c1") == "fine\n"


def test_as_root_of_a_user_namespace(runtime):
    """Podman enters its own and asks for a container without another one."""
    spec = runtime.bundle.shell("id -u; cat /proc/self/uid_map; echo $(stat -c %u /bin)")
    spec["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    runtime.write(spec)
    argv = ["unshare", "--user", "--map-root-user", *runtime.argv("run", "-b", str(runtime.bundle.path), "c1")]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=60 * SLOWNESS, stdin=subprocess.DEVNULL, **AS_USER
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "0" and lines[1].split() == ["0", str(isolation.USER_ID), "1"] and lines[2] == "0"


def test_its_default_root_is_the_users(runtime, user_state):
    argv = [each for each in runtime.argv("list", "-q") if each not in ("--root", str(runtime.root))]
    environment = {"XDG_RUNTIME_DIR": str(user_state / "run"), "PATH": os.environ["PATH"]}
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, **AS_USER)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
