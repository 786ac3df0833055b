"""Mounts that are unusual, beside runc and crun."""

from __future__ import annotations

from typing import Any

import pytest

from tests.oci_runtime import Runtime
from tests.peers import OURS, Make
from tests.probes import requires

pytestmark = requires("root", "command:busybox", "command:runc", "command:crun")
LOOK = "touch {0}/x 2>/dev/null && echo written; grep -c ' {0} ro' /proc/self/mountinfo"


def with_dev(*options: str, script: str, terminal: bool = False) -> Make:
    """A shell script, with more options for the mount on /dev."""

    def make(runtime: Runtime) -> Any:
        spec = runtime.bundle.shell(script)
        for mount in spec["mounts"]:
            if mount["destination"] == "/dev":
                mount["options"] += options
        spec["process"]["terminal"] = terminal
        return spec

    return make


def test_dev_is_read_only_once_all_is_in_it(peers):
    done = peers.same(with_dev("ro", script=f"{LOOK.format('/dev')}; echo x > /dev/null && ls /dev/pts /dev/fd/0"))
    assert done.lines == ["1", "/dev/fd/0", "", "/dev/pts:", "ptmx"]


def test_dev_is_read_only_with_a_terminal_and_a_device_in_it(peers):
    """The console is made later than all other files."""
    ours = peers.all[OURS]
    spec = with_dev("rro", script=f"{LOOK.format('/dev')}; test -c /dev/console && tty; ls /dev/mine", terminal=True)(
        ours
    )
    spec["linux"]["devices"] = [{"type": "c", "path": "/dev/mine", "major": 1, "minor": 3}]
    peers.write(ours, spec)
    assert ours.ok("run", "--bundle", str(ours.bundle.path), "c1").split() == ["1", "/dev/pts/0", "/dev/mine"]


@pytest.mark.parametrize("what", ["a bind mount", "a tmpfs", "the working directory", "what was there"])
def test_a_read_only_tmpfs_has_what_goes_below_it(peers, what):
    def make(runtime: Runtime) -> Any:
        (runtime.directory / "source").mkdir(exist_ok=True)
        options = ["ro", "mode=755", *(["tmpcopyup"] if what == "what was there" else [])]
        spec = runtime.bundle.shell(f"{LOOK.format('/t')}; ls /t")
        spec["mounts"].append({"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": options})
        below = {"destination": "/t/below", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]}
        if what == "a bind mount":
            below = {**below, "type": "bind", "source": str(runtime.directory / "source"), "options": ["bind"]}
        if what in ("a bind mount", "a tmpfs"):
            spec["mounts"].append(below)
        elif what == "the working directory":
            spec["process"]["cwd"] = "/t/below"
        else:
            (runtime.bundle.rootfs / "t/below").mkdir(parents=True, exist_ok=True)
        return spec

    if what == "what was there":  # which crun's tmpcopyup doesn't do for a read-only one
        ours, runc = (peers.run(make)[name] for name in (OURS, "runc"))
        assert ours.lines == runc.lines == ["1", "below"]
    else:
        assert peers.same(make).lines == ["1", "below"]
