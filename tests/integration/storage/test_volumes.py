"""Volumes and containers together: who has one, what fills it, and what removing gives back."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.probes import requires

pytestmark = requires("root")


def du(path) -> int:
    """Bytes on the disk."""
    return 512 * int(
        subprocess.run(
            ["du", "-s", "--block-size=512", str(path)], capture_output=True, text=True, check=True
        ).stdout.split()[0]
    )


def size(text: str) -> float:
    """What `Total reclaimed space: 1.23MB` says, in bytes."""
    word = text.rpartition(": ")[2].strip()
    number = word.rstrip("kMGB")
    return float(number) * {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[word[len(number) :]]


@pytest.fixture
def run(minibox):
    def start(*words, **more):
        return minibox("run", "--network", "none", *words, **more)

    return start


def test_what_a_container_has_stays_until_it_is_removed(minibox, run):
    assert run("--name", "web", "-v", "data:/data", "base", "sh", "-c", "echo kept >/data/file").returncode == 0
    (container_id,) = minibox("ps", "-aq", "--no-trunc").stdout.split()
    refused = minibox("volume", "rm", "data")
    assert refused.returncode == 125 and f"remove data: volume is in use - [{container_id}]" in refused.stderr
    assert minibox("volume", "prune", "--all", "--force").stdout == "Total reclaimed space: 0B\n"
    assert minibox("rm", "-v", "web").returncode == 0
    assert run("--rm", "-v", "data:/data", "base", "cat", "/data/file").stdout == "kept\n"  # one with a name stays
    assert minibox("volume", "rm", "data").stdout == "data\n"
    assert minibox("volume", "ls", "-q").stdout == ""


def test_a_running_container_of_rm_has_it_too(minibox, run):
    started = run("-d", "--rm", "-v", "data:/data", "base", "sleep", "1000")
    assert started.returncode == 0, started.stderr
    refused = minibox("volume", "rm", "data")
    assert refused.returncode == 125 and started.stdout.strip() in refused.stderr
    assert minibox(*refused.stderr.rpartition("minibox ")[2].split(), "--force").returncode == 0
    assert minibox("volume", "rm", "data").returncode == 0


def test_create_inspect_and_the_images_content(minibox, run, state):
    assert minibox("volume", "create", "--label", "team=web", "etc").stdout == "etc\n"
    assert "passwd" in run("--rm", "-v", "etc:/etc", "base", "ls", "/etc").stdout
    (document,) = json.loads(minibox("volume", "inspect", "etc").stdout)
    assert document["Mountpoint"] == f"{state}/root/volumes/etc/_data" and document["Labels"] == {"team": "web"}
    assert os.path.exists(f"{document['Mountpoint']}/passwd")
    assert minibox("volume", "inspect", "-f", "{{.Labels.team}}", "etc").stdout == "web\n"
    missing = minibox("volume", "inspect", "etc", "nosuch")
    assert (
        missing.returncode == 125
        and "get nosuch: no such volume" in missing.stderr
        and len(json.loads(missing.stdout)) == 1
    )
    table = minibox("volume", "ls").stdout.splitlines()
    assert table == ["DRIVER    VOLUME NAME", "local     etc"]


def test_an_empty_volume_keeps_the_mode_that_it_was_given(minibox, run, state):
    minibox("volume", "create", "data")
    os.chmod(state / "root/volumes/data/_data", 0o1777)
    assert run("--rm", "-v", "data:/nothing/there", "base", "stat", "-c", "%a", "/nothing/there").stdout == "1777\n"


def test_system_df_and_prune_agree_with_du(minibox, run, state):
    name = minibox("volume", "create").stdout.strip()
    write = (
        "dd if=/dev/zero of=/data/file bs=1M count=3 2>/dev/null; dd if=/dev/zero of=/file bs=1M count=2 2>/dev/null"
    )
    assert run("--name", "web", "-v", f"{name}:/data", "-v", "/anonymous", "base", "sh", "-c", write).returncode == 0
    verbose = minibox("system", "df", "-v").stdout
    (row,) = [line.split() for line in verbose.splitlines() if line.startswith(name)]
    assert row[1] == "1" and size(f": {row[2]}") == pytest.approx(du(state / "root/volumes" / name), rel=0.01)
    before = du(state / "root")
    pruned = minibox("container", "prune", "--force").stdout
    assert "Deleted Containers:" in pruned
    assert size(pruned) == pytest.approx(before - du(state / "root"), abs=40_000) and size(pruned) > 2e6
    before = du(state / "root")
    pruned = minibox("system", "prune", "--volumes", "--force").stdout
    assert f"Deleted Volumes:\n{name}\n" in pruned
    assert size(pruned) == pytest.approx(before - du(state / "root"), abs=40_000) and size(pruned) > 3e6


def test_container_prune_asks_and_filters(minibox, run):
    run("--name", "old", "--label", "keep=1", "base", "true")
    run("--name", "new", "base", "true")
    assert minibox("create", "--network", "none", "--name", "made", "base", "true").returncode == 0
    assert run("-d", "--name", "alive", "base", "sleep", "1000").returncode == 0
    asked = minibox("container", "prune", input="n\n")
    assert asked.returncode == 1 and "WARNING! This will remove all stopped containers." in asked.stdout

    def names():
        return sorted(minibox("ps", "-a", "--format", "{{.Names}}").stdout.split())

    minibox("container", "prune", "-f", "--filter", "until=1h")
    assert names() == ["alive", "made", "new", "old"]
    minibox("container", "prune", "-f", "--filter", "label!=keep")
    assert names() == ["alive", "old"]
    minibox("container", "prune", "-f")
    assert names() == ["alive"]
    assert minibox("rm", "-f", "alive").returncode == 0


@requires("user")
def test_an_ordinary_users_volumes(minibox_user):
    run = ("run", "--rm", "--network", "none", "-v", "data:/data", "base", "sh", "-c")
    done = minibox_user(
        *run, "mkdir -m 700 /data/own && echo x >/data/own/file && { chown -R 33:33 /data/own || true; }"
    )
    assert done.returncode == 0, done.stderr
    assert minibox_user("volume", "ls", "-q").stdout == "data\n"
    pruned = minibox_user("volume", "prune", "--all", "--force")
    assert "data" in pruned.stdout, pruned.stderr
    assert minibox_user("volume", "ls", "-q").stdout == ""
