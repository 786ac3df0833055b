"""Profiles of AppArmor, on a kernel that has it: whoever asks for a profile is under it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bundles import Bundle
from tests.conftest import Run
from tests.engines import IMAGE, Docker, busybox_archive, docker
from tests.oci_runtime import Runtime
from tests.probes import requires

pytestmark = [requires("root", "apparmor", "command:apparmor_parser")]
PROFILE = "minibox-test"
# As Docker's own: all but for one file.
RULES = f"""
profile {PROFILE} flags=(attach_disconnected,mediate_deleted) {{
  file, network, capability, signal, mount, umount, ptrace, unix, dbus,
  deny /secret rwklx,
}}
"""
SECURITY = Path("/sys/kernel/security")
CURRENT = "cat /proc/self/attr/current; cat /secret 2>&1; true"
UNDER_IT = [f"{PROFILE} (enforce)", "cat: can't open '/secret': Permission denied"]
NOT_UNDER_IT = ["unconfined", "open"]


@pytest.fixture(scope="module", autouse=True)
def profile() -> Iterator[None]:
    """Loaded for these tests."""
    mounted = (SECURITY / "apparmor").exists()
    if not mounted:
        subprocess.run(["mount", "-t", "securityfs", "securityfs", SECURITY], check=True)
    for option in ("--replace", "--remove"):
        subprocess.run(["apparmor_parser", "--skip-cache", option], input=RULES, text=True, check=True)
        if option == "--replace":
            yield
    if not mounted:
        subprocess.run(["umount", SECURITY], check=True)


def spec(bundle: Bundle, *, profile: str = PROFILE, ids: bool = False, nnp: bool = False, proc: bool = True) -> Any:
    (bundle.rootfs / "secret").write_text("open\n")
    spec = bundle.shell(CURRENT)
    spec["process"] |= {"apparmorProfile": profile, "noNewPrivileges": nnp}
    if not proc:
        spec["mounts"] = [mount for mount in spec["mounts"] if mount["destination"] != "/proc"]
    return bundle.with_ids(spec) if ids else spec


@pytest.mark.parametrize("nnp", [False, True], ids=["may gain", "no new privileges"])
@pytest.mark.parametrize("ids", [False, True], ids=["host ids", "own ids"])
def test_the_command_is_under_it(runtime: Runtime, ids: bool, nnp: bool) -> None:
    runtime.write(spec(runtime.bundle, ids=ids, nnp=nnp))
    assert runtime.ok("run", "--bundle", str(runtime.bundle.path), "c1").splitlines() == UNDER_IT


def test_without_proc_too(runtime: Runtime) -> None:
    runtime.write(spec(runtime.bundle, proc=False))
    done = runtime.run("run", "--bundle", str(runtime.bundle.path), "c1")
    assert "Permission denied" in done.stdout and "/proc/self/attr/current" in done.stderr


def test_with_a_filter_that_allows_little_more_than_the_command_needs(runtime: Runtime) -> None:
    """The file is open when the filter is loaded."""
    made = spec(runtime.bundle)
    denied = [{"names": ["openat2", "chmod"], "action": "SCMP_ACT_ERRNO"}]
    made["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": denied}
    runtime.write(made)
    assert runtime.ok("run", "--bundle", str(runtime.bundle.path), "c1").splitlines() == UNDER_IT


def test_hooks_are_not_under_it_and_what_is_executed_later_is(runtime: Runtime, tmp_path: Path) -> None:
    made = spec(runtime.bundle)
    made["process"]["args"] = ["sleep", "1000"]
    made["hooks"] = {"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", f"({CURRENT}) > /hook"]}]}
    (runtime.bundle.rootfs / "secret").chmod(0o644)
    runtime.create("c1", made)
    runtime.ok("start", "c1")
    assert (runtime.bundle.rootfs / "hook").read_text().splitlines() == NOT_UNDER_IT
    assert runtime.ok("exec", "c1", "sh", "-c", CURRENT).splitlines() == UNDER_IT
    assert runtime.ok("exec", "--apparmor", "unconfined", "c1", "sh", "-c", CURRENT).splitlines() == NOT_UNDER_IT
    process = tmp_path / "process.json"
    process.write_text(json.dumps({"args": ["sh", "-c", CURRENT], "cwd": "/", "env": ["PATH=/bin"]}))
    assert runtime.ok("exec", "--process", str(process), "c1").splitlines() == UNDER_IT
    process.write_text(json.dumps(json.loads(process.read_text()) | {"apparmorProfile": "unconfined"}))
    assert runtime.ok("exec", "--process", str(process), "c1").splitlines() == NOT_UNDER_IT


def test_own_ids_and_an_exec(runtime: Runtime) -> None:
    made = spec(runtime.bundle, ids=True)
    made["process"]["args"] = ["sleep", "1000"]
    runtime.create("c1", made)
    runtime.ok("start", "c1")
    assert runtime.ok("exec", "c1", "sh", "-c", CURRENT).splitlines() == UNDER_IT


def test_whatever_is_at_proc_in_a_mount_namespace_by_path(runtime: Runtime) -> None:
    script = "mount -t tmpfs none /proc && echo && exec sleep 1000"
    holder = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    with subprocess.Popen(holder, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout and process.stdout.readline() == b"\n"
            made = spec(runtime.bundle)
            kinds = made["linux"]["namespaces"]
            kinds[kinds.index({"type": "mount"})]["path"] = f"/proc/{process.pid}/ns/mnt"
            runtime.write(made)
            # Its rules are for paths from the namespace's root, which isn't the container's.
            assert runtime.ok("run", "--bundle", str(runtime.bundle.path), "c1").splitlines()[:1] == UNDER_IT[:1]
        finally:
            process.kill()


def test_one_that_is_not_loaded_is_an_error(runtime: Runtime) -> None:
    runtime.write(spec(runtime.bundle, profile="no-such-profile"))
    says = runtime.error("run", "--bundle", str(runtime.bundle.path), "c1")
    assert "take the label exec no-such-profile: No such file or directory" in says


def test_unconfined_is_none(runtime: Runtime) -> None:
    runtime.write(spec(runtime.bundle, profile="unconfined"))
    assert runtime.ok("run", "--bundle", str(runtime.bundle.path), "c1").splitlines() == NOT_UNDER_IT


@pytest.fixture(scope="module")
def engine(session_directory: Path) -> Iterator[Docker]:
    with docker(session_directory / "docker", busybox_archive(session_directory / "docker.tar")) as engine:
        yield engine


@requires("command:dockerd", "command:containerd", "command:iptables")
def test_dockers_own(engine: Docker) -> None:
    """As Debian and Ubuntu have it: dockerd loads docker-default, and puts each container under it."""
    show = ("cat", "/proc/self/attr/current")
    assert "name=apparmor" in engine.out("info", "--format", "{{.SecurityOptions}}")
    assert engine.out("run", "--rm", IMAGE, *show) == "docker-default (enforce)"
    assert engine.out("run", "--rm", "--security-opt", f"apparmor={PROFILE}", IMAGE, *show) == UNDER_IT[0]
    assert engine.out("run", "--rm", "--privileged", IMAGE, *show) == "unconfined"
    engine("run", "--detach", "--name", "one", IMAGE, "sleep", "1000")
    for more in ((), ("--privileged",)):
        assert engine.out("exec", *more, "one", *show) == "docker-default (enforce)"
    engine.clear()


def test_miniboxs_own(minibox: Run) -> None:
    show = "cat /proc/self/attr/current"
    done = minibox(
        "run", "--rm", "--security-opt", f"apparmor={PROFILE}", "--network", "none", "base", "sh", "-c", show
    )
    assert done.stdout.splitlines() == UNDER_IT[:1]
    minibox(
        "run",
        "-d",
        "--name",
        "one",
        "--security-opt",
        f"apparmor={PROFILE}",
        "--network",
        "none",
        "base",
        "sleep",
        "99",
    )
    for more in ((), ("--privileged",)):  # as Docker has it
        assert minibox("exec", *more, "one", "sh", "-c", show).stdout.splitlines() == UNDER_IT[:1]
    assert PROFILE in minibox("inspect", "--format", "{{.AppArmorProfile}}", "one").stdout
    minibox("rm", "--force", "one")
