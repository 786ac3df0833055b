"""What runc and crun refuse to mount, minibox-oci refuses: /proc and /sys where a link of the image leads."""

from __future__ import annotations

from typing import Any

import pytest

from tests.oci_runtime import Runtime
from tests.peers import OURS, Peers
from tests.probes import requires

pytestmark = requires("root", "command:runc", "command:crun", "command:busybox")


@pytest.mark.parametrize(("name", "fstype"), [("proc", "proc"), ("sys", "sysfs")])
@pytest.mark.parametrize("target", ["a/p", "/vol/real"])
def test_a_link_in_the_place_of_the_kernels(peers: Peers, name: str, fstype: str, target: str) -> None:
    def make(runtime: Runtime) -> Any:
        volume = runtime.directory / "volume"
        for each in ("p", "real"):
            (volume / each).mkdir(parents=True)
        (runtime.bundle.rootfs / name).symlink_to(target)
        spec = runtime.bundle.spec("true")
        binds = [
            {"destination": each, "type": "bind", "source": str(volume), "options": ["rbind"]} for each in ("/a", "/vol")
        ]  # fmt: skip
        other = {"destination": "/sys", "type": "sysfs", "source": "sysfs"}
        return spec | {"mounts": [*binds, spec["mounts"][0], other, *spec["mounts"][1:]]}

    found = peers.run(make)
    assert all(each.status != 0 for each in found.values()), found
    assert f"mount {fstype} on /{name}: a symbolic link is on the way" in found[OURS].errors
