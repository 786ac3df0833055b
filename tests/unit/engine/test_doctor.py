"""What doctor concludes from what it finds; no probe runs here."""

from __future__ import annotations

import pytest

from minibox.engine.report import doctor
from minibox.linux import mount_table

MOUNTINFO = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
28 27 0:25 / /var rw - btrfs /dev/vdb rw
29 28 0:26 / /var/lib\\040x ro - overlay overlay ro
30 27 0:27 / /run rw - tmpfs tmpfs rw
31 27 0:28 / /run rw - nfs4 server:/ rw
32 27 0:29 / /a\\134b\\011c rw shared:1 master:2 - xfs /dev/vdc rw
"""


@pytest.mark.parametrize(
    ("release", "status"),
    [
        ("6.18.44-generic", "pass"),
        ("5.19", "pass"),
        ("10.0.0", "pass"),
        ("5.18.0-4-amd64", "degraded"),
        ("5.12.1", "degraded"),
        ("5.11.22", "missing"),
        ("4.19.0-27-amd64", "missing"),
    ],
)
def test_the_kernel_is_judged_by_number(release, status):
    check = doctor.check_kernel(release)
    assert (check.status, check.found) == (status, release)
    assert bool(check.consequence and check.fix) == (status != "pass")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/variable", "ext4"),
        ("/var/lib", "btrfs"),
        ("/var/lib x/minibox", "overlay"),
        ("/a\\b\tc/d", "xfs"),
        ("/run/minibox", "nfs4"),
    ],
)
def test_a_path_is_on_the_last_mount_of_its_longest_prefix(path, kind):
    assert mount_table.type_in(MOUNTINFO, path, "") == kind


def test_the_mount_of_its_device_counts_before_that():
    assert mount_table.type_in(MOUNTINFO, "/x", "0:26") == "overlay"


def test_subordinate_ids_are_counted_by_name_and_number():
    text = "alice:100000:65536\n1001:200000:1000\nbob:300000:1000\nbob:400000:64536\n# bob:1:9\nbad:line\n"
    assert doctor.subordinate_ids(text, "alice", 1000) == 65536
    assert doctor.subordinate_ids(text, "carol", 1001) == 1000
    assert doctor.subordinate_ids(text, "bob", 1002) == 65536
    assert doctor.subordinate_ids("", "bob", 1002) == 0


def test_a_user_without_ranges_is_told_which_to_add(monkeypatch, tmp_path):
    for program in ("newuidmap", "newgidmap"):
        (tmp_path / program).touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    check = doctor.check_subordinate_ids("nobody-of-that-name", 4_000_000)
    assert check.status == "degraded"
    assert check.fix.startswith("sudo usermod --add-subuids ")
    assert check.fix.endswith(" nobody-of-that-name")
    first, last = map(int, check.fix.split()[3].split("-"))
    assert first >= 100000 and last - first == 65535


def test_a_user_without_newuidmap_is_told_the_package(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    check = doctor.check_subordinate_ids("alice", 1000)
    assert (check.status, check.fix) == ("degraded", "sudo apt-get install uidmap")


def test_root_needs_no_subordinate_ids():
    assert doctor.check_subordinate_ids("root", 0).status == "pass"


def test_the_nearest_directory_that_exists(tmp_path):
    assert doctor.nearest_existing(f"{tmp_path}/a/b/c") == str(tmp_path)
    assert doctor.nearest_existing(str(tmp_path)) == str(tmp_path)
    assert doctor.nearest_existing("/") == "/"


def test_a_probe_that_fails_says_what_and_how_to_mend_it():
    refused = "mount overlay: Invalid argument (EINVAL)"
    check = doctor.check_overlay(lambda _: refused)
    assert (check.status, check.found) == ("missing", refused)
    assert check.consequence and check.fix
    for judge in (doctor.check_user_namespaces, doctor.check_terminals):
        check = judge(lambda _: refused)
        assert check.status != "pass" and check.found == refused and check.consequence and check.fix


def test_a_root_that_cannot_hold_an_upperdir():
    check = doctor.check_directory("root", "/proc/self/no/such")
    assert check.status == "missing"
    assert check.found.startswith("/proc/self/no/such: ")
