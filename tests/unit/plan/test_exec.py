"""A process in a container that runs: the exact steps, in order."""

from __future__ import annotations

from typing import Any

import pytest

from minibox.plan import operations as op
from minibox.plan.exec import Joined, compile_exec
from minibox.plan.namespaces import NAMESPACES
from minibox.plan.parent import systemd_attach
from minibox.plan.start import Start

PROCESS: Any = {
    "args": ["true"],
    "cwd": "/srv",
    "env": ["PATH=/bin", "HOME=/srv"],
    "user": {"uid": 1000, "gid": 1000, "additionalGids": [4]},
    "capabilities": {"bounding": ["CAP_KILL"]},
    "noNewPrivileges": True,
}
ALL = sum(NAMESPACES.values())


def names(joined, start=None):
    return [step.name for step in compile_exec(PROCESS, joined, start or Start()).ops]


def test_all_steps_in_order():
    start = Start(seccomp=bytes(8), cgroups=("memory:/a", "pids:/b"))
    assert names(Joined(ALL), start) == [
        "clone_further", "die_with_parent", "write_fd", "write_fd", "undumpable", "setns", "clone_sibling",
        "setgroups", "setresgid", "setresuid", "setsid", "session_keyring", "stdio",
        "umask", "chdir", "cap_bounding", "setgroups", "setresgid", "setresuid",
        "die_with_parent", "close_fds", "capset", "no_new_privs", "seccomp", "exec",
    ]  # fmt: skip


def test_it_waits_until_systemd_has_moved_it():
    found = names(
        Joined(0), Start(cgroups=(":/s/a.scope",), cgroup_joins=(systemd_attach("a.scope", "/a", "/s/a.scope/a"),))
    )
    assert found[:5] == ["clone_further", "die_with_parent", "wait", "systemd_attach", "send"]


def test_it_hides_and_enters_its_cgroup_before_it_is_seen_inside():
    found = names(Joined(ALL), Start(cgroups=("memory:/a",)))
    assert found.index("write_fd") < found.index("undumpable") < found.index("setns")


@pytest.mark.parametrize("kind, step", [("pid", "clone_sibling"), ("user", "setresuid")])
def test_what_a_namespace_needs_is_left_out_without_it(kind, step):
    with_it, without = names(Joined(ALL)), names(Joined(ALL & ~NAMESPACES[kind]))
    assert with_it.count(step) == without.count(step) + 1


def test_without_namespaces_none_is_joined():
    assert "setns" not in names(Joined(0))


def test_a_root_that_its_mount_namespace_does_not_know_is_entered_before_anybody_sees_it():
    found = names(Joined(ALL, chrooted=True))
    assert found[found.index("setns") :][:3] == ["setns", "chroot", "clone_sibling"]
    assert "chroot" in names(Joined(0, chrooted=True))


def test_a_detached_process_outlives_minibox():
    assert "die_with_parent" not in names(Joined(ALL), Start(detached=True))


def test_its_terminal_is_not_the_containers_console():
    found = names(Joined(ALL), Start(terminal=(24, 80)))
    assert "open_pty" in found and "take_terminal" in found and "bind_fd" not in found


def test_a_single_id_keeps_its_groups():
    assert "setgroups" not in names(Joined(ALL), Start(setgroups=False))


def test_the_namespaces_are_those_of_the_pidfd():
    plan = compile_exec(PROCESS, Joined(NAMESPACES["mount"]), Start())
    assert next(step for step in plan.ops if step.name == "setns").args == (op.NAMESPACES, NAMESPACES["mount"])


def test_home_is_looked_up_when_nobody_says_it():
    for env in ([], ["HOME="], ["HOME=/x", "HOME="]):
        plan = compile_exec(PROCESS | {"env": env}, Joined(ALL), Start(seccomp=bytes(8)))
        found = [step.name for step in plan.ops]
        assert found.index("setns") < found.index("home") < found.index("cap_bounding") < found.index("seccomp")
        assert ("home", (1000,)) in [(step.name, step.args) for step in plan.ops]


def test_the_last_value_of_a_variable_counts():
    env = ["A=1", "PATH=/no", "WORD", "A=2=2", "PATH=/bin", "HOME=/srv"]
    last = compile_exec(PROCESS | {"env": env}, Joined(ALL), Start()).ops[-1]
    assert last.args == (("/bin/true",), ("true",), ("A=2=2", "PATH=/bin", "HOME=/srv"))
