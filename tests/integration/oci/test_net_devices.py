"""The host's network devices in a container: `linux.netDevices`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.oci_runtime import Runtime
from tests.probes import requires

pytestmark = [requires("root", "command:busybox", "command:ip")]

MAC = "02:00:00:00:00:17"


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def device() -> Iterator[str]:
    """A device of the host's, with all that is to stay as it is."""
    name = f"mbt{os.getpid()}"
    ip("link", "add", name, "address", MAC, "mtu", "1300", "type", "veth", "peer", "name", f"{name}p")
    try:
        ip("addr", "add", "192.0.2.7/24", "dev", name)
        ip("addr", "add", "2001:db8::7/64", "dev", name, "nodad")
        ip("addr", "add", "169.254.7.9/16", "scope", "link", "dev", name)
        yield name
    finally:
        # By the end that stays here: the other goes some time after the container, with its network namespace.
        subprocess.run(["ip", "link", "delete", f"{name}p"], check=False, capture_output=True)


@pytest.mark.parametrize("ids", [False, True], ids=["host ids", "own ids"])
@pytest.mark.parametrize("given", ["", "data0"])
def test_it_keeps_what_it_was(runtime: Runtime, device: str, given: str, ids: bool) -> None:
    inside = given or device
    spec = runtime.bundle.shell(f"ip addr show {inside}; cat /proc/sys/net/ipv4/conf/{inside}/forwarding")
    spec["linux"]["netDevices"] = {device: {"name": given} if given else {}}
    spec["linux"]["sysctl"] = {f"net.ipv4.conf.{inside}.forwarding": "1"}
    runtime.write(runtime.bundle.with_ids(spec) if ids else spec)
    shown = runtime.ok("run", "--bundle", str(runtime.bundle.path), "c1")
    assert ",UP" in shown.splitlines()[0]
    for word in (f": {inside}@", "mtu 1300", MAC, "192.0.2.7/24", "2001:db8::7/64"):
        assert word in shown
    assert "169.254.7.9" not in shown
    assert shown.splitlines()[-1] == "1"


def test_a_namespace_that_is_joined_gets_it_too(runtime: Runtime, device: str) -> None:
    holder = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep 1000"], stdout=subprocess.PIPE)
    try:
        assert holder.stdout and holder.stdout.readline()
        spec = runtime.bundle.spec("ip", "link", "show", device)
        path = f"/proc/{holder.pid}/ns/net"
        spec["linux"]["namespaces"] = [{"type": "mount"}, {"type": "network", "path": path}]
        spec["linux"]["netDevices"] = {device: {}}
        runtime.write(spec)
        assert MAC in runtime.ok("run", "--bundle", str(runtime.bundle.path), "c1")
    finally:
        holder.kill()
        holder.communicate()


def test_it_comes_back_when_the_container_cannot_be(runtime: Runtime, device: str) -> None:
    spec = runtime.bundle.spec("/no/such")
    spec["linux"]["netDevices"] = {device: {"name": "data0"}}
    runtime.write(spec)
    assert "/no/such" in runtime.error("create", "--bundle", str(runtime.bundle.path), "c1")
    shown = ip("addr", "show", device)
    assert MAC in shown and "192.0.2.7/24" in shown


@pytest.mark.parametrize(
    ("devices", "says"),
    [
        ({"{device}": {}, "nowhere0": {}}, "move the network device nowhere0: No such device (ENODEV)"),
        ({"{device}": {"name": "lo"}}, "the container's network namespace has a lo"),
        ({"{device}": {"name": "a/b"}}, "'a/b' is not a valid name of a network device"),
        ({"{device}": {"name": "x" * 16}}, "is not a valid name of a network device"),
        ({"{device}": {"name": "one"}, "lo": {"name": "one"}}, "two devices the same name"),
    ],
)
def test_devices_that_cannot_be(runtime: Runtime, device: str, devices: dict[str, dict[str, str]], says: str) -> None:
    spec = runtime.bundle.spec("true")
    spec["linux"]["netDevices"] = {name.format(device=device): value for name, value in devices.items()}
    runtime.write(spec)
    assert says in runtime.error("create", "--bundle", str(runtime.bundle.path), "c1")
    assert MAC in ip("link", "show", device)


def test_the_hosts_network_namespace_is_no_place_for_it(runtime: Runtime, device: str) -> None:
    spec = runtime.bundle.spec("true")
    spec["linux"] |= {"namespaces": [{"type": "mount"}], "netDevices": {device: {}}}
    runtime.write(spec)
    says = runtime.error("create", "--bundle", str(runtime.bundle.path), "c1")
    assert says == "linux.netDevices needs a network namespace of the container"
