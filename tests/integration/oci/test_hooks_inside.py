"""Hooks of all six kinds: in which order and where they run, what they are told, and what a failure ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.oci_runtime import Runtime
from tests.probes import requires

pytestmark = [requires("root", "command:busybox")]
FAILING = {"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}
BY_RUNTIME = ("prestart", "createRuntime", "poststart", "poststop")
KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
MOUNTS = "readlink /proc/self/ns/mnt"


def hook(log: Path, kind: str, *more: str, script: str = "", **fields: Any) -> dict[str, Any]:
    """One that appends a line to a log: its kind, its mount namespace, the state that it was given."""
    line = f'echo "{kind} $0 ${{WORD-none}} $({MOUNTS}) $(cat)" >> {log}; {script}'
    # busybox has one path on the host and inside
    return {"path": "/bin/busybox", "args": ["sh", "-c", line, f"zero-{kind}", *more]} | fields


@pytest.fixture
def log(runtime: Runtime) -> Path:
    """A file of one path on the host and inside."""
    directory = runtime.directory / "log"
    directory.mkdir()
    (directory / "lines").touch()
    os.makedirs(f"{runtime.bundle.rootfs}{directory}")
    return directory / "lines"


def with_hooks(runtime: Runtime, log: Path, script: str, **hooks: list[dict[str, Any]]) -> Any:
    spec = runtime.bundle.shell(script) | {"hooks": hooks, "annotations": {"a": "b"}}
    spec["mounts"].append({"destination": str(log.parent), "type": "bind", "source": str(log.parent)})
    return spec


def told(log: Path) -> list[tuple[str, str, str, dict[str, Any]]]:
    """Kind, WORD, mount namespace and state of the hooks that have run."""
    lines = [line.split(" ", 4) for line in log.read_text().splitlines()]
    return [(kind, word, namespace, json.loads(state)) for kind, _, word, namespace, state in lines]


@pytest.mark.skipif(not Path("/bin/busybox").exists(), reason="needs busybox in /bin")
def test_all_kinds_in_their_order_and_place(runtime: Runtime, log: Path):
    hooks = {kind: [hook(log, kind, env=[f"WORD={kind}"]), hook(log, f"{kind}2")] for kind in KINDS}
    runtime.create("c1", with_hooks(runtime, log, f"echo command $({MOUNTS})", **hooks))
    pid = runtime.state("c1")["pid"]
    inside = os.readlink(f"/proc/{pid}/ns/mnt")
    assert [kind for kind, *_ in told(log)] == [
        "prestart", "prestart2", "createRuntime", "createRuntime2", "createContainer", "createContainer2",
    ]  # fmt: skip
    runtime.ok("start", "c1")
    runtime.wait_for("c1", "stopped")
    runtime.ok("delete", "c1")
    found = told(log)
    assert [kind for kind, *_ in found] == [name for kind in KINDS for name in (kind, f"{kind}2")]
    statuses = ["creating"] * 6 + ["created"] * 2 + ["running"] * 2 + ["stopped"] * 2
    for (kind, word, namespace, state), status in zip(found, statuses):
        name = kind.removesuffix("2")
        assert namespace == (os.readlink("/proc/self/ns/mnt") if name in BY_RUNTIME else inside), kind
        assert word == ("none" if kind.endswith("2") else kind)
        assert state["status"] == status and state["id"] == "c1" and state["annotations"] == {"a": "b"}
        assert state["bundle"] == str(runtime.bundle.path) and state["ociVersion"].startswith("1.")
        assert state.get("pid", pid) == pid and ("pid" in state) == (name != "poststop")
    assert runtime.output("c1").read_text() == f"command {inside}\n"


def test_hooks_may_add_to_the_root_before_it_is_pivoted(runtime: Runtime, log: Path):
    """As those of GPU vendors do: from the host, in the container's mount namespace; and inside, before the pivot."""
    target = runtime.bundle.rootfs / "mnt"
    target.mkdir()
    enter = f"nsenter -t $(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/') -m mount -t tmpfs tmpfs {target}"
    by_runtime = {"path": "/bin/sh", "args": ["sh", "-c", f"export PATH=/usr/bin:/bin; {enter}"]}
    inside = {"path": "/bin/sh", "args": ["sh", "-c", f"echo put > {target}/file"]}
    spec = with_hooks(runtime, log, "cat /mnt/file", createRuntime=[by_runtime], createContainer=[inside])
    runtime.create("c1", spec)
    runtime.ok("start", "c1")
    runtime.wait_for("c1", "stopped")
    assert runtime.output("c1").read_text() == "put\n"
    assert not (target / "file").exists()


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_hook_that_fails_ends_the_creation(runtime: Runtime, log: Path, kind: str):
    failing = {"path": "/bin/sh", "args": ["sh", "-c", "echo sorry; exit 3"]}
    spec = with_hooks(runtime, log, "true", **{kind: [failing, hook(log, "next")], "poststop": [hook(log, "poststop")]})
    runtime.write(spec)
    said = runtime.error("create", "--bundle", str(runtime.bundle.path), "c1")
    assert "exit status 3" in said and "/bin/sh" in said
    assert ("sorry" in said) == (kind != "createContainer")
    assert runtime.left() == []
    assert [name for name, *_ in told(log)] == ["poststop"]


def test_a_hook_that_fails_ends_the_start(runtime: Runtime, log: Path):
    failing = {"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}
    runtime.create("c1", with_hooks(runtime, log, "echo ran", startContainer=[failing]))
    assert "error running startContainer hook: exit status 3" in runtime.error("start", "c1")
    assert runtime.wait_for("c1", "stopped")
    assert runtime.output("c1").read_text() == ""


def test_hooks_after_the_end_stop_nothing(runtime: Runtime, log: Path):
    hooks = {"poststop": [FAILING, hook(log, "poststop")]}
    runtime.create("c1", with_hooks(runtime, log, "true", **hooks))
    runtime.ok("start", "c1")
    runtime.wait_for("c1", "stopped")
    runtime.ok("delete", "c1")
    assert [kind for kind, *_ in told(log)] == ["poststop"]
    warnings = [json.loads(line) for line in runtime.log.read_text().splitlines()]
    assert [each["level"] for each in warnings if "exit status 3" in each["msg"]] == ["warning"]


def test_a_hook_after_the_start_that_fails_ends_the_container(runtime: Runtime, log: Path):
    """By version 1.3 of the specification, as by runc; the hooks behind it aren't run, those after the end are."""
    hooks = {"poststart": [hook(log, "first"), FAILING, hook(log, "poststart")], "poststop": [hook(log, "poststop")]}
    runtime.create("c1", with_hooks(runtime, log, "exec sleep 1000", **hooks))
    assert "poststart hook #1" in runtime.error("start", "c1")
    runtime.wait_for("c1", "stopped")
    runtime.ok("delete", "c1")
    for words in ((), ("--detach",)):
        said = runtime.error("run", *words, "--bundle", str(runtime.bundle.path), "c1", stdout=subprocess.DEVNULL)
        assert "poststart hook #1" in said and runtime.left() == []
    assert [kind for kind, *_ in told(log)] == ["first", "poststop"] * 3


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer"])
def test_a_hook_that_takes_too_long(runtime: Runtime, log: Path, kind: str):
    slow = {"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}
    runtime.write(with_hooks(runtime, log, "true", **{kind: [slow]}))
    said = runtime.error("create", "--bundle", str(runtime.bundle.path), "c1")
    assert "killed after 1 s" in said or "timed out" in said
    assert runtime.left() == []


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"path": "bin/sh"}, "'bin/sh' of a createRuntime hook is not absolute"),
        ({"path": "/bin/sh", "timeout": 0}, "timeout 0 of the createRuntime hook /bin/sh is not above 0"),
        ({"path": "/no/such"}, "createRuntime hook #0: /no/such: No such file"),
    ],
)
def test_a_hook_that_can_not_be_run(runtime: Runtime, log: Path, fields: Any, says: str):

    runtime.write(with_hooks(runtime, log, "true", createRuntime=[fields]))
    assert re.search(says, runtime.error("create", "--bundle", str(runtime.bundle.path), "c1"))
