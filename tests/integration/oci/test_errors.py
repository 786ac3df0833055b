"""What `minibox-oci` refuses: in the log, with the status of runc, and without anything left."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from minibox.linux.lsm import has_apparmor, has_selinux
from tests.conftest import Run
from tests.oci_runtime import Runtime
from tests.probes import requires

pytestmark = [requires("root", "command:busybox")]


@pytest.fixture
def runtime(state: Path, minibox: Run) -> Iterator[Runtime]:
    runtime = Runtime(state)
    yield runtime
    left = runtime.left()
    runtime.remove_all()
    assert left == []


def change(spec, path, value):
    """A copy with another value; None takes it away."""
    changed = copy.deepcopy(spec)
    *above, last = path.split(".")
    place = changed
    for name in above:
        place = place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("ociVersion", "2.0.0", "ociVersion '2.0.0' is not supported"),
        ("ociVersion", "0.6.0", "is not supported"),
        ("ociVersion", "1.x", "is not supported"),
        ("ociVersion", "1.2", "is not supported"),
        ("ociVersion", None, "config.json: the field ociVersion is missing"),
        ("process", None, "process"),
        ("process.args", [], "process.args"),
        ("process.args", "sh", "config.json: process.args: expected a list, got a string"),
        ("process.cwd", "rel", "process.cwd 'rel' is not absolute"),
        ("process.user.uid", -1, "-1 is not an id"),
        ("process.env", ["A=\0"], "null byte"),
        ("root", None, "root.path"),
        ("root.path", "nowhere", "root.path"),
        ("hostname", "box", "needs a uts namespace"),
        ("linux.namespaces", [{"type": "pid"}, {"type": "user"}], "needs a new mount namespace"),
        ("linux.namespaces", [{"type": "mount"}, {"type": "mount"}], "twice"),
        ("linux.namespaces", [{"type": "mount"}, {"type": "user"}], "linux.uidMappings"),
        ("linux.uidMappings", [{"containerID": 0, "hostID": 0, "size": 1}], "linux.uidMappings needs a user namespace"),
        ("linux.timeOffsets", {"boottime": {"secs": 1}}, "linux.timeOffsets needs a time namespace"),
        ("linux.resources", {"memory": {"limit": "64m"}}, "linux.resources.memory.limit: expected an integer"),
        ("process.terminal", True, "cannot allocate tty"),
    ],
)
def test_a_bundle_that_cannot_be(runtime, path, value, says):
    spec = runtime.bundle.spec("true")
    spec["linux"]["namespaces"] = [{"type": "mount"}, {"type": "pid"}]
    runtime.write(change(spec, path, value))
    assert says in runtime.error("create", "--bundle", str(runtime.bundle.path), "c1")


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("network", {"linux": {"sysctl": {"net.ipv4.ip_forward": "1"}}}),
        ("ipc", {"linux": {"sysctl": {"kernel.msgmax": "8192"}}}),
        ("uts", {"hostname": "box"}),
        ("uts", {"linux": {"sysctl": {"kernel.domainname": "box"}}}),
    ],
)
def test_the_hosts_namespace_by_its_path(runtime, kind, change):
    """What is set in it would be set for the host."""
    spec = runtime.bundle.spec("true")
    file = {"network": "net"}.get(kind, kind)
    namespaces = [{"type": "mount"}, {"type": kind, "path": f"/proc/{os.getpid()}/ns/{file}"}]
    spec |= {**change, "linux": {**spec["linux"], "namespaces": namespaces, **change.get("linux", {})}}
    runtime.write(spec)
    says = runtime.error("create", "--bundle", str(runtime.bundle.path), "c1")
    assert f"is not allowed in the hosts {kind} namespace" in says


@pytest.mark.parametrize(
    ("path", "value", "says", "known"),
    [
        ("process.apparmorProfile", "mine", "apparmorProfile 'mine': AppArmor is not enabled", has_apparmor()),
        ("process.selinuxLabel", "u:r:t:s0", "selinuxLabel 'u:r:t:s0': SELinux is not enabled", has_selinux()),
        ("linux.mountLabel", "u:r:t:s0", "mountLabel 'u:r:t:s0': SELinux is not enabled", has_selinux()),
    ],
)
def test_labels_that_the_host_does_not_know(runtime, path, value, says, known):
    """Where it does, this one isn't among them."""
    runtime.write(change(runtime.bundle.spec("true"), path, value))
    assert ("(E" if known else says) in runtime.error("run", "--bundle", str(runtime.bundle.path), "c1")


def test_unconfined_is_no_label(runtime):
    spec = change(runtime.bundle.spec("true"), "process.apparmorProfile", "unconfined")
    runtime.write(change(spec, "process.selinuxLabel", ""))
    runtime.ok("run", "--bundle", str(runtime.bundle.path), "c1")


def test_capabilities_that_nobody_knows_are_a_warning(runtime):
    spec = runtime.bundle.spec("true")
    spec["process"]["capabilities"] = {"bounding": ["CAP_KILL", "CAP_DREAM"]}
    runtime.write(spec)
    runtime.ok("run", "--bundle", str(runtime.bundle.path), "c1")
    warning = json.loads(runtime.log.read_text())
    assert warning["level"] == "warning"
    assert warning["msg"] == "ignoring unknown or unavailable capabilities: [CAP_DREAM]"


def test_config_json_is_missing_or_is_not_json(runtime):
    bundle = str(runtime.bundle.path)
    assert f"{bundle}/config.json not found" in runtime.error("create", "--bundle", bundle, "c1")
    for text, says in (
        ("{", "is not JSON"),
        ("[]", "expected an object, got a list"),
        ("[" * 99999, "nested too deep"),
    ):
        (runtime.bundle.path / "config.json").write_text(text)
        assert says in runtime.error("run", "--bundle", bundle, "c1")


def test_without_a_user_it_is_root(runtime):
    spec = runtime.bundle.spec("id", "-u")
    del spec["process"]["user"]
    runtime.write(spec)
    assert runtime.ok("run", "--bundle", str(runtime.bundle.path), "c1") == "0\n"


def test_unknown_fields_are_ignored(runtime):
    spec = runtime.bundle.spec("echo", "fine") | {"windows": {"x": 1}, "new": [1]}
    runtime.write(spec)
    assert runtime.ok("run", "--bundle", str(runtime.bundle.path), "c1") == "fine\n"


@pytest.mark.parametrize("container_id", ["../x", "a/b", ".", "..", "", "a b", "a\nb", "ü"])
def test_ids(runtime, container_id):
    runtime.write(runtime.bundle.spec("true"))
    says = "invalid container ID format"
    assert says in runtime.error("create", "--bundle", str(runtime.bundle.path), container_id)
    assert says in runtime.error("delete", "--force", container_id)


def test_an_id_that_is_taken(runtime):
    runtime.create("c1", runtime.bundle.spec("true"))
    assert runtime.error("create", "-b", str(runtime.bundle.path), "c1") == "container with id exists: c1"
    assert runtime.state("c1")["status"] == "created"
    runtime.ok("delete", "c1")


def test_a_cgroup_that_another_container_is_in(runtime):
    spec = runtime.bundle.shell("sleep 1000")
    runtime.create("c1", spec)
    assert "File exists" in runtime.error("create", "-b", str(runtime.bundle.path), "c2")
    assert runtime.state("c1")["status"] == "created"
    runtime.ok("start", "c1")
    assert "File exists" in runtime.error("run", "-b", str(runtime.bundle.path), "c2")
    assert runtime.state("c1")["status"] == "running"
    runtime.ok("delete", "--force", "c1")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("nope", 'exec: "nope": executable file not found in $PATH'),
        ("/nope", 'exec: "/nope": stat /nope: no such file or directory'),
        ("/bin", 'exec: "/bin": permission denied'),
        ("/etc/text", 'exec: "/etc/text": permission denied'),
    ],
)
def test_a_command_that_is_not_there(runtime, command, says):
    """In words of which Docker and Podman make 127 and 126."""
    (runtime.bundle.rootfs / "etc").mkdir()
    (runtime.bundle.rootfs / "etc/text").write_text("text")
    runtime.write(runtime.bundle.spec(command))
    assert says in runtime.error("create", "-b", str(runtime.bundle.path), "c1")
    assert says in runtime.error("run", "-b", str(runtime.bundle.path), "c1")
    runtime.create("c2", runtime.bundle.spec("sleep", "1000"))
    runtime.ok("start", "c2")
    assert runtime.error("exec", "c2", command, status=255) == f"exec failed: unable to start container process: {says}"
    runtime.ok("delete", "--force", "c2")


def test_what_only_the_kernel_knows_comes_with_start(runtime):
    (runtime.bundle.rootfs / "garbage").write_bytes(b"\1\2\3")
    (runtime.bundle.rootfs / "garbage").chmod(0o755)
    runtime.create("c1", runtime.bundle.spec("/garbage"))
    assert 'exec: "/garbage": exec format error' in runtime.error("start", "c1")
    runtime.ok("delete", "c1")


def test_a_step_that_fails_undoes_all(runtime):
    spec = runtime.bundle.spec("true")
    spec["mounts"].append({"destination": "/x", "type": "bind", "source": "/no/such", "options": ["bind"]})
    runtime.write(spec)
    assert "/no/such" in runtime.error("create", "-b", str(runtime.bundle.path), "c1")


@pytest.mark.skipif(Path("/run/systemd/system").is_dir(), reason="systemd runs here")
def test_systemd_is_asked_where_it_does_not_run(runtime):
    runtime.write(runtime.bundle.spec("true", cgroupsPath="system.slice:test:c1"))
    words = ["--systemd-cgroup", "create", "-b", str(runtime.bundle.path), "c1"]
    assert "systemd doesn't run on this host" in runtime.error(*words)
    runtime.write(runtime.bundle.spec("true", cgroupsPath="/not/that/form"))
    assert "it has the form slice:prefix:name" in runtime.error(*words)


def test_terminals_and_sockets(runtime, tmp_path):
    spec, bundle = runtime.bundle.spec("true"), str(runtime.bundle.path)
    runtime.write(spec)
    socket = str(tmp_path / "none")
    assert "cannot use console socket" in runtime.error("create", "-b", bundle, "--console-socket", socket, "c1")
    spec["process"]["terminal"] = True
    runtime.write(spec)
    assert "connect to" in runtime.error("create", "-b", bundle, "--console-socket", socket, "c1")
    assert "cannot use console socket" in runtime.error("run", "-b", bundle, "--console-socket", socket, "c1")


def test_a_pid_file_that_cannot_be_written(runtime):
    runtime.write(runtime.bundle.spec("true"))
    says = runtime.error("create", "-b", str(runtime.bundle.path), "--pid-file", "/no/such/pid", "c1")
    assert "write the pid file /no/such/pid" in says
