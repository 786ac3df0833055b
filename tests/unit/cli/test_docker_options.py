"""Every command and option of Docker's client is there, or there is a reason why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest

from minibox.cli import main as cli
from minibox.cli.application import application
from minibox.cli.run_refused import REFUSED

DOCKER = json.loads(Path(__file__).with_name("docker28.json").read_text())["options"]
RUN = ("run", "create", "container run", "container create")
NETWORKS, SWARM, NOT_YET = "comes with the networks' options", "it is for a swarm's volumes", "not yet"
#: Why an option is missing, by command: "" for a whole command, "*" for any command.
MISSING = {
    **{(command, option): reason for command in RUN for option, reason in {
        **REFUSED,
        "-a --attach": NOT_YET, "--cgroup-parent": NOT_YET, "--cgroupns": NOT_YET, "--ipc": NOT_YET, "--pid": NOT_YET,
        "--volumes-from": NOT_YET,
        "--ip": NETWORKS, "--ip6": NETWORKS,
        "--link-local-ip": NETWORKS, "--mac-address": NETWORKS,
    }.items()},
    **{("network connect", option): NETWORKS for option in
       ("--driver-opt", "--gw-priority", "--ip", "--ip6", "--link", "--link-local-ip")},
    **{("network create", option): NETWORKS for option in
       ("--attachable", "--aux-address", "--config-from", "--config-only", "--gateway", "--ingress", "--ip-range",
        "--ipam-driver", "--ipam-opt", "--ipv4", "--ipv6", "-o --opt", "--scope")},
    ("network inspect", "-v --verbose"): "it is for a swarm's networks",
    **{("volume create", option): SWARM for option in
       ("--availability", "--group", "--limit-bytes", "--required-bytes", "--scope", "--secret", "--sharing",
        "--topology-preferred", "--topology-required", "--type")},
    ("volume ls", "--cluster"): SWARM,
    ("volume update", ""): SWARM,
    ("*", "--checkpoint"): "checkpoints are not supported",
    ("*", "--checkpoint-dir"): "checkpoints are not supported",
    ("*", "--disable-content-trust"): "minibox checks no signatures",
    ("search", ""): "it asks Docker Hub alone",
    ("*", "--tree"): NOT_YET,
    ("*", "--platform"): NOT_YET,
    ("*", "--cpu-rt-period"): NOT_YET,
    ("*", "--cpu-rt-runtime"): NOT_YET,
}  # fmt: skip


def command(words: str) -> Any:
    """A command of ours; None if there is none."""
    found: Any = application
    for word in words.split():
        found = found.get_command(click.Context(found), word)
        if found is None:
            return None
    return found


def missing(words: str) -> list[str]:
    """What of Docker's command isn't in ours; "" for all of it."""
    ours = command(words)
    if ours is None:
        return [""]
    names = {name for parameter in ours.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    return [option for option in DOCKER[words] if not names.issuperset(option.split())]


@pytest.mark.parametrize("words", DOCKER)
def test_every_option_is_there_or_has_a_reason(words: str) -> None:
    unexplained = [each for each in missing(words) if (words, each) not in MISSING and ("*", each) not in MISSING]
    assert not unexplained


def test_every_reason_is_still_one() -> None:
    lacking = {(words, each) for words in DOCKER for each in missing(words)}
    everywhere = {("*", option) for _, option in lacking}
    assert set(MISSING) <= lacking | everywhere


@pytest.mark.parametrize("option", sorted(REFUSED))
def test_what_is_refused_is_refused_by_name(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", option, "base", "true"]) == 125
    said = capsys.readouterr().err
    assert f"{option} is not supported" in said and REFUSED[option] in said and "did you mean" not in said
