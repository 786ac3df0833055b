"""Options of `minibox build` for RUN: what the command sees of each."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.container_box import until
from tests.integration.build.conftest import Builder
from tests.probes import requires


def printed(lines: list[str], number: int = 2) -> list[str]:
    """What the build's line of that number printed."""
    words = [line.split(" ", 2) for line in lines if line.startswith(f"#{number} ")]
    return [each[2] for each in words if each[1].replace(".", "").isdigit()]


def said(builder: Builder, command: str, *words: str) -> list[str]:
    """What a RUN prints."""
    return printed(builder.ok(f"FROM base\nRUN {command}\n", *words))


def test_shm_size(builder: Builder) -> None:
    look = "df -k /dev/shm | tail -n 1 | awk '{print $2}'"
    assert said(builder, look, "--network", "none", "--shm-size", "3m") == ["3072"]
    assert said(builder, f"{look}; true", "--network", "none") == ["65536"]
    assert "--shm-size" in builder.run("FROM base\nRUN true\n", "--shm-size", "much").stderr


def test_ulimit(builder: Builder) -> None:
    words = ("--network", "none", "--ulimit", "nofile=123:456", "--ulimit", "core=0")
    assert said(builder, "ulimit -Sn; ulimit -Hn; ulimit -Hc", *words) == ["123", "456", "0"]
    assert "nonsense" in builder.run("FROM base\nENV A=1\n", "--ulimit", "nonsense=1").stderr


def test_add_host(builder: Builder) -> None:
    words = ("--network", "none", "--add-host", "db.test:10.1.2.3", "--add-host", "six.test:fd00::1")
    found = said(builder, "grep -h test /etc/hosts", *words)
    assert [each.split() for each in found] == [["10.1.2.3", "db.test"], ["fd00::1", "six.test"]]
    assert said(builder, "grep -h test /etc/hosts", *words[:4])[0].split()[1] == "db.test"  # not that of before
    assert "no address" in builder.run("FROM base\nENV A=1\n", "--add-host", "nowhere").stderr


def test_network(builder: Builder) -> None:
    look = "sed -n 's/^ *\\([^ ]*\\):.*/\\1/p' /proc/net/dev"
    assert said(builder, look, "--network", "none") == ["lo"]
    ours = sorted(line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:])
    assert sorted(said(builder, look, "--network", "host")) == ours
    assert printed(builder.ok(f"FROM base\nRUN --network=none {look}; true\n", "--network", "host")) == ["lo"]
    assert "one of default, none, host" in builder.run("FROM base\nRUN true\n", "--network", "bridge").stderr


@requires("root")
def test_cpuset(root_builder: Builder) -> None:
    cpu = str(max(os.sched_getaffinity(0)))
    look = "sed -n 's/^Cpus_allowed_list:\\t//p' /proc/self/status"
    assert said(root_builder, look, "--network", "none", "--cpuset-cpus", cpu) == [cpu]


@requires("root")
def test_memory(root_builder: Builder) -> None:
    text = "FROM base\nRUN dd if=/dev/zero of=/dev/null bs=100M count=1\n"
    error = root_builder.refused(text, "--network", "none", "--memory", "16m")
    assert "the kernel killed it: its limit of 16 MiB was used up" in error
    assert "give it more: --memory" in error
    root_builder.ok(text, "--network", "none", "--memory", "300m")


# ---- --ssh --------------------------------------------------------------------------------------


@pytest.fixture
def agent(builder: Builder) -> Iterator[tuple[Path, str]]:
    """The socket of an agent of the builder's user with a key, and the key's fingerprint. ssh-add is in the context."""
    directory = builder.box.directory / "agent"
    directory.mkdir(mode=0o700)
    owner = os.stat(builder.box.directory)
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "build", "-f", str(directory / "key")], check=True
    )
    for path in (directory, *directory.iterdir()):
        os.chown(path, owner.st_uid, owner.st_gid)
    socket = directory / "socket"
    who: dict[str, Any] = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL, **who)
    try:
        until(socket.exists, "the agent listens")
        environment = {**os.environ, "SSH_AUTH_SOCK": str(socket)}
        subprocess.run(["ssh-add", "-q", str(directory / "key")], env=environment, check=True, **who)
        listed = subprocess.run(["ssh-add", "-l"], env=environment, check=True, capture_output=True, text=True, **who)
        yield socket, listed.stdout.strip()
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def with_ssh_add(builder: Builder) -> Builder:
    path = shutil.which("ssh-add")
    assert path
    listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout.split()
    for each in (path, *(word for word in listed if word.startswith("/"))):
        target = builder.context / ("root/ssh-add" if each == path else f"root{each}")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(each, target)
    return builder


SSH = "FROM base\nCOPY root /\n"


@requires("command:ssh-agent", "command:ssh-add", "command:ssh-keygen")
def test_ssh(with_ssh_add: Builder, agent: tuple[Path, str]) -> None:
    builder, (socket, key) = with_ssh_add, agent
    one = ("--network", "none", "--ssh", f"default={socket}")
    assert printed(builder.ok(f"{SSH}RUN --mount=type=ssh /ssh-add -l\n", *one), 3) == [key]
    named = "RUN --mount=type=ssh,id=other,target=/agent SSH_AUTH_SOCK=/agent /ssh-add -l; env | grep SSH_AUTH\n"
    found = printed(builder.ok(SSH + named, "--network", "none", "--ssh", f"other={socket}"), 3)
    assert found == [key, "SSH_AUTH_SOCK=/agent"]
    user = "USER 1000:1000\nRUN --mount=type=ssh,uid=1000,gid=1000,mode=0600 /ssh-add -l; stat -c %u:%g:%a $SSH_AUTH_SOCK\n"
    assert printed(builder.ok(SSH + user, *one), 3) == [key, "1000:1000:600"]
    assert not [each for each in builder.sh("ls -A /run; ls -A / | grep agent; true").split() if each == "agent"]


@requires("command:ssh-agent", "command:ssh-add", "command:ssh-keygen")
def test_a_run_cannot_change_the_agent(with_ssh_add: Builder, agent: tuple[Path, str]) -> None:
    builder, (socket, key) = with_ssh_add, agent
    for command in ("/ssh-add -D", "/ssh-add -X </dev/null", "printf x | nc local:$SSH_AUTH_SOCK"):
        builder.run(f"{SSH}RUN --mount=type=ssh {command}\n", "--network", "none", "--ssh", f"default={socket}")
    text = f"{SSH}RUN --mount=type=ssh for n in 1 2 3 4 5; do /ssh-add -l & done; wait\n"
    assert printed(builder.ok(text, "--network", "none", "--ssh", f"default={socket}"), 3) == [key] * 5


@requires("command:ssh-agent", "command:ssh-add", "command:ssh-keygen")
def test_an_agent_that_is_not_there(with_ssh_add: Builder, agent: tuple[Path, str]) -> None:
    builder, (socket, _) = with_ssh_add, agent
    assert builder.ok('FROM base\nRUN --mount=type=ssh test -z "$SSH_AUTH_SOCK"\n', "--network", "none")
    error = builder.refused("FROM base\nRUN --mount=type=ssh,required true\n", "--network", "none")
    assert "the ssh agent 'default' is required" in error and "--ssh default" in error
    wrong = builder.run("FROM base\nRUN true\n", "--ssh", f"default={socket.parent / 'key'}")
    assert "is not the socket of an agent" in wrong.stderr
    # The agent isn't part of the key: a line that worked with it is reused without it.
    text = f"{SSH}RUN --mount=type=ssh /ssh-add -l > /keys\n"
    builder.ok(text, "--network", "none", "--ssh", f"default={socket}")
    builder.ok(text, "--network", "none")
    assert "ED25519" in builder.sh("cat /keys")
