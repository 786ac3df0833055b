"""Containers on disk: claims, names, orphans, damaged files."""

from __future__ import annotations

import json
import marshal
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibox.base.home import Home
from minibox.engine.container import collection
from minibox.engine.state import claim as ownership
from minibox.engine.state import containers, live_file, names
from minibox.engine.state.claim import Claim
from minibox.engine.upkeep import image_users
from minibox.errors import ContainerNotFound, MiniboxError, NameTaken, Unreadable, UsageError
from minibox.image.layout.image import ResolvedImage

JOINABLE: dict[str, Any] = {
    "Process": {"cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["A=\udcff\n"]},
    "Namespaces": 7,
    "Seccomp": b"\0\n\xff".hex(),
    "SeccompFlags": 0,
    "SetGroups": True,
}
IMAGE = ResolvedImage("docker.io/library/app:1", "sha256:d", {}, ("sha256:a", "sha256:b"), "sha256:i")


@pytest.fixture
def claim(tmp_path: Path) -> Any:
    """Make claims in this test's root, released at its end."""
    made: list[Claim] = []

    def make(name: str = "", *, remove: bool = True) -> Claim:
        made.append(Claim.new(str(tmp_path), name, remove=remove))
        return made[-1]

    yield make
    for each in made:
        each.release()


Make = Callable[..., Claim]


def files_of(claim: Claim, **known: Any) -> None:
    os.makedirs(claim.directory)
    containers.write(claim.root, {"Id": claim.id, "Name": claim.name, "Status": "exited", **known})


def pid_of(root: str, claim: Claim) -> int:
    live = ownership.read_owner(root, claim.id)
    assert live
    return live.pid


def lose_owner(claim: Claim) -> None:
    """As when its minibox is killed: the kernel drops the lock, the file stays."""
    claim.release(finished=False)


def test_a_claim_has_an_id_and_a_name_of_its_own(claim: Make):
    first, second = claim(), claim()
    assert len(first.id) == 64 and set(first.id) <= set("0123456789abcdef") and first.id != second.id
    assert first.name and first.name != second.name


def test_a_name_is_taken_once(claim: Make):
    web = claim("web")
    with pytest.raises(NameTaken, match=f"'web' is taken by container {web.id[:12]}") as caught:
        claim("web")
    assert caught.value.hint
    assert os.listdir(f"{web.root}/live") == [web.id]  # the refused claim left nothing


def test_a_name_is_free_again_when_nothing_of_its_holder_is_left(claim: Make):
    first = claim("web")
    first.release()
    assert claim("web").id != first.id


def test_a_name_stays_with_a_container_that_has_files(claim: Make):
    web = claim("web")
    files_of(web)
    web.release()
    with pytest.raises(NameTaken):
        claim("web")


def test_a_name_is_dropped_by_its_own_container_only(claim: Make):
    web = claim("web")
    names.drop(web.root, "0" * 64, "web")
    with pytest.raises(NameTaken):
        claim("web")
    names.drop(web.root, web.id, "")
    assert claim("web").name == "web"
    names.drop(web.root, web.id, "gone")  # no such name is fine


@pytest.mark.parametrize("name", ["a", "-a", ".a", "_a", "a b", "a/b", "..", "é1", "1é", "a\n", "x" * 129, "a\0b"])
def test_names_that_can_be_meant_only(claim: Make, name: str, tmp_path: Path):
    with pytest.raises(UsageError, match="invalid container name"):
        claim(name)
    assert os.listdir(tmp_path / "live") == []


@given(st.text(min_size=1))
def test_any_name_is_taken_or_refused(tmp_path_factory: pytest.TempPathFactory, name: str):
    root = str(tmp_path_factory.mktemp("root"))
    try:
        made = Claim.new(root, name, remove=True)
    except UsageError:
        return
    assert os.listdir(f"{root}/names") == [name]
    made.release()


def test_a_root_that_is_a_file_is_one_clear_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MiniboxError, match=r"write the state in .*file.*ENOTDIR"):
        Claim.new(str(tmp_path / "file"), "", remove=True)


# ---- owners -------------------------------------------------------------------------------------


def test_only_what_lost_its_owner_is_an_orphan(claim: Make, tmp_path: Path):
    running, lost, kept = claim(), claim(), claim(remove=False)
    lost.note_image("app:1", IMAGE)
    lose_owner(lost)
    kept.note_image("app:1", IMAGE)
    kept.note_process(4711, ["sh"])
    lose_owner(kept)
    assert {(name, remove) for name, remove, _ in ownership.orphans(str(tmp_path))} == {
        (lost.id, True),
        (kept.id, False),
    }
    assert running.id not in {name for name, _, _ in ownership.orphans(str(tmp_path))}


def test_an_owner_that_died_before_its_first_word_did_not_say_to_remove(tmp_path: Path):
    (tmp_path / "live").mkdir()
    died = "0abc" * 16
    (tmp_path / "live" / died).touch()
    (tmp_path / "live" / "not an id").touch()
    assert [(name, remove) for name, remove, _ in ownership.orphans(str(tmp_path))] == [(died, False)]


@pytest.mark.parametrize("word", [b"", b"keep"])
def test_a_start_that_was_killed_at_once_costs_no_container(claim: Make, tmp_path: Path, word: bytes):
    ended = claim()
    files_of(ended, ExitCode=3)
    (tmp_path / "live" / ended.id).write_bytes(word)
    lose_owner(ended)
    assert collection.collect(Home(str(tmp_path), str(tmp_path / "run"))) == [ended.id]
    assert containers.read(str(tmp_path), ended.id)["ExitCode"] == 3


def test_how_it_ended_is_known_to_who_watched_when_all_is_removed(claim: Make, tmp_path: Path):
    owner = claim()
    owner.note_image("app:1", IMAGE)
    owner.note_process(4711, ["sh"], JOINABLE)
    watch = ownership.OwnerWatch(str(tmp_path), owner.id)
    assert watch.is_owned() and watch.status() == -1
    owner.note_ended(7)
    owner.release()
    assert not watch.is_owned() and watch.status() == 7
    watch.close()


def test_of_changes_at_once_none_is_lost(claim: Make, tmp_path: Path):
    ended = claim()
    files_of(ended, Count=0)

    def count() -> None:
        for _ in range(20):
            containers.change(str(tmp_path), ended.id, lambda found: {**found, "Count": found["Count"] + 1})

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert containers.read(str(tmp_path), ended.id)["Count"] == 80


def test_no_two_collect_the_same_orphan(claim: Make, tmp_path: Path):
    lose_owner(claim())
    first = ownership.orphans(str(tmp_path))
    assert next(first)
    assert list(ownership.orphans(str(tmp_path))) == []
    del first  # ends the generator, which holds the lock
    assert len(list(ownership.orphans(str(tmp_path)))) == 1


def test_the_process_of_a_live_container_is_known(claim: Make, tmp_path: Path):
    made = claim()
    root = str(tmp_path)
    assert ownership.is_live(root, made.id) and pid_of(root, made) == -1
    made.note_image("app:1", IMAGE)
    assert pid_of(root, made) == -1
    made.note_process(4711, ["sh", "-c", "echo a\n1"])
    assert pid_of(root, made) == 4711
    os.makedirs(made.directory)
    found = containers.read(root, made.id)
    assert (found["Image"], found["ImageDigest"], found["ImageId"]) == ("app:1", "sha256:d", "sha256:i")
    assert (found["Status"], found["Command"]) == ("running", ["sh", "-c", "echo a\n1"])
    made.release()
    assert not ownership.is_live(root, made.id) and ownership.read_owner(root, made.id) is None


def test_what_containers_need_is_known_from_their_first_word_to_their_last_file(claim: Make, tmp_path: Path):
    root = str(tmp_path)
    silent, running, ended, old = claim(), claim(), claim(), claim()
    for each in (running, ended):
        each.note_image("app:0", IMAGE)
        each.note_image("app:1", IMAGE)  # the last word counts
    files_of(ended, ImageDigest="sha256:e")
    files_of(old)
    for each in (ended, old):
        each.release()
    assert {use.id: (use.digest, use.chain_ids, use.running) for use in image_users.uses(root)} == {
        running.id: ("sha256:d", ("sha256:a", "sha256:b"), True),
        ended.id: ("sha256:e", (), False),
        old.id: ("", (), False),
    }
    assert silent.id not in {use.id for use in image_users.uses(root)}


@given(st.binary(max_size=60))
def test_half_a_word_is_none(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    root = tmp_path_factory.mktemp("root")
    (root / "live").mkdir()
    (root / "live" / ("0abc" * 16)).write_bytes(data)
    assert [use for use in image_users.uses(str(root)) if not use.digest] == []


def test_one_that_looks_is_not_the_owner(claim: Make, tmp_path: Path):
    import fcntl

    made = claim()
    lose_owner(made)
    with open(tmp_path / "live" / made.id) as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # as ownership.read_owner does for a moment
        assert not ownership.is_live(str(tmp_path), made.id)


def test_nothing_is_there_at_first(tmp_path: Path):
    assert list(ownership.orphans(str(tmp_path))) == [] and containers.containers(str(tmp_path)) == []
    assert not ownership.is_live(str(tmp_path), "0abc")
    names.drop(str(tmp_path), "0abc", "")


# ---- files --------------------------------------------------------------------------------------


def test_what_is_written_is_read(claim: Make, tmp_path: Path):
    made = claim("web")
    files_of(made, ExitCode=3)
    found = containers.read(str(tmp_path), made.id)
    assert (found["Id"], found["Name"], found["Status"], found["ExitCode"]) == (made.id, "web", "exited", 3)
    assert os.listdir(made.directory) == ["state.json"]


@pytest.mark.filterwarnings("ignore::minibox.errors.DamageWarning")
@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "7", '"x"', "{}", '{"Id": 5, "Name": "a", "Status": "b"}', '{"Id": "5", "Name": "a"}',
     "\ud800", "[" * 100000],
    ids=lambda text: ascii(text)[:20],
)  # fmt: skip
def test_a_damaged_file_costs_no_other_container(claim: Make, tmp_path: Path, text: str):
    good, bad = claim("good"), claim("bad")
    files_of(good)
    os.makedirs(bad.directory)
    Path(bad.directory, "state.json").write_bytes(text.encode(errors="surrogatepass"))
    assert containers.read(str(tmp_path), bad.id)["Status"] == "damaged"
    assert {each["Status"] for each in containers.containers(str(tmp_path))} == {"damaged", "exited"}
    assert containers.find(str(tmp_path), "good")["Id"] == good.id
    assert containers.find(str(tmp_path), bad.id[:16])["Id"] == bad.id


def test_one_that_runs_has_no_file_yet(claim: Make, tmp_path: Path):
    made = claim("web")
    os.makedirs(made.directory)
    assert containers.read(str(tmp_path), made.id)["Status"] == "running"


def test_a_container_is_found_by_name_id_and_prefix(tmp_path: Path):
    for container_id, name in (("abc1" + "0" * 60, "web"), ("abc2" + "0" * 60, "abc1"), ("f" * 64, "")):
        os.makedirs(tmp_path / "containers" / container_id)
        text = json.dumps({"Id": container_id, "Name": name, "Status": "exited"})
        (tmp_path / "containers" / container_id / "state.json").write_text(text)
        if name:
            names.take(str(tmp_path), name, container_id, lambda _: False)
    root = str(tmp_path)
    assert containers.find(root, "web")["Id"].startswith("abc1")
    assert containers.find(root, "abc2")["Name"] == "abc1"
    assert containers.find(root, "abc1")["Id"].startswith("abc2")  # a whole name goes before the beginning of an id
    assert containers.find(root, "f" * 64)["Name"] == ""
    for nobody, what in (("abc", "ambiguous"), ("x", "there is no"), ("", "there is no"), ("-", "there is no")):
        with pytest.raises(ContainerNotFound, match=what) as caught:
            containers.find(root, nobody)
        assert caught.value.hint


def test_who_is_said_to_run_and_has_no_owner_has_ended(claim: Make):
    """As after a power loss: state.json was synced, the owner's file never reached the disk."""
    web = claim("web", remove=False)
    for status in containers.ALIVE:
        files_of(web, Status=status, Pid=77) if status == "running" else containers.write(
            web.root, {"Id": web.id, "Name": "web", "Status": status, "Pid": 77}
        )
        assert containers.read(web.root, web.id)["Status"] == status
    web.release()
    found = containers.read(web.root, web.id)
    assert (found["Status"], found["Pid"], found["ExitCode"]) == ("exited", 0, 137) and found["OwnerKilled"]
    Path(f"{web.directory}/exit").write_text(
        '{"status": 3, "signal": 0, "timed_out": false, "finished_ns": 5000000000}'
    )
    found = containers.read(web.root, web.id)
    assert (found["Status"], found["ExitCode"], found["Finished"]) == ("exited", 3, 5.0)


@pytest.mark.filterwarnings("ignore::minibox.errors.DamageWarning")
@pytest.mark.parametrize("text", ["", "{", '{"status": ', "[]", '{"status": "x", "signal": 0}'])
def test_half_an_exit_record_is_none(claim: Make, text: str):
    web = claim(remove=False)
    files_of(web, Status="running")
    Path(f"{web.directory}/exit").write_text(text)
    web.release()
    assert containers.read(web.root, web.id)["ExitCode"] == 137


@given(st.binary(max_size=200))
def test_whatever_is_in_an_owners_file(data: bytes):
    written = live_file.image_line(False, "app:1", IMAGE)
    for head in (b"", b"{", b"keep\0app\0sha256:d\0sha256:i\n", b"remove\0", written, written + b"{"):
        try:
            live = live_file.parse(head + data, "/live")
            assert isinstance(live.pid, int) and isinstance(live.exec_context, (dict, NoneType))
        except Unreadable as error:
            assert error.path == "/live"


def test_an_owners_file_of_before_is_read():
    """As 1fd2aea wrote it: fields between NULs, numbers, marshal and the command."""
    process = {"cwd": "/", "user": {"uid": 0, "gid": 0}}
    kept = marshal.dumps((process, 7, b"\0\n\xff", 0, True))
    image = b"remove\0app:1\0sha256:d\0sha256:i\0sha256:a\0sha256:b\n"
    found = live_file.parse(image + b"4711 4700 %d\n" % len(kept) + kept + b"sh\0-c\0a\nb", "/live")
    assert (found.reference, found.digest, found.image_id) == ("app:1", "sha256:d", "sha256:i")
    assert (found.pid, found.supervisor, found.remove) == (4711, 4700, True)
    assert found.chain_ids == ("sha256:a", "sha256:b") and found.command == ("sh", "-c", "a\nb")
    assert found.exec_context == {**JOINABLE, "Process": process}
    ended = live_file.parse(image + b"-1 0 0 3\n" + kept, "/live")
    assert (ended.pid, ended.status, ended.exec_context) == (-1, 3, None)


def test_what_its_owner_says_has_no_limit_that_a_reader_has_not(claim: Make, tmp_path: Path):
    owner = claim()
    owner.note_image("app:1", IMAGE)
    env = [f"V{number}={'x' * 60_000}" for number in range(30)]
    exec_context = {**JOINABLE, "Process": {**JOINABLE["Process"], "env": env}}
    owner.note_process(4711, ["sh", "y" * 100_000], exec_context, 4700)
    found = ownership.read_owner(str(tmp_path), owner.id)
    assert found and found.exec_context == exec_context and found.command == ("sh", "y" * 100_000)
    owner.note_ended(7)
    found = ownership.read_owner(str(tmp_path), owner.id)
    assert found and (found.status, found.exec_context, found.damage) == (7, None, None)


@pytest.mark.parametrize("data", [b"", b"\0" * 300, b"keep", b"keep\0app\0d\0i\n\0\0\0\0\n", b"keep\0a\0b\0c\nx y z\n"])
def test_an_owners_file_that_never_reached_the_disk_is_an_orphans(claim: Make, data: bytes):
    web = claim("web", remove=False)
    files_of(web, Status="running")
    lose_owner(web)
    Path(f"{web.root}/live/{web.id}").write_bytes(data)
    assert [(found, remove) for found, remove, _ in ownership.orphans(web.root)] == [(web.id, False)]
    assert containers.read(web.root, web.id)["Status"] == "exited"
    assert image_users.uses(web.root)[0].id == web.id


def test_what_is_no_id_is_no_container(claim: Make):
    web = claim("web")
    files_of(web)
    for place in ("containers", "live"):
        for name in ("lost+found", "x", "A" * 64, f"{web.id}.old"):
            os.mkdir(f"{web.root}/{place}/{name}")
    assert containers.container_ids(web.root) == [web.id] and ownership.live_ids(web.root) == [web.id]
    with pytest.raises(ContainerNotFound):
        containers.find(web.root, "lost+found")


@pytest.mark.filterwarnings("ignore::minibox.errors.DamageWarning")
@pytest.mark.parametrize("text", [b"", b"{", b"\0" * 500, b'{"Id": "x"}', b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_state_says_so_by_its_name(claim: Make, text: bytes):
    web, other = claim("web", remove=False), claim("other", remove=False)
    files_of(web)
    files_of(other)
    Path(f"{web.directory}/state.json").write_bytes(text)
    found = containers.find(web.root, "web")
    assert (found["Id"], found["Name"], found["Status"]) == (web.id, "web", "damaged")
    assert found["Error"].startswith("its state.json can't be read: ")
    assert containers.find(web.root, "other")["Status"] == "exited"
    assert {each["Name"] for each in containers.containers(web.root)} == {"web", "other"}


@pytest.mark.parametrize("what", ["fifo", "directory", "link"])
def test_what_is_in_the_place_of_an_owners_file_goes(claim: Make, tmp_path: Path, what: str):
    web = claim("web", remove=False)
    files_of(web)
    web.release()
    path = Path(f"{web.root}/live/{web.id}")
    if what == "fifo":
        os.mkfifo(path)
    elif what == "directory":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    again = Claim.of(web.root, web.id, "web", remove=False)
    assert again and ownership.is_live(web.root, web.id) and path.is_file() and not path.is_symlink()
    again.note_image("app:1", IMAGE)
    again.release()
    assert not (tmp_path / "elsewhere").exists()


PARENT = "import subprocess; child = subprocess.Popen(['sleep', '1000']); print(child.pid, flush=True); child.wait()"


@pytest.mark.parametrize(
    ("argv", "is_it"),
    [
        (["minibox-supervisor", "c" * 12], True),
        (["minibox-supervisor", "d" * 12], False),
        (["minibox-supervisor", "c"], False),
        (["sh", "c" * 12], False),
    ],
)
def test_a_parent_is_a_supervisor_by_what_it_calls_itself(tmp_path: Path, argv: list[str], is_it: bool) -> None:
    """Once the supervisor has died it is process 1, or a subreaper: the caller's own shell or test runner."""
    (tmp_path / argv[1]).write_text(PARENT)
    parent = subprocess.Popen(argv, executable=sys.executable, cwd=tmp_path, stdout=subprocess.PIPE, process_group=0)
    with parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert containers._supervisor_of(pid, "c" * 64) == (parent.pid if is_it else 0)
        os.killpg(parent.pid, signal.SIGKILL)
