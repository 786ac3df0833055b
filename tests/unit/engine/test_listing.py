"""ps: what its filters let through, and how it says how a container is."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from minibox.base.home import Home
from minibox.cli.commands.ps import container_row, format_status
from minibox.engine.report.container_document import container_document
from minibox.engine.report.listing import listed, parse_container_filters
from minibox.errors import ContainerNotFound, UsageError

NOW = 1_800_000_000.0
WEB, DB, OLD = "a" * 64, "b" * 64, "c" * 64


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three containers that have ended, in different ways."""
    common = {"Image": "base", "Command": ["sleep", "9"]}
    states = (
        {"Id": WEB, "Name": "web", "Status": "exited", "ExitCode": 137, "Created": 30.0, **common,
         "Config": {"Labels": {"team": "blue", "x": ""}}, "Options": {"network": "none"},
         "Mounts": [{"Source": f"{tmp_path}/volumes/data/_data", "Destination": "/var/data"}]},
        {"Id": DB, "Name": "db", "Status": "created", "Created": 20.0, **common,
         "Config": {"Labels": {"team": "red"}}, "Health": {"Status": "healthy"}},
        {"Id": OLD, "Name": "web-old", "Status": "exited", "ExitCode": 0, "Created": 10.0, **common,
         "Image": "other:1"},
    )  # fmt: skip
    (tmp_path / "names").mkdir()
    for state in states:
        (tmp_path / "names" / str(state["Name"])).symlink_to(str(state["Id"]))
        directory = tmp_path / "containers" / str(state["Id"])
        directory.mkdir(parents=True)
        (directory / "state.json").write_text(json.dumps(state))
    return tmp_path


def names(root: Path, *filters: str, **options: object) -> list[str]:
    found = listed(Home(str(root), str(root / "run")), parse_container_filters(filters), **options)  # type: ignore[arg-type]
    return [each["Name"] for each in found]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ((), ["web", "db", "web-old"]),
        (("name=web",), ["web", "web-old"]),
        (("name=^web$",), ["web"]),
        (("name=^/web$",), ["web"]),
        (("name=db", "name=old"), ["db", "web-old"]),
        (("id=bbb",), ["db"]),
        (("label=team",), ["web", "db"]),
        (("label=team=blue", "label=x"), ["web"]),
        (("label=team=blue", "label=team=red"), []),
        (("status=created",), ["db"]),
        (("status=created", "status=exited"), ["web", "db", "web-old"]),
        (("exited=137",), ["web"]),
        (("exited=0", "exited=137"), ["web", "web-old"]),
        (("before=db",), ["web-old"]),
        (("since=db",), ["web"]),
        (("before=web", "since=web-old"), ["db"]),
        (("ancestor=base",), ["web", "db"]),
        (("ancestor=other:1",), ["web-old"]),
        (("health=healthy",), ["db"]),
        (("health=none", "name=old"), ["web-old"]),
        (("network=none",), ["web"]),
        (("volume=data",), ["web"]),
        (("volume=/var/data",), ["web"]),
        (("volume=/var",), []),
    ],
)
def test_filters(root, filters, expected):
    assert names(root, *filters, everything=True) == expected


def test_without_all_only_what_runs(root):
    assert names(root) == []
    assert names(root, "status=exited") == ["web", "web-old"], "who asks how they ended wants those that have"
    assert names(root, last=2) == ["web", "db"]


@pytest.mark.parametrize("word", ["colour=red", "name", "exited=soon", "status=asleep", "health=fine", "name=*"])
def test_a_filter_that_makes_no_sense_is_refused(word):
    with pytest.raises(UsageError):
        parse_container_filters([word])


def test_a_container_to_compare_with_must_be_there(root):
    with pytest.raises(ContainerNotFound):
        names(root, "before=nobody")


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"Status": "running", "Started": NOW - 180}, "Up 3 minutes"),
        ({"Status": "running", "Started": NOW}, "Up Less than a second"),
        ({"Status": "running", "Created": NOW - 7200}, "Up 2 hours"),
        ({"Status": "running", "Started": NOW - 5, "Health": {"Status": "starting"}}, "Up 5 seconds (health: starting)"),
        ({"Status": "running", "Started": NOW - 5, "Health": {"Status": "unhealthy"}}, "Up 5 seconds (unhealthy)"),
        ({"Status": "paused", "Started": NOW - 60, "Health": {"Status": "healthy"}}, "Up About a minute (Paused)"),
        ({"Status": "exited", "ExitCode": 137, "Finished": NOW - 7200}, "Exited (137) 2 hours ago"),
        ({"Status": "exited", "ExitCode": 1}, "Exited (1)"),
        ({"Status": "restarting", "ExitCode": 1, "Finished": NOW - 3}, "Restarting (1) 3 seconds ago"),
        ({"Status": "created"}, "Created"),
        ({"Status": "damaged"}, "Damaged"),
    ],
)  # fmt: skip
def test_status(state, expected):
    assert format_status(state, NOW) == expected


def test_inspect_has_the_ports_that_the_image_listens_on(tmp_path):
    found = {"Id": WEB, "Name": "web", "Status": "running", "Config": {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}}}

    home = Home(f"{tmp_path}/root", f"{tmp_path}/run")

    def ports(**more):
        return container_document(home, {**found, **more})["NetworkSettings"]["Ports"]

    assert ports() == {"53/udp": None, "80/tcp": None}
    assert ports(Options={"network": "none"}) == ports(Status="exited") == {}


def test_a_row_has_dockers_fields():
    found = {
        "Id": WEB, "Name": "web", "Image": "base", "Status": "running", "Created": NOW - 60,
        "Command": ["sh", "-c", 'echo "a lot of text"'], "Config": {"Labels": {"team": "blue"}},
        "Mounts": [{"Source": "/srv/minibox/volumes/data/_data"}, {"Source": "/a/very/long/path/of/a/bind"}],
    }  # fmt: skip
    row = container_row(found, NOW)
    assert row["ID"] == WEB[:12] and row["Command"] == '"sh -c echo \\"a lot o…"'
    assert row["RunningFor"] == "About a minute ago" and row["Labels"] == "team=blue"
    assert row["Mounts"] == "data,/a/very/long/p…" and row["LocalVolumes"] == "1"
    assert row["Label"]("team") == "blue" and row["Label"]("none") == ""
    exposed = {"Config": {"ExposedPorts": dict.fromkeys(("443/tcp", "80/tcp", "53/udp", "81/tcp"))}}
    assert container_row({**found, **exposed}, NOW)["Ports"] == "80-81/tcp, 53/udp, 443/tcp"
    assert container_row({**found, **exposed, "Status": "exited"}, NOW)["Ports"] == row["Ports"] == ""
    whole = container_row(found, NOW, no_trunc=True, sizes=(1000, 3_000_000))
    assert whole["ID"] == WEB and whole["Command"].endswith('text\\""') and whole["Size"] == "1kB (virtual 3MB)"


def test_500_containers_are_listed_in_half_a_second(root):
    state = json.loads((root / "containers" / WEB / "state.json").read_text())
    state["Config"]["Env"] = [f"NAME{number}={'x' * 60}" for number in range(20)]
    for number in range(500):
        container_id = f"{number:064x}"
        (root / "containers" / container_id).mkdir()
        (root / "containers" / container_id / "state.json").write_text(
            json.dumps({**state, "Id": container_id}, indent=1)
        )
    begin = time.process_time()
    assert len(names(root, everything=True)) == 503
    assert time.process_time() - begin < 0.25, "half of what the command may take, the rest is Python's start"
