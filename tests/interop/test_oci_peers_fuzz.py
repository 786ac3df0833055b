"""Unusual bundles beside runc and crun, 40 here, 500 by `make long`: started or not, and what the process sees."""

from __future__ import annotations

import json

import pytest

from tests.bundle_fuzz import differences, report_of, spec_of
from tests.peers import LONG, OURS, Peers
from tests.probes import requires

pytestmark = requires("root", "command:busybox", "command:runc", "command:crun")
SEEDS, CHUNK = (500 if LONG else 40), 10
RAN = 3  # the status of the script
#: Lines that differ from both, each with its row in docs/oci.md.
EXPLAINED = ("mqueue",)
#: What crun alone starts: a lock on the access times of the host's mount, which it leaves as they are.
REFUSED = "set attributes of bind source"


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_what_they_start_starts_here_and_looks_alike(peers: Peers, first: int):
    for seed in range(first, first + CHUNK):
        found = peers.run(lambda runtime, seed=seed: spec_of(seed, runtime))  # type: ignore[misc]
        statuses = {name: ended.status for name, ended in found.items()}
        ours = found[OURS]
        if statuses["crun"] == RAN != statuses["runc"] and REFUSED in ours.errors:
            continue
        if RAN in (statuses["runc"], statuses["crun"]):
            assert ours.status == RAN, (seed, found)
        if set(statuses.values()) != {RAN}:
            continue  # they don't agree themselves
        reports = {
            name: report_of(found[name].output, runtime, json.loads((runtime.bundle.path / "config.json").read_text()))
            | {"hooks of the runtime": (runtime.directory / "hooks.log").read_text().splitlines()}
            for name, runtime in peers.all.items()
        }
        left = differences(reports.pop(OURS), list(reports.values()))
        unexplained = [line for lines in left.values() for line in lines if not any(each in line for each in EXPLAINED)]
        assert not unexplained, (seed, left)
