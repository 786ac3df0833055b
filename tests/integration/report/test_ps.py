"""ps and rm know a container that runs with --rm, by name and by id; hints can be typed as they are."""

from __future__ import annotations

import json

import pytest

from tests.probes import requires
from tests.running_container import running

pytestmark = requires("root")


@pytest.mark.parametrize("options", [("--name", "lab"), ()])
def test_a_running_container_is_listed_and_removed_by_name(options, minibox, minibox_command, environment):
    with running(minibox_command, environment, "--network", "none", *options):
        (row,) = json.loads(minibox("ps", "--json").stdout)
        assert row["Status"] == "running"
        assert row["Name"] == "lab" if options else row["Name"].endswith(row["Id"][8:12])
        assert "second" in minibox("ps").stdout
        refused = minibox("rm", row["Name"])
        assert refused.returncode == 125 and "is running" in refused.stderr
        assert minibox(*refused.stderr.rpartition("minibox ")[2].split()).returncode == 0
    assert json.loads(minibox("ps", "--all", "--json").stdout) == []


def test_the_hint_for_a_taken_name_can_be_typed(minibox, minibox_command, environment):
    again = ("run", "--rm", "--network", "none", "--name", "lab", "base", "true")
    with running(minibox_command, environment, "--network", "none", "--name", "lab"):
        refused = minibox(*again)
        assert refused.returncode == 125 and "is taken" in refused.stderr
        assert minibox(*refused.stderr.rpartition("minibox ")[2].split()).returncode == 0
        assert minibox(*again).returncode == 0
    assert minibox("run", "--network", "none", "--name", "lab", "base", "true").returncode == 0
    hint = minibox(*again).stderr
    assert "--force" not in hint
    assert minibox(*hint.rpartition("minibox ")[2].split()).returncode == 0
    assert minibox(*again).returncode == 0
