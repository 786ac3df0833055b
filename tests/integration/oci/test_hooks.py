"""Hooks of `minibox-oci` that run on the host: their order, state, environment, time, and what a failure does."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.oci_runtime import Runtime
from tests.probes import requires

pytestmark = [requires("root", "command:busybox")]
RUNTIME_KINDS = ("prestart", "createRuntime", "poststart", "poststop")


def hook(script: str, **more: Any) -> dict[str, Any]:
    return {"path": "/bin/sh", "args": ["sh", "-c", script], **more}


def noting(runtime: Runtime, kind: str) -> dict[str, Any]:
    """A hook that writes its state to a file, and its kind to another."""
    return hook(f"echo {kind} >> {runtime.directory}/order; cat > {runtime.directory}/{kind}")


def test_order_and_state(runtime):
    spec = runtime.bundle.shell("sleep 1000") | {"annotations": {"a": "b"}}
    spec["hooks"] = {kind: [noting(runtime, kind)] for kind in reversed(RUNTIME_KINDS)}
    runtime.create("c1", spec)
    order = runtime.directory / "order"
    assert order.read_text().split() == ["prestart", "createRuntime"]
    pid = runtime.state("c1")["pid"]
    runtime.ok("start", "c1")
    assert order.read_text().split() == ["prestart", "createRuntime", "poststart"]
    runtime.ok("delete", "--force", "c1")
    assert order.read_text().split() == list(RUNTIME_KINDS)
    common = {"ociVersion": "1.3.0", "id": "c1", "bundle": str(runtime.bundle.path), "annotations": {"a": "b"}}
    for kind, status in zip(RUNTIME_KINDS, ("creating", "creating", "running", "stopped")):
        found = json.loads((runtime.directory / kind).read_text())
        wanted = common | {"status": status} | ({"pid": pid} if status != "stopped" else {})
        assert found == wanted, kind


def test_they_come_when_all_is_mounted_and_still_writable(runtime):
    """In the container's namespaces, which a hook enters by the pid of the state, as network plug-ins do."""
    script = "pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/'); ls -l /proc/$pid/ns/net > %s; grep -c rootfs/proc /proc/$pid/mounts >> %s"
    path = runtime.directory / "seen"
    spec = runtime.bundle.spec("readlink", "/proc/self/ns/net")
    spec["hooks"] = {"prestart": [hook(script % (path, path))]}
    runtime.write(spec)
    inside = runtime.ok("run", "-b", str(runtime.bundle.path), "c1").strip()
    assert inside in path.read_text() and os.readlink("/proc/self/ns/net") != inside
    assert path.read_text().splitlines()[-1] == "1"


@pytest.mark.parametrize("kind", ["prestart", "createRuntime"])
def test_one_that_fails_stops_the_creation(runtime, kind):
    spec = runtime.bundle.spec("true")
    spec["hooks"] = {kind: [hook("true"), hook("echo no luck >&2; exit 3"), noting(runtime, kind)]}
    runtime.write(spec)
    says = runtime.error("create", "-b", str(runtime.bundle.path), "c1")
    assert says == f"error running {kind} hook #1: /bin/sh: exit status 3: no luck"
    assert runtime.left() == [] and not (runtime.directory / kind).exists()


@pytest.mark.parametrize("kind", ["poststop"])
def test_but_afterwards_it_is_only_told(runtime, kind):
    spec = runtime.bundle.shell("exit 4")
    spec["hooks"] = {kind: [hook("exit 3")]}
    runtime.write(spec)
    assert runtime.run("run", "-b", str(runtime.bundle.path), "c1").returncode == 4
    line = json.loads(runtime.log.read_text().splitlines()[-1])
    assert line["level"] == "warning" and line["msg"].startswith(f"error running {kind} hook #0")
    assert runtime.left() == []


def test_environment_and_arguments(runtime):
    path = runtime.directory / "env"
    spec = runtime.bundle.spec("true")
    spec["hooks"] = {"prestart": [
        {"path": "/bin/sh", "args": ["name", "-c", f"echo $0 $A $HOME > {path}"], "env": ["A=b=c"]},
        hook(f"echo $PATH >> {path}"),
    ]}  # fmt: skip
    runtime.write(spec)
    runtime.ok("run", "-b", str(runtime.bundle.path), "c1")
    lines = path.read_text().splitlines()
    assert lines == ["name b=c", os.environ["PATH"]]


def test_one_that_takes_too_long(runtime):
    spec = runtime.bundle.spec("true")
    spec["hooks"] = {"createRuntime": [hook("sleep 1000", timeout=1)]}
    runtime.write(spec)
    assert "it was killed after 1 s" in runtime.error("create", "-b", str(runtime.bundle.path), "c1")
    spec["hooks"] = {"createRuntime": [{"path": "/no/such/hook"}]}
    runtime.write(spec)
    assert "/no/such/hook: No such file" in runtime.error("create", "-b", str(runtime.bundle.path), "c1")
