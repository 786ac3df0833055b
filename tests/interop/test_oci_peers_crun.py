"""crun's command line and annotations, where they are other than runc's, beside crun; and those of CRI-O, replayed."""

from __future__ import annotations

import base64
import json
import os
import platform
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.engines import wait_until
from tests.oci_runtime import Runtime
from tests.peers import OURS, Make
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


def with_annotation(name: str, value: str, script: str) -> Make:
    return lambda runtime: runtime.bundle.shell(script) | {"annotations": {name: value}}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("run.oci.handler", "krun"),  # Debian's crun has no handlers, and ignores it likewise
        ("run.oci.handler", "wasm"),
        ("run.oci.timens_offset", "boottime 1 0"),
        ("run.oci.mount_context_type", "rootcontext"),
        ("run.oci.systemd.force_cgroup_v1", "/sys/fs/cgroup"),
        ("run.oci.systemd.subgroup", "below"),
    ],
)
def test_annotations_that_do_nothing_are_told(peers, name, value):
    assert peers.same(with_annotation(name, value, "echo ran")).output == "ran\n"
    lines = [json.loads(line) for line in peers.all[OURS].log.read_text().splitlines()]
    assert [line["msg"] for line in lines if line["level"] == "warning" and name in line["msg"]]


@pytest.mark.parametrize(("name", "value"), [("org.example.run.oci.handler", "krun"), ("run.oci.systemd.subgroup", "")])
def test_annotations_that_ask_for_nothing_are_not_told(peers, name, value):
    peers.same(with_annotation(name, value, "true"))
    assert not peers.all[OURS].log.exists() or "annotation" not in peers.all[OURS].log.read_text()


FILTERS = {
    "all but mkdir": [(0x20, 0, 0, 0), (0x15, 0, 1, 83), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)],
    "all": [(0x06, 0, 0, 0x7FFF0000)],
}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the filters are of x86-64")
@pytest.mark.parametrize(("name", "made"), [("all but mkdir", "1"), ("all", "0")])
def test_a_filter_as_the_kernel_takes_it(peers, name, made):
    """crun's, in the place of the one that `linux.seccomp.program` spells out; also for `exec`."""
    data = base64.b64encode(b"".join(struct.pack("=HBBI", *step) for step in FILTERS[name])).decode()
    script = "mkdir /tmp 2> /dev/null; echo $?; grep Seccomp: /proc/self/status | tr -d '[:space:]'"

    def make(runtime: Runtime) -> Any:
        shutil.rmtree(runtime.bundle.rootfs / "tmp", ignore_errors=True)
        spec = with_annotation("run.oci.seccomp_bpf_data", data, script)(runtime)
        rules = [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}] if name == "all" else []
        spec["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}
        return spec

    found = peers.run(make)
    assert found[OURS].output == found["crun"].output == f"{made}\nSeccomp:2"

    def sleeping(runtime: Runtime) -> Any:
        spec = make(runtime)
        spec["process"]["args"] = ["sleep", "1000"]
        return spec

    ours = peers.all[OURS]
    ours.create("c1", sleeping(ours) | {"ociVersion": "1.0.0"})
    ours.ok("start", "c1")
    assert ours.ok("exec", "c1", "sh", "-c", script) == f"{made}\nSeccomp:2"


@pytest.mark.parametrize("data", ["", "!!", "AAAA", "BgAAAAAA/3"])
def test_a_filter_that_is_none_is_refused(peers, data):
    found = peers.run(with_annotation("run.oci.seccomp_bpf_data", data, "true"))
    assert found[OURS].status == 1 and "run.oci.seccomp_bpf_data" in found[OURS].errors
