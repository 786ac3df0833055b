"""What a process is given, beside runc and crun: its environment and capabilities, in `run` and in `exec`."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.keys import begin_session, no_more_keys
from tests.oci_runtime import Runtime
from tests.peers import OURS, Make
from tests.probes import requires

pytestmark = requires("root", "command:busybox", "command:runc", "command:crun")
PASSWD = "root:x:0:0::/root:/bin/sh\nguest:x:7:8::/home/guest:/bin/sh\n"


def with_env(*env: str, uid: int = 0, passwd: str | None = PASSWD, args: tuple[str, ...] = ("env",)) -> Make:
    """A container that shows its environment."""

    def make(runtime: Runtime) -> Any:
        file = runtime.bundle.rootfs / "etc/passwd"
        file.parent.mkdir(exist_ok=True)
        file.unlink(missing_ok=True)
        if passwd is not None:
            file.write_text(passwd)
        spec = runtime.bundle.spec(*args)
        spec["process"] |= {"env": list(env), "user": {"uid": uid, "gid": 0}}
        return spec

    return make


@pytest.mark.parametrize(
    ("env", "uid", "passwd", "home"),
    [
        ((), 0, PASSWD, "/root"),
        ((), 7, PASSWD, "/home/guest"),
        ((), 0, None, "/"),
        (("HOME=/own",), 7, PASSWD, "/own"),
        (("HOME=/first", "HOME=/last"), 7, PASSWD, "/last"),
        ((), 7, f"# 7\n\nseven\n77:x:77:7::/no:\n:x:{'7' * 30}:7::/no:\n{PASSWD}".rstrip(), "/home/guest"),
        ((), 7, f"{'x' * 5000}\n{PASSWD}", "/home/guest"),
    ],
)
def test_home_is_that_of_the_containers_passwd(peers, env, uid, passwd, home):
    done = peers.same(with_env("PATH=/bin", *env, uid=uid, passwd=passwd))
    assert done.lines == ["PATH=/bin", f"HOME={home}"]


def test_home_that_is_empty_is_as_under_runc(peers):
    """crun leaves an empty one as it is, and none for a user that passwd doesn't have."""
    found = peers.run(with_env("HOME=", "PATH=/bin"))
    assert found[OURS].lines == found["runc"].lines == ["HOME=/root", "PATH=/bin"]
    found = peers.run(with_env("PATH=/bin", uid=99))
    assert found[OURS].lines == found["runc"].lines == ["PATH=/bin", "HOME=/"]


def test_home_is_looked_up_in_what_is_mounted(peers):
    """As Podman mounts a passwd with one entry more; and a link in the image leads nowhere else."""

    def mounted(runtime: Runtime) -> Any:
        spec = with_env("PATH=/bin", uid=100)(runtime)
        (runtime.directory / "passwd").write_text("more:x:100:0::/more:/bin/sh")
        source = {"source": str(runtime.directory / "passwd"), "options": ["bind", "ro"]}
        spec["mounts"].append({"destination": "/etc/passwd", "type": "bind", **source})
        return spec

    assert peers.same(mounted).lines == ["PATH=/bin", "HOME=/more"]

    def linked(runtime: Runtime) -> Any:
        spec = with_env("PATH=/bin", passwd=None)(runtime)
        (runtime.bundle.rootfs / "etc/passwd").symlink_to("/../../lib/users")
        (runtime.bundle.rootfs / "lib").mkdir(exist_ok=True)
        (runtime.bundle.rootfs / "lib/users").write_text("root:x:0:0::/linked:/bin/sh\n")
        return spec

    assert peers.same(linked).lines == ["PATH=/bin", "HOME=/linked"]


def test_a_passwd_that_is_no_file_keeps_nobody_waiting(peers):
    ours = peers.all[OURS]
    peers.write(ours, with_env("PATH=/bin", passwd=None)(ours))
    os.mkfifo(ours.bundle.rootfs / "etc/passwd")
    assert ours.ok("run", "--bundle", str(ours.bundle.path), "c1").split() == ["PATH=/bin", "HOME=/"]


def test_what_is_given_last_replaces(peers):
    """The place of the first, the value of the last, and the command is looked for by that."""
    done = peers.same(with_env("A=1", "PATH=/none", "A=2", "PATH=/bin"))
    assert done.lines == ["A=2", "PATH=/bin", "HOME=/root"]
    assert {each.status for each in peers.run(with_env("PATH=/bin", "PATH=/none")).values()} == {1}


def test_words_that_are_no_variables_are_left_out_as_under_crun(peers):
    found = peers.run(with_env("WORD", "HOME", "PATH=/bin"))
    assert found[OURS].lines == found["crun"].lines == ["PATH=/bin", "HOME=/root"]
    assert found["runc"].status == 1


def test_exec_gets_an_environment_likewise(peers):
    with peers.running(with_env("PATH=/bin", args=("sleep", "1000"))) as runtimes:
        for name, runtime in runtimes.items():
            words = ("--env", "PATH=/none:/bin", "--env", "HOME=/own", "c1", "env")
            assert runtime.ok("exec", *words).split() == ["PATH=/none:/bin", "HOME=/own"], name
            words = ("--user", "7:8", "--env", "PATH=/bin", "c1", "env")
            assert runtime.ok("exec", *words).split() == ["PATH=/bin", "HOME=/home/guest"], name
            process = {"args": ["env"], "cwd": "/", "env": ["A=1", "PATH=/bin", "A=2"], "user": {"uid": 7, "gid": 8}}
            (runtime.directory / "process.json").write_text(json.dumps(process))
            found = runtime.ok("exec", "--process", str(runtime.directory / "process.json"), "c1").split()
            assert found == ["A=2", "PATH=/bin", "HOME=/home/guest"], name


def test_no_session_keyring_is_no_start(peers):
    """Its user may have no more keys: as runc, we don't go on with the caller's keyring. crun does."""
    ids = [{"containerID": 0, "hostID": 1_234_600_000, "size": 65536}]
    with no_more_keys(1_234_600_000):
        found = peers.run(
            lambda runtime: runtime.bundle.with_ids(runtime.bundle.spec("true"), ids), preexec_fn=begin_session
        )
    assert found[OURS].status == found["runc"].status == 1
    assert "join a new session keyring: Disk quota exceeded" in found[OURS].errors
    assert "session keyring: unable to create session key: disk quota exceeded" in found["runc"].errors
