"""crun's command line and annotations, where they are other than runc's, beside crun; and those of CRI-O, replayed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.engines import wait_until
from tests.oci_runtime import Runtime
from tests.peers import OURS
from tests.probes import requires

pytestmark = requires("root", "command:busybox", "command:runc", "command:crun")
BOTH = (OURS, "crun")


def test_another_file_in_the_place_of_config_json(peers):
    for name in BOTH:
        runtime = peers.all[name]
        peers.write(runtime, runtime.bundle.spec("echo", "other"))
        other = runtime.directory / "other.json"
        (runtime.bundle.path / "config.json").rename(other)
        bundle = ("--bundle", str(runtime.bundle.path))
        assert runtime.ok("run", "--config", str(other), *bundle, "c1") == "other\n"
        assert runtime.ok("run", "-f", "other.json", *bundle, "c1", cwd=runtime.directory) == "other\n"
        assert runtime.run("run", *bundle, "c1").returncode == 1
        assert runtime.run("run", "--config=none.json", *bundle, "c1").returncode == 1


@pytest.mark.parametrize(("manager", "own"), [("cgroupfs", True), ("disabled", False)])
def test_the_cgroup_manager(peers, manager, own):
    for name in BOTH:
        runtime = peers.all[name]
        peers.write(runtime, runtime.bundle.spec("cat", "/proc/self/cgroup"))
        path = json.loads((runtime.bundle.path / "config.json").read_text())["linux"]["cgroupsPath"]
        argv = runtime.argv("run", "--bundle", str(runtime.bundle.path), "c1")
        argv[1:1] = ["--cgroup-manager", manager]
        done = subprocess.run(argv, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert (path in done.stdout) == own, name
    argv[2] = "bogus"
    for name in BOTH:
        assert subprocess.run([peers.all[name].argv()[0], *argv[1:]], check=False, capture_output=True).returncode == 1


def test_containers_by_a_regular_expression(peers):
    for name in BOTH:
        runtime = peers.all[name]
        for container_id in ("one-a", "one-b", "two"):
            runtime.create(container_id, runtime.bundle.spec("sleep", "1000") | {"ociVersion": "1.0.0"})
        runtime.ok("kill", "--regex", "two", "KILL")
        runtime.wait_for("two", "stopped")
        runtime.ok("delete", "--force", "--regex", "one-.")
        assert runtime.ok("list", "--quiet").split() == ["two"]
        runtime.ok("delete", "-r", "-f", "t.o")
        runtime.ok("delete", "--force", "--regex", "nothing")
        assert runtime.left() == []


@pytest.mark.parametrize(("value", "groups"), [("1", "0 77 78"), ("0", "0 9"), (None, "0 9")])
def test_the_callers_groups_are_kept(peers, value, groups):
    def make(runtime: Runtime) -> Any:
        spec = runtime.bundle.shell("id -G")
        spec["process"]["user"]["additionalGids"] = [9]
        return spec | ({"annotations": {"run.oci.keep_original_groups": value}} if value else {})

    found = peers.run(make, extra_groups=[77, 78])
    assert {found[name].output for name in BOTH} == {f"{groups}\n"}


@pytest.mark.parametrize("annotation", ["run.oci.handler", "run.oci.systemd.subgroup", "run.oci.unknown"])
def test_what_has_no_meaning_here_is_ignored(peers, annotation):
    """No handler is built into Debian's crun either, and a subgroup is one of systemd's scope."""
    done = peers.same(lambda runtime: runtime.bundle.spec("echo", "ran") | {"annotations": {annotation: "x"}})
    assert done.lines == ["ran"]


def test_the_command_lines_of_crio(peers, tmp_path: Path):
    """As its runtime_oci.go has them: create by conmon, start, exec with a process file, kill, delete; not CRI-O itself."""
    ours = peers.all[OURS]
    peers.write(ours, ours.bundle.shell("trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done"))
    log = ["--log-format=json", f"--log={tmp_path}/runtime.log"]
    base = [*ours.argv()[:1], "--root", str(ours.root)]

    def runtime(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        given: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.run([*base, *words], check=True, text=True, stdin=subprocess.DEVNULL, **given)

    with open(tmp_path / "out", "wb") as out:
        words = ["create", "--bundle", str(ours.bundle.path), "--pid-file", str(tmp_path / "pid"), "c1"]
        subprocess.run([*base, *log, *words], check=True, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    runtime("start", "c1")
    state = json.loads(runtime("state", "c1").stdout)
    assert (state["status"], str(state["pid"])) == ("running", (tmp_path / "pid").read_text())
    process = {"args": ["echo", "again"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}
    (tmp_path / "process").write_text(json.dumps(process))
    assert runtime("exec", "--process", str(tmp_path / "process"), "c1").stdout == "again\n"
    pid_file = tmp_path / "exec-pid"
    with open(tmp_path / "exec", "wb") as out:
        words = ["exec", "--pid-file", str(pid_file), "-d", "--process", str(tmp_path / "process"), "c1"]
        subprocess.run([*base, *log, *words], check=True, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    os.waitpid(int(pid_file.read_text()), 0)  # as conmon: the end of a pid namespace waits until all of it are reaped
    assert (tmp_path / "exec").read_text() == "again\n"
    runtime("pause", "c1")
    runtime("resume", "c1")
    wait_until(lambda: "up" in (tmp_path / "out").read_text(), "it listens to signals")
    runtime("kill", "c1", "15")
    ours.wait_for("c1", "stopped")
    runtime("delete", "--force", "c1")
    assert runtime("list", "--format", "json").stdout == "null\n"
