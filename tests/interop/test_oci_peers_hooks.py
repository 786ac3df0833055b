"""Where hooks run and with which mask, beside runc and crun."""

from __future__ import annotations

from typing import Any

import pytest

from tests.oci_runtime import Runtime
from tests.peers import OURS, Make
from tests.probes import requires

pytestmark = requires("root", "command:busybox", "command:runc", "command:crun")
READ = "cat > /dev/null"  # the state: crun may fail if a hook ends before it has written that
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
        kind: [{"path": "/bin/sh", "args": ["sh", "-c", f"{READ}; echo {kind} $(umask) $(pwd) >> {log}/lines"]}]
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


def speaking(annotations: dict[str, str]) -> Make:
    """A container whose hooks of all kinds write to both of their outputs."""

    def make(runtime: Runtime) -> Any:
        script = "echo {0} && echo errors of {0} >&2 && " + READ
        spec = runtime.bundle.spec("echo", "the command")
        spec["hooks"] = {kind: [{"path": "/bin/sh", "args": ["sh", "-c", script.format(kind)]}] for kind in KINDS}
        return spec | {"annotations": {name: value.format(runtime.directory) for name, value in annotations.items()}}

    return make


def test_what_hooks_write_goes_nowhere_and_fails_nothing(peers):
    found = peers.run(speaking({}))
    assert {each.status for each in found.values()} == {0}
    assert found[OURS].output == found["runc"].output == "the command\n"


@pytest.mark.parametrize("below", ["{}/", ""], ids=["absolute", "of the bundle"])
def test_what_hooks_write_goes_to_the_files_of_cruns_annotations(peers, below):
    names = {"run.oci.hooks.stdout": f"{below}output", "run.oci.hooks.stderr": f"{below}errors"}
    assert {each.status for each in peers.run(speaking(names)).values()} == {0}
    for name in (OURS, "crun"):
        runtime = peers.all[name]
        place = runtime.directory if below else runtime.bundle.path
        assert sorted((place / "output").read_text().splitlines()) == sorted(KINDS), name
        assert sorted((place / "errors").read_text().splitlines()) == sorted(f"errors of {kind}" for kind in KINDS)
        if name == OURS:
            assert (place / "output").read_text().split() == list(KINDS)
            assert (place / "output").stat().st_mode & 0o777 == 0o600
    # They are added to, and one may have both.
    for name in (OURS, "crun"):
        (peers.all[name].directory / "both").write_text("before\n")
    peers.run(speaking(dict.fromkeys(names, "{}/both")))
    for name in (OURS, "crun"):
        lines = (peers.all[name].directory / "both").read_text().splitlines()
        assert lines[0] == "before" and len(lines) == 1 + 2 * len(KINDS), name


@pytest.mark.parametrize("path", ["/nonexistent/x", "", "/dev"])
def test_an_output_of_hooks_that_cannot_be_is_an_error_as_by_crun(peers, path):
    found = peers.run(speaking({"run.oci.hooks.stdout": path}))
    assert {name: each.status for name, each in found.items()} == {OURS: 1, "runc": 0, "crun": 1}
    assert "run.oci.hooks.stdout" in found[OURS].errors and peers.all[OURS].left() == []

    def without_hooks(runtime: Runtime) -> Any:
        return speaking({"run.oci.hooks.stdout": path})(runtime) | {"hooks": {}}

    assert peers.same(without_hooks).output == "the command\n"


def test_a_hook_that_fails_is_told_without_what_went_to_its_file(peers):
    def make(runtime: Runtime) -> Any:
        spec = speaking({"run.oci.hooks.stderr": "{}/errors"})(runtime)
        script = f"{READ}; echo said; echo written >&2; exit 3"
        spec["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
        return spec

    ours = peers.run(make)[OURS]
    assert ours.status == 1 and "exit status 3: said" in ours.errors and "written" not in ours.errors
    assert (peers.all[OURS].directory / "errors").read_text() == "written\n"


def failing_poststart(runtime: Runtime) -> Any:
    """A container that ignores SIGTERM; its hooks write down that they ran."""
    log = runtime.directory / "ran"
    log.unlink(missing_ok=True)
    spec = runtime.bundle.shell("trap '' TERM; sleep 2; echo survived")
    scripts = {"poststart": ("echo first >> {}; exit 1", "echo second >> {}"), "poststop": ("echo poststop >> {}",)}
    spec["hooks"] = {
        kind: [{"path": "/bin/sh", "args": ["sh", "-c", f"{READ}; {script.format(log)}"]} for script in each]
        for kind, each in scripts.items()
    }
    return spec


def test_a_poststart_hook_that_fails_ends_a_run_as_under_runc(peers):
    """crun goes on."""
    found = peers.run(failing_poststart)
    ran = {name: (runtime.directory / "ran").read_text().split() for name, runtime in peers.all.items()}
    for name in (OURS, "runc"):
        assert (found[name].status, found[name].output) == (1, "")
        assert "poststart hook #0" in found[name].errors or "error running hook #0" in found[name].errors
        assert ran[name] == ["first", "poststop"] and peers.all[name].left() == []
    assert (found["crun"].status, found["crun"].output) == (0, "survived\n"), found["crun"]
    assert ran["crun"] == ["first", "second", "poststop"]


def test_poststart_hooks_are_run_by_start(peers):
    """runc runs them when it creates the container."""
    ours, runc = peers.all[OURS], peers.all["runc"]
    ours.create("c1", failing_poststart(ours))
    assert not (ours.directory / "ran").exists()
    assert "poststart hook #0" in ours.error("start", "c1")
    assert ours.state("c1")["status"] == "stopped" and ours.output("c1").read_text() == ""
    ours.ok("delete", "c1")
    assert (ours.directory / "ran").read_text().split() == ["first", "poststop"]
    peers.write(runc, failing_poststart(runc))
    assert runc.run("create", "--bundle", str(runc.bundle.path), "c1").returncode == 1
    assert (runc.directory / "ran").read_text().split()[0] == "first"
