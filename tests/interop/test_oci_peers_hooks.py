"""Where hooks run and with which mask, beside runc and crun."""

from __future__ import annotations

from typing import Any

from tests.oci_runtime import Runtime
from tests.peers import OURS
from tests.probes import requires

pytestmark = requires("root", "command:busybox", "command:runc", "command:crun")
KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def hooked(runtime: Runtime) -> Any:
    """A container whose hooks write down where they are, in a file of one path on the host and inside."""
    log = runtime.directory / "log"
    log.mkdir(exist_ok=True)
    (log / "lines").write_text("")
    spec = runtime.bundle.spec("true")
    spec["mounts"].append({"destination": str(log), "type": "bind", "source": str(log), "options": ["bind"]})
    spec["process"] |= {"cwd": "/bin", "user": {"uid": 0, "gid": 0, "umask": 0o77}}
    spec["hooks"] = {
        kind: [{"path": "/bin/sh", "args": ["sh", "-c", f"echo {kind} $(umask) $(pwd) >> {log}/lines"]}]
        for kind in KINDS
    }
    return spec


def test_where_each_kind_runs_and_with_which_mask(peers):
    assert {each.status for each in peers.run(hooked).values()} == {0}
    places = {}
    for name, runtime in peers.all.items():
        lines = [line.split() for line in (runtime.directory / "log/lines").read_text().splitlines()]
        ran = [kind for kind, *_ in lines]
        # runc and crun run poststart while startContainer may still be running.
        assert ran == list(KINDS) if name == OURS else sorted(ran) == sorted(KINDS)
        places[name] = {kind: (mask, place.replace(str(runtime.bundle.path), "")) for kind, mask, place in lines}
    ours, runc, crun = places.values()
    for kind in ("prestart", "createRuntime", "poststart", "poststop"):
        assert ours[kind] == runc[kind] == crun[kind] == ("0022", ""), kind
    assert ours["createContainer"] == runc["createContainer"] == ("0022", "/rootfs")
    assert crun["createContainer"] == ("0022", "")
    assert ours["startContainer"] == crun["startContainer"]
    assert ours["startContainer"][1] == runc["startContainer"][1] == "/bin"


def test_a_bundle_that_is_gone_keeps_no_hook_from_running(peers):
    ours = peers.all[OURS]
    peers.write(ours, hooked(ours))
    ours.create("c1", hooked(ours))
    ours.ok("start", "c1")
    ours.wait_for("c1", "stopped")
    ours.bundle.path.rename(ours.directory / "elsewhere")
    ours.ok("delete", "c1")
    assert (ours.directory / "log/lines").read_text().split()[-3:] == ["poststop", "0022", "/"]
