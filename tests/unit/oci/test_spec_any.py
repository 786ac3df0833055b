"""`make_spec` of anything: nothing but our own errors comes out of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minibox.engine.spec.image_config import checked_config
from minibox.engine.spec.options import RunOptions, typed
from minibox.engine.spec.runtime_spec import make_spec
from minibox.errors import MiniboxError
from minibox.oci.schema import SPEC, checked
from tests.unit.specs import FILES, ID, facts

WORDS = st.one_of(
    st.text(max_size=40),
    st.lists(
        st.sampled_from(
            ["/", ":", "=", ",", "..", "src", "/src", "ro", "rw", "type", "bind", "tmpfs", "volume", "target", "-", "-1",
             "net.", "size", '"', "\0", "\n", "nofile", "ada", "0", "99999999999999999999", "²", "SIG", "RTMIN+", "ALL",
             "seccomp", "profile", "env", "/dev/fuse", "rwm", "é"]
        ),
        max_size=8,
    ).map("".join),
)  # fmt: skip
NUMBERS = st.one_of(st.none(), st.integers(), st.integers(-(2**70), 2**70))
LISTS = st.lists(WORDS, max_size=3).map(tuple)
FIELDS = {
    "command": LISTS, "env": LISTS, "env_file": LISTS, "workdir": WORDS, "user": WORDS, "group_add": LISTS,
    "entrypoint": st.one_of(st.none(), WORDS), "stop_signal": WORDS, "oom_score_adj": NUMBERS, "ulimit": LISTS,
    "hostname": WORDS, "label": LISTS, "volume": LISTS, "mount": LISTS, "tmpfs": LISTS, "device": LISTS,
    "memory_bytes": NUMBERS, "memory_swap_bytes": NUMBERS, "cpus": st.one_of(st.none(), st.floats()),
    "shm_size_bytes": st.integers(), "cpu_shares": NUMBERS, "cpuset_cpus": WORDS, "pids_limit": NUMBERS,
    "memory_reservation_bytes": NUMBERS, "cpu_quota_us": NUMBERS, "cpu_period_us": NUMBERS, "cpuset_mems": WORDS,
    "blkio_weight": NUMBERS, "publish": LISTS, "expose": LISTS,
    "cap_add": LISTS, "cap_drop": LISTS, "security_opt": LISTS, "sysctl": LISTS,
}  # fmt: skip


@pytest.mark.parametrize("field", sorted(FIELDS))
@settings(max_examples=150)
@given(data=st.data())
def test_any_value_gives_a_spec_or_our_error(field, data):
    drawn = {field: data.draw(FIELDS[field])}
    try:
        options = RunOptions(image="base", **typed(drawn))
        spec = make_spec(
            options, {"Cmd": ["sh"]}, lookup=lambda path: FILES[path], host=facts(), container_id=ID,
            rootfs="/rootfs", root="/root-dir",
        )  # fmt: skip
    except MiniboxError as error:
        assert str(error) and str(error).isprintable() and (error.hint or "x").isprintable()
        return
    checked(json.loads(json.dumps(spec)), SPEC, "config.json")
    for mount in spec["mounts"]:
        assert mount["destination"].startswith("/") and ".." not in mount["destination"].split("/")
    assert "\\u0000" not in json.dumps(spec)


@settings(max_examples=200)
@given(passwd=st.text(), group=st.text(), user=WORDS)
def test_any_passwd_file(passwd, group, user):
    files = {"/etc/passwd": passwd, "/etc/group": group}
    try:
        make_spec(
            RunOptions(image="base", user=user), {"Cmd": ["sh"]}, lookup=lambda path: files[path],
            host=facts(), container_id=ID, rootfs="/rootfs", root="/root-dir",
        )  # fmt: skip
    except MiniboxError:
        pass


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(WORDS, children, max_size=3),
    max_leaves=6,
)
KEYS = ["User", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal"]


@settings(max_examples=400)
@given(config=st.one_of(JSON, st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4)))
def test_any_image_config(config):
    try:
        spec = make_spec(
            RunOptions(image="base", command=("true",)), checked_config({"config": config}), lookup=lambda path: FILES[path],
            host=facts(), container_id=ID, rootfs="/rootfs", root="/root-dir",
        )  # fmt: skip
    except MiniboxError as error:
        assert str(error).isprintable()
        return
    checked(json.loads(json.dumps(spec)), SPEC, "config.json")
