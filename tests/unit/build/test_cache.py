"""The store of lines: found by content, shared by builds, pruned by use, and why a line isn't reused."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from minibox.build import pruning
from minibox.build.cache import Cache, read_manifest, stored
from minibox.build.context.context import Context
from minibox.build.history import History, Place
from minibox.build.line import Line, key_of
from minibox.build.why import reused, why
from tests.probes import requires

BASE = f"sha256:{'b' * 64}"
PLACE = Place("0", 1, "COPY . /app")


def layer(number):
    return f"sha256:{number:064x}"


def a_line(key, layers=(BASE,), has_layer=False, size_bytes=0):
    return Line(key, "RUN x", "/src/Dockerfile:3", 1000.0, layers, has_layer, {"Env": []}, size_bytes)


@pytest.fixture
def root(tmp_path):
    return str(tmp_path / "root")


@pytest.fixture
def tree(tmp_path):
    path = tmp_path / "context"
    (path / "lib").mkdir(parents=True)
    (path / "lib/a").write_text("a")
    (path / "b").write_text("b")
    (path / "link").symlink_to("b")
    return path


def test_a_line_is_found_by_another_build(root):
    key = key_of(BASE, {"line": "RUN x"}, {})
    with Cache(root, "overlay") as cache:
        assert cache.find(key) is None
        cache.put(a_line(key), {})
    with Cache(root, "overlay") as cache:
        assert cache.find(key_of(BASE, {"line": "RUN x"}, {})) == a_line(key)
        assert cache.find(key_of(BASE, {"line": "RUN y"}, {})) is None
    with Cache(root, "copy") as cache:
        assert cache.find(key) is None


def test_the_order_of_facts_and_inputs_does_not_count():
    one = key_of(BASE, {"a": "1", "b": "2"}, {"x": "1", "y": "2"})
    assert one == key_of(BASE, {"b": "2", "a": "1"}, {"y": "2", "x": "1"})
    others = [
        key_of(BASE, {"a": "1", "b": "2"}, {"x": "1", "y": "3"}),
        key_of("", {"a": "1", "b": "2"}, {}),
        key_of(BASE, {}, {}),
    ]
    assert len({one.id, *(each.id for each in others)}) == 4


def test_a_line_whose_layers_are_gone_is_not_found(root):
    key = key_of(BASE, {}, {})
    with Cache(root, "overlay", lambda layer: layer != BASE) as cache:
        cache.put(a_line(key), {})
        assert cache.find(key) is None


@pytest.mark.parametrize("damage", [b"", b"{", b'{"Kind": "build line", "Format": 1}\n', b"\0" * 500])
@pytest.mark.filterwarnings("ignore::minibox.errors.DamageWarning")
def test_a_damaged_line_is_made_anew(root, damage):
    key = key_of(BASE, {}, {})
    with Cache(root, "overlay") as cache:
        cache.put(a_line(key), {})
    Path(root, "build/lines/overlay", key.id).write_bytes(damage)
    with Cache(root, "overlay") as cache:
        assert cache.find_or_make(key, lambda: a_line(key), {}) == (a_line(key), True)
        assert cache.find(key) == a_line(key)


def test_of_two_builds_one_makes_a_line_and_the_other_waits_for_it(root):
    key, made, begun = key_of(BASE, {}, {}), [], threading.Event()
    results = []

    def make():
        begun.set()
        made.append(1)
        time.sleep(0.2)
        return a_line(key)

    def build():
        with Cache(root, "overlay") as cache:
            results.append(cache.find_or_make(key, make, {})[1])

    threads = [threading.Thread(target=build) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert made == [1]
    assert sorted(results) == [False, False, False, True]
    assert os.listdir(f"{root}/build/lines/overlay") == [key.id]


def test_two_stages_that_find_a_line_close_no_file_of_others(root, monkeypatch):
    key = key_of(BASE, {"line": "RUN true"}, {})
    real, opened = os.close, list[int]()

    def closing(fd):
        real(fd)
        if not opened:  # os.close gives other threads a turn
            opened.append(os.dup(2))
            assert opened[0] == fd and cache.find(key)

    with Cache(root, "overlay") as cache:
        cache.put(a_line(key), {})
        with monkeypatch.context() as patch:
            patch.setattr(os, "close", closing)
            assert cache.find(key)
        os.fstat(opened[0])
    real(opened[0])


def test_a_line_that_fails_is_not_stored_and_the_next_one_tries_again(root):
    key = key_of(BASE, {}, {})

    def fail():
        raise ValueError("no")

    with Cache(root, "overlay") as cache:
        with pytest.raises(ValueError, match="no"):
            cache.find_or_make(key, fail, {})
        assert cache.find_or_make(key, lambda: a_line(key), {})[1]


def test_a_killed_maker_leaves_nothing_that_stops_the_next_build(root):
    key = key_of(BASE, {}, {})
    pid = os.fork()
    if not pid:
        with Cache(root, "overlay") as cache:
            cache.find_or_make(key, lambda: os._exit(9), {})
    os.waitpid(pid, 0)
    assert os.listdir(f"{root}/build/lines/overlay") == [f"{key.id}.lock"]
    with Cache(root, "overlay") as cache:
        assert cache.find_or_make(key, lambda: a_line(key), {})[1]
    assert os.listdir(f"{root}/build/lines/overlay") == [key.id]


def test_no_cache_replaces_a_line_and_prune_removes_the_old_one(root):
    key = key_of(BASE, {}, {})
    released = []
    with Cache(root, "overlay") as cache:
        cache.put(a_line(key, (BASE, layer(1)), True, 5), {})
    with Cache(root, "overlay") as cache:
        new = a_line(key, (BASE, layer(2)), True, 7)
        assert cache.find_or_make(key, lambda: new, {}, fresh=True) == (new, True)
        assert cache.find(key) == new
    assert len(stored(root)) == 2
    pruning.prune(root, lambda *which: released.append(which), keep_bytes=1000)
    assert released == [("overlay", layer(1))]
    assert [each.line for each in stored(root)] == [new]


def chain(root, count, start=0, used=0.0):
    """Store lines on top of each other, used at a time and a second later each."""
    layers = [BASE]
    keys = []
    with Cache(root, "overlay") as cache:
        for number in range(start, start + count):
            key = key_of(layers[-1], {"line": f"RUN {number}"}, {})
            layers.append(layer(number + 1))
            cache.put(a_line(key, tuple(layers), True, 100), {})
            os.utime(f"{root}/build/lines/overlay/{key.id}", (used + number, used + number))
            keys.append(key.id)
    return keys


def test_prune_removes_the_least_recently_used_and_what_is_on_top_first(root):
    now = time.time()
    old, new = chain(root, 3, used=now - 5000), chain(root, 3, start=10, used=now - 100)
    gone = pruning.prune(root, lambda *which: None, keep_bytes=400)
    assert [each.line.key.id for each in gone] == [old[2], old[1]]
    gone = pruning.prune(root, lambda *which: None, unused_s=1000)
    assert [each.line.key.id for each in gone] == [old[0]]
    assert {each.line.key.id for each in stored(root)} == set(new)
    assert pruning.usage(root).bytes_of_lines == 300
    assert len(pruning.prune(root, lambda *which: None)) == 3
    assert stored(root) == []


def test_prune_leaves_what_a_build_holds_and_what_is_below_it(root):
    chain(root, 3)
    with Cache(root, "overlay") as cache:
        top = next(each.line for each in stored(root) if each.line.own_layer == layer(2))
        assert cache.find(top.key)
        gone = pruning.prune(root, lambda *which: None)
        assert [each.line.own_layer for each in gone] == [layer(3)]
        assert {each.in_use for each in pruning.usage(root).lines if each.line == top} == {True}
    assert len(pruning.prune(root, lambda *which: None)) == 2


def select(tree, *sources, **options):
    with Context(str(tree), **options) as context:
        return context.select(sources or ["."])


def build(root, tree, facts=None, parent=BASE, history=True, **options):
    """Carry out a line that copies the tree; return why it wasn't reused, or None."""
    inputs = {"the context": select(tree, **options)}
    key = key_of(parent, {"line": "COPY . /app", **(facts or {})}, inputs)
    past = History(root, "here")
    with Cache(root, "overlay") as cache:
        reasons = None if cache.find(key) else why(root, past, PLACE, key, inputs)
        cache.find_or_make(key, lambda: a_line(key), inputs)
    if history:
        past.note(PLACE, key)
        past.save()
    return reasons


CHANGES = {
    "lib/a: content": lambda tree: (tree / "lib/a").write_text("x"),
    "b: mode 600, was 644": lambda tree: (tree / "b").chmod(0o600),
    "lib: mode 700, was 755": lambda tree: (tree / "lib").chmod(0o700),
    "link: link target": lambda tree: ((tree / "link").unlink(), (tree / "link").symlink_to("lib")),
    "c: new": lambda tree: (tree / "c").write_text("c"),
    "b: gone": lambda tree: (tree / "b").unlink(),
    "link: another kind of file": lambda tree: ((tree / "link").unlink(), (tree / "link").write_text("b")),
}


@pytest.mark.parametrize("reason", CHANGES)
def test_why_names_the_file_and_what_has_changed(root, tree, reason):
    assert build(root, tree) == ["it was never built before"]
    assert build(root, tree) is None
    CHANGES[reason](tree)
    assert build(root, tree) == [reason]
    assert build(root, tree) is None


@requires("root")
def test_why_names_the_owner_of_a_stages_file(root, tree):
    build(root, tree, keeps_owner=True)
    os.chown(tree / "b", 7, 8)
    assert build(root, tree, keeps_owner=True) == ["b: owner 7:8, was 0:0"]
    assert build(root, tree) is None  # in a context everything belongs to root, as it did at first


def test_why_names_the_argument_the_line_and_the_parent(root, tree):
    build(root, tree, {"arg A": "1"})
    assert build(root, tree, {"arg A": "2"}) == ["arg A is '2', was '1'"]
    assert build(root, tree, {}) == ["arg A is gone, was '2'"]
    assert build(root, tree, {"arg B": "3"}) == ["arg B is new: '3'"]
    assert build(root, tree, {"line": "COPY . /x"}) == [
        "the line is 'COPY . /x', was 'COPY . /app'",
        "arg B is gone, was '3'",
    ]
    assert build(root, tree, {"line": "COPY . /x"}, parent=layer(5)) == [
        f"what is below it has changed: it is {layer(5)[:19]}, was {BASE[:19]}"
    ]


def test_why_names_a_few_of_many_files(root, tree):
    build(root, tree)
    for number in range(9):
        (tree / f"n{number}").touch()
    reasons = build(root, tree)
    assert reasons == [*(f"n{number}: new" for number in range(5)), "and 4 more files"]


def test_why_says_that_a_line_was_pruned_or_its_layer_is_gone(root, tree):
    build(root, tree)
    pruning.prune(root, lambda *which: None)
    assert build(root, tree) == ["it was pruned just now"]
    for each in stored(root):
        os.unlink(each.path)
    os.unlink(f"{root}/build/pruned")
    assert build(root, tree) == ["its layer is gone"]


def test_why_compares_with_another_dockerfiles_line_if_there_is_no_former_one(root, tree):
    build(root, tree, history=False)
    (tree / "b").write_text("y")
    assert build(root, tree) == ["b: content"]


def test_a_line_is_found_after_lines_were_added_above(root):
    past = History(root, "here")
    key = key_of(BASE, {}, {})
    past.note(Place("0", 1, "RUN a"), key)
    past.save()
    past = History(root, "here")
    assert past.former(Place("0", 2, "RUN a")) == key
    assert past.former(Place("0", 1, "RUN b")) == key
    assert past.former(Place("0", 2, "RUN b")) is None
    assert past.former(Place("other", 1, "RUN a")) is None
    assert History(root, "elsewhere").former(Place("0", 1, "RUN a")) is None


def test_where_a_line_comes_from():
    assert reused(a_line(key_of("", {}, {})), 1000.0 + 7200) == "reused from /src/Dockerfile:3, made 2 hours ago"


def test_manifests_go_with_the_last_line_that_needs_them(root, tree):
    build(root, tree, history=False)
    digest = select(tree).digest
    assert read_manifest(root, digest) == select(tree).manifest
    pruning.prune(root, lambda *which: None)
    assert read_manifest(root, digest)  # a build may have written it for a line that it is making
    os.utime(f"{root}/build/manifests/{digest}", (0, 0))
    pruning.prune(root, lambda *which: None)
    assert read_manifest(root, digest) is None
