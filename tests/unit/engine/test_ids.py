"""Ranges of ids: leased to one container each, read from /etc/subuid, written for a Spec."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibox.engine.host import ids
from minibox.engine.host.ids import FIRST_ID, RANGE, SLOTS, lease_of, lease_range, release_slot
from minibox.errors import MiniboxError
from minibox.plan.namespaces import has_one_group as single

ID = "0123456789abcdef" * 4
SAME_SLOT = "0129" + "0" * 60


def first_of(root: Path, container_id: str) -> int:
    mappings = lease_range(str(root), container_id)
    (uid,), (gid,) = mappings.uids, mappings.gids
    assert uid == gid and uid["containerID"] == 0 and uid["size"] == RANGE == 65536
    return uid["hostID"]


def test_ranges_do_not_overlap_and_stay_below_2_to_the_31(tmp_path: Path):
    starts = [first_of(tmp_path, f"{number:03x}" + "0" * 61) for number in (0, 1, 1, 4095, 4095)]
    assert len(set(starts)) == 5
    assert all(start % RANGE == 0 and FIRST_ID <= start and start + RANGE <= 1 << 31 for start in starts)


def test_a_range_is_given_back(tmp_path: Path):
    mine, other = first_of(tmp_path, ID), first_of(tmp_path, SAME_SLOT)
    assert mine != other
    release_slot(lease_of(str(tmp_path), ID), ID)
    assert first_of(tmp_path, SAME_SLOT[:4] + "1" * 60) == mine
    release_slot(lease_of(str(tmp_path), SAME_SLOT), SAME_SLOT)
    release_slot(lease_of(str(tmp_path), SAME_SLOT), SAME_SLOT)  # none is fine
    assert len(os.listdir(tmp_path / "ids")) == 1


def test_a_release_finds_a_lease_that_had_to_move(tmp_path: Path):
    first_of(tmp_path, ID)
    first_of(tmp_path, SAME_SLOT)
    release_slot(lease_of(str(tmp_path), SAME_SLOT), SAME_SLOT)
    assert [os.readlink(tmp_path / "ids" / slot) for slot in os.listdir(tmp_path / "ids")] == [ID]


def test_nothing_to_release_at_first(tmp_path: Path):
    release_slot(lease_of(str(tmp_path), ID), ID)


def test_when_all_are_taken_it_says_so(tmp_path: Path):
    (tmp_path / "ids").mkdir()
    for slot in range(SLOTS):
        os.symlink("other", tmp_path / "ids" / str(slot))
    with pytest.raises(MiniboxError, match="all 4096 ranges of ids are taken") as caught:
        lease_range(str(tmp_path), ID)
    assert caught.value.hint


def test_a_root_that_cant_hold_leases_is_one_clear_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MiniboxError, match=r"lease a range of ids in .*/file/ids: .*ENOTDIR"):
        lease_range(str(tmp_path / "file"), ID)


# ---- /etc/subuid --------------------------------------------------------------------------------

ME = pwd.getpwuid(os.getuid()).pw_name


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"{ME}:100000:65536\n", [(1, 100000, 65536)]),
        (f"other:1:2\n{os.getuid()}:5:6\n", [(1, 5, 6)]),
        (f"{ME}:1:2\n{ME}:3:4\n", [(1, 1, 2), (3, 3, 4)]),
        (f"{ME}:30:4\n{ME}:1:2\n", [(1, 30, 4), (5, 1, 2)]),
        (f"{ME}:10:5\n{ME}:14:5\n{ME}:10:5\n{ME}:6:5\n{ME}:15:1\n", [(1, 10, 5), (6, 15, 1)]),
        (f"{ME}:76:5\n{ME}:77:1\n{ME}:1:1\n", [(1, 1, 1)]),
        ("".join(f"{ME}:{number}:1\n" for number in range(100, 300)), [(n + 1, n + 100, 1) for n in range(100)]),
        (f"{ME}:1:0\n{ME}:3:4", [(1, 3, 4)]),
        (f"{ME}:x:1\n{ME}::\n{ME}\n:\n\n{ME}:-1:5\n", []),
        (f"{ME}x:1:2\n#{ME}:1:2\n", []),
        ("\xff\xfe\0\n", []),
        ("", []),
    ],
)
def test_subordinate_ids(tmp_path: Path, text: str, found: list[tuple[int, int, int]]):
    (tmp_path / "subuid").write_text(text, encoding="latin-1")
    ranges = ids._subordinate(str(tmp_path / "subuid"), os.getuid(), own_id=77)
    assert [(each["containerID"], each["hostID"], each["size"]) for each in ranges] == found


def test_no_file_no_subordinate_ids(tmp_path: Path):
    assert ids._subordinate(str(tmp_path / "subuid"), os.getuid(), 0) == ()


@given(st.binary())
def test_any_file_of_subordinate_ids_is_read(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    path = tmp_path_factory.mktemp("etc") / "subuid"
    path.write_bytes(data + f"\n{ME}:7:8\n".encode())
    assert ids._subordinate(str(path), os.getuid(), 0)


def test_a_user_maps_himself_as_root():
    mappings = ids.own_ids()
    for entries, own in ((mappings.uids, os.geteuid()), (mappings.gids, os.getegid())):
        assert entries[0] == {"containerID": 0, "hostID": own, "size": 1}
        end = 1
        for entry in entries[1:]:
            assert entry["containerID"] == end
            end += entry["size"]


def test_large_ids_are_valid_on_the_host_and_belong_to_no_container(tmp_path: Path):
    leased = lease_range(str(tmp_path), ID)
    wide = ids.with_large_ids(leased)
    assert wide.lease == leased.lease and wide.uids == wide.gids
    first, second = wide.uids
    assert first["size"] == second["containerID"] and second["hostID"] >= FIRST_ID + SLOTS * RANGE
    assert second["containerID"] + second["size"] == ids.LARGE_IDS_END
    assert second["hostID"] + second["size"] <= (1 << 32) - 1  # the last is -1


def mapped(*sizes: int) -> Any:
    return {"linux": {"gidMappings": [{"containerID": 0, "hostID": 5, "size": size} for size in sizes]}}


def test_one_id_is_told_from_a_range():
    assert single(mapped(1))
    assert not single(mapped(2)) and not single(mapped(1, 65536)) and not single({"linux": {}})  # type: ignore[typeddict-item]
