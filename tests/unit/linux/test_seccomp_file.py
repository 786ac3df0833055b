"""Seccomp profiles in Docker's format: conditions, and what can't be read."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibox.errors import ConfigError
from minibox.linux.seccomp.profile_file import resolve_profile


def names(syscalls, caps=()):
    profile = json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": syscalls}).encode()
    return [rule["names"] for rule in resolve_profile(profile, "p.json", caps)["syscalls"]]


def rule(name, **more):
    return {"name": name, "action": "SCMP_ACT_ALLOW", **more}


def test_conditions():
    rules = [
        rule("a", includes={"caps": ["CAP_BPF"]}),
        rule("b", excludes={"caps": ["CAP_BPF"]}),
        rule("c", includes={"minKernel": "4.8"}),
        rule("d", includes={"minKernel": "99.0"}),
        rule("e", excludes={"minKernel": "99.0"}),
        rule("f", includes={"arches": ["pdp11"]}),
        rule("g", excludes={"arches": ["pdp11"]}),
        rule("h", includes={}, excludes={"caps": []}, args=[]),
    ]
    assert names(rules) == [["b"], ["c"], ["e"], ["g"], ["h"]]
    assert names(rules, ["CAP_BPF"]) == [["a"], ["c"], ["e"], ["g"], ["h"]]


def test_errno_by_name_and_arch_map():
    machine = os.uname().machine
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrno": "ENOSYS",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [{"names": ["x"], "action": "SCMP_ACT_ERRNO", "errno": "EPERM", "args": None}],
    }
    found = resolve_profile(json.dumps(profile).encode(), "p.json", ())
    assert found["defaultErrnoRet"] == 38 and found["syscalls"][0]["errnoRet"] == 1
    if machine == "x86_64":
        assert found["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"defaultAction": 5}',
        b'{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_ALLOW"}]}',
        b'{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": "__name__"}',
        b'{"defaultAction": "A", "architectures": ["a"], "archMap": [{"architecture": "b"}]}',
        b'{"defaultAction": "A", "syscalls": [{"name": "a", "action": "B", "includes": {"minKernel": "new"}}]}',
    ],
)
def test_unreadable_profiles(text):
    with pytest.raises(ConfigError, match=r"seccomp profile p\.json"):
        resolve_profile(text, "p.json", ())


@given(st.binary())
def test_any_bytes(text):
    with pytest.raises(ConfigError):
        resolve_profile(text, "p.json", ())
