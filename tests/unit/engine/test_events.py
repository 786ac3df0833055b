"""events: what is written can be read, whatever it contains, across rotations and by whoever follows."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibox.cli.commands.events import format_event, renderer
from minibox.engine.state import events
from minibox.engine.state.events import CONTAINER, IMAGE, fits, note, note_container, parse_event_filters, read

ANY_TEXT = st.text(st.characters(), max_size=20)
WEB = {"Id": "a" * 64, "Name": "web", "Image": "base:1", "Config": {"Labels": {"team": "blue"}}}


@given(ANY_TEXT, st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=3))
def test_a_line_is_json_of_any_text(actor, attributes):
    text = events.line(CONTAINER, actor, attributes, "exec_create: sh", 5)
    assert text.isascii() and text.count("\n") == 1
    found = json.loads(text)
    assert found["Actor"] == {"ID": actor, "Attributes": attributes} and found["timeNano"] == 5


def everything(runroot: Path, *filters: str) -> list[dict]:
    return list(read(str(runroot), since_s=0, until_s=time.time(), filters=parse_event_filters(filters)))


def test_events_are_read_in_order_with_dockers_fields(tmp_path):
    runroot = tmp_path / "run"
    note_container(str(runroot), WEB, "create", "start")
    note_container(str(runroot), WEB, "die", exitCode="3")
    note(str(runroot), IMAGE, "sha256:1", {"name": "base:1"}, "tag")
    found = everything(runroot)
    assert [each["Action"] for each in found] == ["create", "start", "die", "tag"]
    assert found[0]["timeNano"] <= found[1]["timeNano"]
    die = found[2]
    assert (die["status"], die["id"], die["from"]) == ("die", "a" * 64, "base:1")
    attributes = {"exitCode": "3", "image": "base:1", "name": "web", "team": "blue"}
    assert die["Actor"] == {"ID": "a" * 64, "Attributes": attributes}
    assert format_event(die).endswith(f" container die {'a' * 64} (exitCode=3, image=base:1, name=web, team=blue)")
    assert json.loads(renderer("json")(die)) == die
    assert renderer("{{.Action}} {{.Actor.Attributes.name}} {{.From}}")(die) == "die web base:1"


def test_only_what_happened_in_time(tmp_path):
    note_container(str(tmp_path), WEB, "create")
    moment_s = time.time()
    assert list(read(str(tmp_path), until_s=moment_s)) == [], "without --since from now on"
    assert list(read(str(tmp_path), since_s=moment_s + 9, until_s=moment_s)) == []
    assert len(list(read(str(tmp_path), since_s=moment_s - 9, until_s=moment_s))) == 1


@pytest.mark.parametrize(
    ("filters", "passes"),
    [
        (["container=web"], True), (["container=aaaa"], True), (["container=we"], False),
        (["event=die"], True), (["event=start", "event=die"], True), (["event=start"], False),
        (["type=container", "event=die"], True), (["type=image"], False),
        (["image=base:1"], True), (["image=base"], True), (["image=bas"], False),
        (["label=team=blue"], True), (["label=team", "label=other"], False), (["volume=web"], False),
    ],
)  # fmt: skip
def test_filters(tmp_path, filters, passes):
    note_container(str(tmp_path), WEB, "die")
    (event,) = everything(tmp_path)
    assert fits(event, parse_event_filters(filters)) == passes


def test_a_full_disk_costs_one_event(tmp_path):
    note_container(str(tmp_path), WEB, "create")
    with (tmp_path / "events").open("ab") as file:
        file.write(b'{"Type":"contai\n[]\n')
    note_container(str(tmp_path), WEB, "die")
    assert [each["Action"] for each in everything(tmp_path)] == ["create", "die"]


def test_who_follows_loses_none_while_many_write_and_rotate(tmp_path, monkeypatch):
    monkeypatch.setattr(events, "BYTES_MAX", 4000)
    monkeypatch.setattr(events, "POLL_S", 0.0005)
    runroot, count, seen = str(tmp_path), 120, []
    ready, unseen = threading.Event(), threading.Semaphore(8)  # who reads may be half a file late, and no more

    def follow() -> None:
        ready.set()
        for event in read(runroot, since_s=0):
            seen.append(event["Actor"]["ID"])
            unseen.release()
            if len(seen) == 2 * count:
                return

    def write(who: str) -> None:
        for number in range(count):
            unseen.acquire(timeout=30)
            note(runroot, CONTAINER, f"{who}{number}", {"name": "x" * 40}, "start")
            os.sched_yield()
            threading.Event().wait(0.002)

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    ready.wait()
    writers = [threading.Thread(target=write, args=(who,)) for who in "ab"]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    follower.join(30)
    assert sorted(seen) == sorted(f"{who}{number}" for who in "ab" for number in range(count))
    assert os.path.getsize(tmp_path / "events.1") < 5000


def test_what_cannot_be_written_costs_the_event_only(tmp_path):
    (tmp_path / "run").write_text("no directory")
    note_container(str(tmp_path / "run"), WEB, "create")
