"""Command lines beside runc and crun: what they print, take, refuse and only warn of."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.oci_runtime import COMMAND, TIMEOUT_S, Runtime
from tests.peers import OURS, Make
from tests.probes import requires

pytestmark = requires("root", "command:busybox", "command:runc", "command:crun")
MIB = 1 << 20


def sleeping(**linux: Any) -> Make:
    return lambda runtime: runtime.bundle.spec("sleep", "1000", **linux)


# ---- what is printed ----------------------------------------------------------------------------


def shape(text: str) -> str:
    """What is the same of every container: no number, time and version, no path of the bundle."""
    text = re.sub(r'("pid":\s?)\d+', r"\1N", text)
    text = re.sub(r'("created":\s?)"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d*[1-9])?Z"', r"\1T", text)
    return re.sub(r'("ociVersion":\s?)"[^"]*"', r"\1V", text).replace(OURS, "R").replace("runc", "R")


def test_state_and_list_print_the_text_of_runc(peers):
    """Byte for byte, but for what must differ: scripts compare it."""

    def make(runtime: Runtime) -> Any:
        return sleeping()(runtime) | {"annotations": {"b": '<&> \u2028é"\\\t\x01', "a": ""}}

    with peers.running(make) as runtimes:
        for words in (("state", "c1"), ("list", "--format", "json"), ("list", "--quiet")):
            ours, theirs = (shape(runtimes[name].ok(*words)) for name in (OURS, "runc"))
            assert ours == theirs, words
        pids = {name: runtimes[name].ok("ps", "--format", "json", "c1") for name in (OURS, "runc")}
        assert {re.sub(r"\d+", "N", text) for text in pids.values()} == {"[N]\n"}
    assert {name: peers.all[name].ok("list", "--format", "json") for name in pids} == dict.fromkeys(pids, "null\n")


def test_what_is_printed_does_not_depend_on_the_locale(peers):
    def make(runtime: Runtime) -> Any:
        return sleeping()(runtime) | {"annotations": {"a": "é"}}

    with peers.running(make) as runtimes:
        options = {"text": False, "env": {**os.environ, "LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0"}}
        for name in (OURS, "runc"):
            assert '"a": "é"'.encode() in runtimes[name].run("state", "c1", **options).stdout


def test_events_print_a_line_each_without_spaces(peers):
    with peers.running(sleeping()) as runtimes:
        once = {name: runtimes[name].ok("events", "--stats", "c1") for name in (OURS, "runc")}
        for name, text in once.items():
            assert text == json.dumps(json.loads(text), separators=(",", ":")) + "\n", name
        ours, theirs = (json.loads(once[name])["data"] for name in (OURS, "runc"))
        assert_same_fields(ours, theirs)
        for each in (ours, theirs):
            each["cpuset"].pop("memory_pressure")
        assert ours["cpuset"] == theirs["cpuset"]


def assert_same_fields(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """In one order; what only one of them has is a number that was counted: runc leaves some out when they are 0."""
    assert [name for name in ours if name in theirs] == [name for name in theirs if name in ours]
    both = ours | theirs
    assert not [name for name in {*ours} ^ {*theirs} if not both[name]]
    for name in {*ours} & {*theirs}:
        if isinstance(ours[name], dict):
            assert_same_fields(ours[name], theirs[name])


def test_events_go_on_at_their_interval_until_it_ends(peers):
    with peers.running(sleeping()) as runtimes:
        for name in (OURS, "runc"):
            argv = runtimes[name].argv("events", "--interval", "20ms", "c1")
            with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as events:
                assert events.stdout
                lines = [json.loads(events.stdout.readline()) for _ in range(3)]
                assert [line["type"] for line in lines] == ["stats"] * 3
                runtimes[name].ok("kill", "c1", "KILL")
                if name == "runc":
                    events.terminate()  # it doesn't see the end of one that its parent doesn't wait for
                else:
                    assert events.wait(TIMEOUT_S) == 0


@pytest.mark.parametrize("rootless", [False, True])
def test_the_template_is_that_of_runc(peers, rootless):
    """All its fields; what differs is said in docs/oci.md."""
    found = {}
    for name in (OURS, "runc"):
        place = peers.all[name].directory / "template"
        place.mkdir()
        peers.all[name].ok("spec", *(["--rootless"] if rootless else []), cwd=place)
        text = (place / "config.json").read_text()
        found[name] = json.loads(text)
        assert text == json.dumps(found[name], indent="\t")
    ours, theirs = found[OURS], found["runc"]
    for field in ("namespaces", "maskedPaths", "readonlyPaths"):
        for spec in (ours, theirs):
            spec["linux"][field].sort(key=str)
    assert ours["linux"]["namespaces"] == theirs["linux"]["namespaces"]
    more = {"/proc/interrupts", "/sys/devices/virtual/powercap"}
    assert {*ours["linux"].pop("maskedPaths")} == {*theirs["linux"].pop("maskedPaths")} | more
    theirs["process"]["capabilities"].pop("ambient", None)  # without effect, and gone since runc 1.2
    assert (ours.pop("hostname"), theirs.pop("hostname")) == ("minibox", "runc")
    assert ours.pop("ociVersion").startswith("1.") and theirs.pop("ociVersion").startswith("1.")
    assert ours == theirs


# ---- what is taken, and warned of ---------------------------------------------------------------


def warnings(runtime: Runtime) -> list[str]:
    """Of the log, which is empty afterwards."""
    lines = [json.loads(line) for line in runtime.log.read_text().splitlines()] if runtime.log.exists() else []
    runtime.log.unlink(missing_ok=True)
    return [line["msg"] for line in lines if line["level"] == "warning"]


def test_a_capability_that_nobody_knows_is_a_warning_in_exec(peers):
    def make(runtime: Runtime) -> Any:
        spec = sleeping()(runtime)
        spec["process"]["capabilities"] = {kind: ["CAP_KILL"] for kind in ("bounding", "effective", "permitted")}
        return spec

    with peers.running(make) as runtimes:
        for name, mask in ((OURS, 1 << 5 | 1), ("runc", 1 << 5 | 1), ("crun", 1)):  # which has only those of --cap
            words = ("--cap", "CAP_UNKNOWN", "--cap", "CAP_CHOWN", "c1", "grep", "CapEff", "/proc/self/status")
            assert runtimes[name].ok("exec", *words).split() == ["CapEff:", f"{mask:016x}"], name
        assert "CAP_UNKNOWN" in " ".join(warnings(runtimes[OURS]))


@pytest.mark.parametrize(
    "options", [["bind", "mode=755"], ["bind", "size=1m", "ro"], ["rbind", "nocopy"], ["bind", "x-initrd.mount"]]
)
def test_a_bind_mount_ignores_options_of_a_file_system(peers, options):
    def make(runtime: Runtime) -> Any:
        (runtime.directory / "source").mkdir(mode=0o700, exist_ok=True)
        spec = runtime.bundle.shell("stat -c %a /mnt; touch /mnt/x && echo written")
        source = str(runtime.directory / "source")
        spec["mounts"].append({"destination": "/mnt", "type": "bind", "source": source, "options": options})
        return spec

    assert peers.same(make).lines == (["700"] if "ro" in options else ["700", "written"])
    (warning,) = warnings(peers.all[OURS])
    assert "/mnt" in warning and options[1] in warning


def test_a_bind_mount_that_is_changed_has_none(peers):
    def make(runtime: Runtime) -> Any:
        spec = runtime.bundle.spec("true")
        spec["mounts"].append(
            {"destination": "/dev", "type": "bind", "source": "/dev", "options": ["bind", "remount", "mode=755"]}
        )
        return spec

    assert {each.status for each in peers.run(make).values()} == {1}


@pytest.mark.parametrize(
    ("domainname", "sysctl", "statuses"),
    [("a.b", "a.b", [0, 0, 0]), ("a.b", "c.d", [1, 0, 1]), (None, "c.d", [0, 0, 0])],
)
def test_a_domain_name_that_a_kernel_setting_contradicts_is_refused_as_by_crun(peers, domainname, sysctl, statuses):
    def make(runtime: Runtime) -> Any:
        spec = runtime.bundle.spec("cat", "/proc/sys/kernel/domainname", sysctl={"kernel.domainname": sysctl})
        return spec | ({"domainname": domainname} if domainname else {})

    found = peers.run(make)
    assert [each.status for each in found.values()] == statuses
    assert {each.output for each in found.values() if not each.status} == {f"{sysctl}\n"}


# ---- update -------------------------------------------------------------------------------------


def limits(runtime: Runtime) -> list[str]:
    """Of memory, and of memory and swap, on cgroup v1."""
    lines = Path(f"/proc/{runtime.state('c1')['pid']}/cgroup").read_text().splitlines()
    (path,) = [line.split(":", 2)[2] for line in lines if ":memory:" in line]
    files = [Path(f"/sys/fs/cgroup/memory{path}/memory.{each}limit_in_bytes") for each in ("", "memsw.")]
    return [file.read_text().strip() for file in files if file.exists()]


@pytest.mark.skipif(
    not Path("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists(), reason="cgroup v1 without swap accounting"
)
def test_a_limit_of_memory_and_swap_alone_is_beside_the_limit_that_is_there(peers):
    with peers.running(sleeping(resources={"memory": {"limit": 100 * MIB, "swap": 200 * MIB}})) as runtimes:
        for swap, taken in ((300, True), (150, True), (50, False), (100, True)):
            for name, runtime in runtimes.items():
                before = limits(runtime)
                status = runtime.run("update", "--memory-swap", str(swap * MIB), "c1").returncode
                after = [str(100 * MIB), str(swap * MIB)] if taken else before
                assert (status, limits(runtime)) == (0 if taken else 1, after), (name, swap)
    with peers.running(sleeping()) as runtimes:  # without a limit there is nothing that swap could be beside
        statuses = {runtime.run("update", "--memory-swap", str(MIB), "c1").returncode for runtime in runtimes.values()}
        assert statuses == {1}


# ---- what there isn't ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["checkpoint", "restore"])
def test_checkpoints_are_named_and_not_supported(peers, name):
    ours = peers.all[OURS]
    assert f"   {name} " in ours.ok("--help") and "not supported" in ours.ok("help", name)
    for words in ((), ("c1",), ("--image-path", "/x", "--leave-running", "c1")):
        assert ours.error(name, *words) == f"{name} is not supported by minibox-oci"
    # Podman takes a runtime whose help of it succeeds for one that has them.
    done = ours.run(name, "--help")
    assert done.returncode == 1 and "not supported" in done.stdout


# ---- the program --------------------------------------------------------------------------------


def test_the_program_may_be_copied_linked_and_renamed(peers, tmp_path):
    """Packagers do so, and Podman's own tests."""
    ours = peers.all[OURS]
    peers.write(ours, ours.bundle.spec("echo", "inside"))
    copy, link, beside = tmp_path / "crun-copy", tmp_path / "a link", tmp_path / "own/oci"
    shutil.copy(COMMAND, copy)
    link.symlink_to(COMMAND)
    beside.parent.mkdir()
    shutil.copy(COMMAND, beside)
    (beside.parent / "minibox").write_text("#!/bin/sh\necho somebody else's\n")  # and not ours
    for program in (str(copy), str(link), str(beside)):
        words = ["--root", str(ours.root), "run", "--bundle", str(ours.bundle.path), "c1"]
        done = subprocess.run([program, *words], check=False, capture_output=True, text=True, env={"PATH": "/bin"})
        assert (done.returncode, done.stdout, done.stderr) == (0, "inside\n", "")
    path = {"PATH": str(tmp_path)}
    done = subprocess.run(["crun-copy", "--version"], check=False, capture_output=True, text=True, env=path)
    assert done.stdout.startswith("minibox-oci version")


def test_a_copy_asks_the_minibox_in_path_where_its_own_interpreter_is_gone(tmp_path):
    copy = tmp_path / "minibox-oci"
    copy.write_text(re.sub("^built_with=.*$", "built_with=/gone/python", Path(COMMAND).read_text(), flags=re.MULTILINE))
    copy.chmod(0o755)
    path = f"{Path(COMMAND).parent}:/usr/bin:/bin"
    done = subprocess.run([copy, "--version"], check=False, capture_output=True, text=True, env={"PATH": path})
    assert done.stdout.startswith("minibox-oci version")
    done = subprocess.run([copy, "--version"], check=False, capture_output=True, text=True, env={"PATH": "/bin"})
    assert done.returncode == 1 and "no interpreter of minibox" in done.stderr
