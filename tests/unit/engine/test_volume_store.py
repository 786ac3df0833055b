"""Volumes on disk: made, listed, in use, removed, while somebody else does the same."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from minibox.base.home import Home
from minibox.engine.resources import volumes
from minibox.engine.resources.volume_claims import LockedVolume, provide, users
from minibox.engine.spec.options import Volume
from minibox.engine.state import containers
from minibox.errors import StoreError, Unsupported, UsageError, VolumeInUse, VolumeNotFound

ID, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path)


def container(root: str, container_id: str = ID, **known: Any) -> None:
    os.makedirs(f"{root}/containers/{container_id}", exist_ok=True)
    if known:
        containers.write(root, {"Id": container_id, "Name": "web", "Status": "exited", **known})


def volume(root: str, name: str, *, copy: bool = True) -> Volume:
    return Volume(name, f"{root}/volumes/{name}/_data", "/data", False, copy)


def made_plainly(asked: Volume) -> None:
    os.makedirs(asked.path, exist_ok=True)


def names(root: str) -> list[str]:
    return [each.name for each in volumes.volumes(root)]


def test_a_volume_is_made_once(root):
    assert volumes.create(Home(root), "data", labels=["a=b", "c"]) == "data"
    assert volumes.create(Home(root), "data", labels=["late=1"]) == "data"
    (found,) = volumes.volumes(root)
    assert found.labels == {"a": "b", "c": ""} and os.path.isdir(found.path) and not found.users
    document = found.document()
    assert document["Mountpoint"] == f"{root}/volumes/data/_data" and document["CreatedAt"].endswith("Z")
    assert os.stat(f"{root}/volumes").st_mode & 0o777 == 0o700


def test_a_name_is_made_up(root):
    name = volumes.create(Home(root))
    assert len(name) == 64 and volumes.inspect(root, name).labels == {volumes.ANONYMOUS_LABEL: ""}


@pytest.mark.parametrize("name", ["x", "../etc", "a/b", ".hidden", "a b", "n" * 256])
def test_bad_names(root, name):
    with pytest.raises(UsageError):
        volumes.create(Home(root), name)
    with pytest.raises(VolumeNotFound):
        volumes.inspect(root, name)
    with pytest.raises(VolumeNotFound):
        volumes.remove(Home(root), name)
    assert names(root) == []


def test_drivers_and_their_options_are_refused(root):
    for more in ({"driver": "nfs"}, {"options": ["type=tmpfs"]}):
        with pytest.raises(Unsupported) as caught:
            volumes.create(Home(root), "data", **more)
        assert caught.value.hint
    assert names(root) == []


def test_one_that_a_container_has_stays(root):
    container(root)
    provide([volume(root, "data")], root, ID, made_plainly)
    with pytest.raises(VolumeInUse, match=rf"remove data: volume is in use - \[{ID}\]") as caught:
        volumes.remove(Home(root), "data")
    assert caught.value.hint == f"remove its containers first: minibox rm {ID[:12]}"
    assert volumes.prune(Home(root), everything=True) == ([], 0)
    os.unlink(f"{root}/containers/{ID}/named-volumes")
    os.rmdir(f"{root}/containers/{ID}")
    volumes.remove(Home(root), "data")
    assert os.listdir(f"{root}/volumes") == []


@pytest.mark.filterwarnings("ignore::minibox.errors.DamageWarning")
def test_a_container_whose_record_or_state_is_lost_still_has_its_volume(root):
    container(root, Mounts=[{"Source": f"{root}/volumes/data/_data", "Destination": "/d"}, {"Source": "/etc"}])
    container(root, OTHER)
    provide([volume(root, "data")], root, OTHER, made_plainly)
    Path(f"{root}/containers/{OTHER}/state.json").write_text("{")
    assert users(root) == {"data": [ID, OTHER]}


@pytest.mark.filterwarnings("ignore::minibox.errors.DamageWarning")
def test_a_damaged_note_costs_the_labels_only(root):
    volumes.create(Home(root), "data", labels=["a=b"])
    for text in ("", "{", "[]", '{"CreatedAt": 7, "Labels": 1}'):
        Path(f"{root}/volumes/data/volume.json").write_text(text)
        found = volumes.inspect(root, "data")
        assert found.created_s > 0 and isinstance(found.labels, dict)
    volumes.remove(Home(root), "data")


def test_one_that_was_being_made_is_none(root):
    os.makedirs(f"{root}/volumes/data/_data.77.new")
    assert names(root) == []
    assert volumes.create(Home(root), "data") == "data" and names(root) == ["data"]


def test_removing_what_is_not_there(root):
    volumes.remove(Home(root), "data", force=True)
    with pytest.raises(VolumeNotFound, match="get data: no such volume"):
        volumes.remove(Home(root), "data")


def test_an_empty_volume_is_filled_for_its_only_container(root):
    asked: list[str] = []

    def fill(wanted: Volume) -> None:
        asked.append(wanted.name)

    volumes.create(Home(root), "empty")
    volumes.create(Home(root), "full")
    Path(f"{root}/volumes/full/_data/file").touch()
    container(root)
    container(root, OTHER)
    provide([volume(root, "empty"), volume(root, "full"), volume(root, "new")], root, ID, fill)
    assert asked == ["empty", "new"]
    provide([volume(root, "empty", copy=False), volume(root, "empty")], root, OTHER, fill)
    assert asked == ["empty", "new"]  # it is the first one's too, which may have mounted it


def test_a_volume_that_cannot_be_made_says_so(root):
    Path(f"{root}/volumes").touch()
    with pytest.raises(StoreError, match="make the volume .*data: File exists"):
        volumes.create(Home(root), "data")


def test_prune_takes_what_was_made_up_and_with_all_the_rest(root):
    made_up = volumes.create(Home(root))
    volumes.create(Home(root), "data")
    volumes.create(Home(root), "kept", labels=["keep"])
    Path(f"{root}/volumes/{made_up}/_data/file").write_bytes(bytes(100_000))
    gone, freed = volumes.prune(Home(root))
    assert gone == [made_up] and freed >= 100_000 and names(root) == ["data", "kept"]
    everything, filters = volumes.parse_prune_filters(["all=1", "label!=keep"])
    assert everything and volumes.prune(Home(root), everything=True, filters=filters)[0] == ["data"]
    assert os.listdir(f"{root}/volumes") == ["kept"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ["data", "logs"]),
        (["name=at"], ["data"]),
        (["name=at", "name=og"], ["data", "logs"]),
        (["label=a"], ["data"]),
        (["label=a=b", "label=x"], []),
        (["dangling=true"], ["logs"]),
        (["dangling=false"], ["data"]),
        (["driver=local"], ["data", "logs"]),
        (["driver=nfs"], []),
    ],
)
def test_filters(root, words, expected):
    volumes.create(Home(root), "data", labels=["a=b"])
    volumes.create(Home(root), "logs")
    container(root)
    provide([volume(root, "data")], root, ID, made_plainly)
    wanted = volumes.parse_list_filters(words)
    assert [each.name for each in volumes.volumes(root) if volumes.passes(each, wanted)] == expected


def test_who_starts_and_who_removes_never_both_win(root):
    """A container that has taken the volume finds it there; else it was removed before, and is made anew."""
    broken = []

    def start(number: int) -> None:
        container_id = f"{number:064x}"
        for _ in range(40):
            container(root, container_id)
            provide([volume(root, "data", copy=False)], root, container_id, made_plainly)
            if not os.path.isdir(f"{root}/volumes/data/_data"):
                broken.append(number)
            os.unlink(f"{root}/containers/{container_id}/named-volumes")

    def remove() -> None:
        for _ in range(80):
            try:
                volumes.remove(Home(root), "data", force=True)
            except VolumeInUse:
                pass

    threads = [threading.Thread(target=start, args=(n,)) for n in range(2)] + [threading.Thread(target=remove)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert broken == []


def test_a_locked_volume_is_the_one_at_its_path(root):
    with LockedVolume(root, "data") as first:
        os.rename(first.path, f"{first.path}-gone")
        with LockedVolume(root, "data") as second:
            assert os.path.samefile(second.path, f"{root}/volumes/data")


def test_the_note_can_be_read_by_others(root):
    volumes.create(Home(root), "data", labels=["a=b"])
    note = json.loads(Path(f"{root}/volumes/data/volume.json").read_text())
    assert note["Labels"] == {"a": "b"} and note["CreatedAt"].endswith("+00:00")
