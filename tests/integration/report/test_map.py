"""map: how host and containers hang together, as a tree, as JSON and as a picture."""

from __future__ import annotations

import itertools
import json
import os
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from minibox.cli.format.map_svg import picture
from tests.container_box import Box
from tests.probes import requires

SVG = "{http://www.w3.org/2000/svg}"
SLEEP = ("base", "sh", "-c", "sleep 1000 & exec sleep 2000")


def found(box: Box, *names: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(box("map", "--json", *names).stdout)
    return document


@requires("root")
def test_namespaces_processes_ids_and_links(box: Box) -> None:
    box.ok("run", "-d", "--name", "web", "-p", "127.0.0.1::80", *SLEEP)
    box.ok("run", "-d", "--name", "open", "--network", "host", "--userns", "host", *SLEEP)
    tree = box.ok("map").splitlines()
    assert all(len(line) <= 80 for line in tree if "user 40265" in line or "ipc 40265" in line)
    document = found(box)
    host, (open_, web) = document["Host"], document["Containers"]
    assert (open_["Name"], web["Name"]) == ("open", "web")
    for kind, inode in host["Namespaces"].items():
        assert inode == os.stat(f"/proc/self/ns/{kind}").st_ino
    assert open_["Shared"] == {"user": ["host"], "net": ["host"], "time": ["host", "web"]}
    assert web["Shared"] == {"time": ["host", "open"]}

    first, second = web["Processes"]
    assert (first["InnerPid"], first["Command"]) == (1, "sleep 2000")
    assert (second["Parent"], second["Command"]) == (first["Pid"], "sleep 1000")
    assert Path(f"/proc/{first['Pid']}/cmdline").read_bytes() == b"sleep\x002000\0"
    assert first["Uid"] == web["Uids"][0]["hostID"] != 0
    assert [each["hostID"] for each in open_["Uids"]] == [0]

    _, eth0 = web["Links"]
    [veth] = [each for each in host["Links"] if each["Peer"] == "web eth0"]
    [bridge] = [each for each in host["Links"] if each["Name"] == veth["Master"]]
    assert (eth0["Peer"], eth0["Bridge"], bridge["Kind"]) == (f"host {veth['Name']}", bridge["Name"], "bridge")
    inside = box("exec", "web", "ip", "-o", "-4", "addr", "show", "eth0").stdout.split()
    assert inside[3] in eth0["Addresses"]
    [port] = web["Ports"]
    assert re.fullmatch(r"80/tcp -> 127\.0\.0\.1:\d+", port)


@requires("root", "cgroup")
def test_limits_and_mounts(box: Box, tmp_path: Path) -> None:
    box(
        "run",
        "-d",
        "--name",
        "web",
        "-m",
        "64m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "20",
        "-v",
        f"{tmp_path}:/srv:ro",
        *SLEEP,
    )
    [web] = found(box, "web")["Containers"]
    cgroup = web["Cgroup"]
    assert (cgroup["MemoryLimitBytes"], cgroup["CpuLimit"], cgroup["ProcessLimit"]) == (64 << 20, 0.5, 20)
    assert cgroup["Processes"] == 2 and 0 < cgroup["MemoryBytes"] < 64 << 20
    mounts = {each["Path"]: each for each in web["Mounts"]}
    assert mounts["/"]["Type"] == "overlay" and len(web["Layers"]) == 1
    assert "ro" in mounts["/srv"]["Options"] and mounts["/srv"]["Root"].endswith(tmp_path.name)
    shown = box("map").stdout
    for line in ("processes 2 of 20", "0.5 CPUs at most", "/srv is", "sleep 1000"):
        assert line in shown


def test_as_root_and_as_an_ordinary_user(any_box: Box) -> None:
    any_box.ok("run", "-d", "--name", "web", "--network", "none", *SLEEP)
    [web] = found(any_box)["Containers"]
    assert [each["InnerPid"] for each in web["Processes"]] == [1, 2]
    assert [each["Name"] for each in web["Links"]] == ["lo"] and web["Links"][0]["Addresses"][0] == "127.0.0.1/8"
    assert "net" not in web["Shared"]


@requires("root")
def test_a_picture_in_light_and_dark(box: Box, tmp_path: Path) -> None:
    hostile = "<script>&\x1b[31m\"'"
    box.ok("run", "-d", "--name", "web", "base", "sh", "-c", "sleep 1000; exit", hostile)
    box.ok("map", "--svg", str(tmp_path / "map.svg"))
    text = (tmp_path / "map.svg").read_text()
    parts = ElementTree.fromstring(text)
    words = ["".join(each.itertext()) for each in parts.iter(f"{SVG}text")]
    assert any("container web" in each for each in words) and any("<script>" in each for each in words)
    assert "<script" not in text and "\x1b" not in text and "prefers-color-scheme:dark" in text
    [line] = parts.iter(f"{SVG}path")
    assert " C " in line.get("d", ""), "a curve from the bridge to the container beside it"
    assert not re.search(r"(href|src|url\()", text), "nothing comes from elsewhere"


@requires("root")
def test_a_line_passes_behind_no_card(box: Box) -> None:
    """A picture of 12 containers, which has several columns: a line behind a card would seem to end there."""
    box.ok("run", "-d", "--name", "web", *SLEEP)
    document = found(box, "web")
    [web] = document["Containers"]
    [veth] = [each for each in document["Host"]["Links"] if each["Peer"] == "web eth0"]
    for number in range(2, 13):
        name = f"web{number}"
        eth0 = {**web["Links"][1], "Peer": f"host veth{number}"}
        document["Containers"].append({**web, "Name": name, "Links": [web["Links"][0], eth0]})
        document["Host"]["Links"].append({**veth, "Name": f"veth{number}", "Peer": f"{name} eth0"})
    parts = ElementTree.fromstring(picture(document))
    cards = [
        tuple(float(each.get(key, "")) for key in ("x", "y", "width", "height"))
        for each in parts.iter(f"{SVG}rect")
        if each.get("class") == "card"
    ]
    lines = [each.get("d", "") for each in parts.iter(f"{SVG}path")]
    assert len(cards) == 13 and len({card[0] for card in cards}) >= 4 and len(set(lines)) == 12
    for line in lines:
        corners = corners_of(line)
        for (x1, y1), (x2, y2) in itertools.pairwise(corners):
            for x, y, width, height in cards:
                beside = max(x1, x2) <= x or min(x1, x2) >= x + width or max(y1, y2) <= y or min(y1, y2) >= y + height
                assert beside, (line, x, y)


def corners_of(line: str) -> list[tuple[float, float]]:
    """The points of an SVG path of M, H, V and C; of a curve its ends."""
    x = y = 0.0
    found = []
    for kind, text in re.findall(r"([MHVC]) ([\d. ]+)", line):
        numbers = [float(each) for each in text.split()]
        x = x if kind == "V" else numbers[0] if kind == "H" else numbers[-2]
        y = y if kind == "H" else numbers[-1]
        found.append((x, y))
    return found


def test_errors(box: Box) -> None:
    box.ok("create", "--name", "made", "base")
    done = box("map", "made")
    assert (done.returncode, done.stderr) == (125, "minibox: container made is not running\n")
    assert box("map", "missing").returncode == 125
