"""A container that is filled in from another's template is what it would be, compiled anew."""

from __future__ import annotations

import pytest

import minibox
from minibox.engine.container.embedded import Embedded
from minibox.engine.spec import plan_cache
from minibox.engine.spec.compile import prepare as compile_anew
from minibox.linux.process import signatures
from minibox.plan.encode import encode
from minibox.plan.operations import INIT, MOUNTER

pytestmark = pytest.mark.requires("root")

KINDS = [
    {},
    {"init": True},
    {"userns": "host"},
    {"env": {"A": "b", "HOME": "/tmp"}, "memory": "64m", "processes": 20, "ulimits": {"nofile": 64}},
    {"read_only": True, "user": "1000:1000", "cwd": "/tmp", "hostname": "box", "tmpfs": ["/x"]},
    {"cap_drop": ["ALL"], "sysctls": {"net.ipv4.ip_forward": "1"}, "labels": {"a": "b"}},
]


@pytest.fixture
def pairs(monkeypatch, api):
    """What was made, and the same compiled anew, of each container."""
    found, real = [], plan_cache.prepare
    monkeypatch.setattr(plan_cache, "_cache", {})

    def both(*args, **options):
        found.append((real(*args, **options), compile_anew(*args, **options)))
        return found[-1][0]

    monkeypatch.setattr(Embedded, "compile", staticmethod(both))
    return found


@pytest.mark.parametrize("options", KINDS, ids=lambda options: "+".join(options) or "plain")
def test_it_is_the_same(pairs, options):
    words = ["true", "one", "one", "two words", "one"]
    for word in words:
        done = minibox.run("base", ["echo", word], capture_output=True, text=True, check=True, **options)
        assert done.stdout == f"{word}\n"
    assert [bool(made.plan.encoded) for made, _ in pairs] == [False, True, True, True, True]
    for made, anew in pairs:
        assert made.spec == anew.spec
        assert (made.plan.ops, made.plan.flags) == (anew.plan.ops, anew.plan.flags)
        assert made.start == anew.start
        assert (made.cgroup_host, made.group.paths) == (anew.cgroup_host, anew.group.paths)
        for actor, data in made.plan.encoded.items():
            assert data == encode(made.plan.of(actor), signatures())
    assert set(pairs[-1][0].plan.encoded) == {INIT, MOUNTER}


def test_the_words_of_a_command_may_be_anothers_id(pairs):
    first = minibox.run("base", ["hostname"], capture_output=True, text=True).stdout.strip()
    others = [minibox.run("base", ["echo", first], capture_output=True, text=True).stdout for _ in range(3)]
    assert others == [f"{first}\n"] * 3


def test_what_is_looked_up_on_the_host_is_looked_up_each_time(pairs, tmp_path, monkeypatch):
    for text in ("one", "two"):
        (tmp_path / "file").write_text(text)
        monkeypatch.setenv("MINIBOX_WORD", text)
        box = minibox.run(
            "base", ["cat", "/file"], capture_output=True, text=True, mounts=[(tmp_path / "file", "/file")]
        )
        assert box.stdout == text
    assert not any(made.plan.encoded for made, _ in pairs)


def test_a_kind_whose_image_has_changed_is_another(pairs):
    for word in ("one", "two", "two"):
        with minibox.Sandbox("base") as box:
            box.write_file("/word", word)
            snapshot = box.snapshot()
        with snapshot, snapshot.sandbox() as box:
            assert box.read_file("/word") == word.encode()


def test_there_are_not_too_many(pairs, monkeypatch):
    monkeypatch.setattr(plan_cache, "KINDS_MAX", 2)
    for number in range(4):
        minibox.run("base", ["true"], env={"N": str(number)}, check=True)
    assert len(plan_cache._cache) == 2
