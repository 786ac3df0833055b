"""`minibox build` has each option of `docker build`, or refuses it by name."""

from __future__ import annotations

import re
from typing import Any

import pytest

from minibox.cli.application import run_click
from minibox.cli.commands.build import build
from minibox.cli.commands.build_refused import REFUSED, WITHOUT_EFFECT
from minibox.errors import UsageError

#: Of buildx 0.13 with BUILDX_EXPERIMENTAL=1, and of Docker 26.1 with DOCKER_BUILDKIT=0.
OF_BUILDX = """
add-host allow annotation attest build-arg build-context builder cache-from cache-to cgroup-parent detach file iidfile label
load metadata-file network no-cache no-cache-filter output platform print progress provenance pull push quiet root sbom secret
server-config shm-size ssh tag target ulimit
"""
OF_DOCKER = """
add-host build-arg cache-from cgroup-parent compress cpu-period cpu-quota cpu-shares cpuset-cpus cpuset-mems
disable-content-trust file force-rm iidfile isolation label memory memory-swap network no-cache platform pull quiet rm
security-opt shm-size squash tag target ulimit
"""


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a build is asked for, instead of building it."""
    found: dict[str, Any] = {}
    monkeypatch.setattr(build, "callback", lambda ctx, **words: found.update(words))
    return found


@pytest.mark.parametrize("name", sorted({f"--{name}" for name in f"{OF_BUILDX} {OF_DOCKER}".split()}))
def test_each_option_of_docker_is_there_or_refused_by_name(name: str, given: dict[str, Any]) -> None:
    if name not in REFUSED:
        known = {option for each in build.params for option in each.opts}
        assert name in known
        return
    with pytest.raises(UsageError, match=rf"^{name}(=false)? is not supported(?m:$)") as refused:
        run_click(["build", f"{name}=x" if takes_a_value(name) else name, "."])
        run_click(["build", f"{name}=false", "."])
    assert refused.value.hint == REFUSED[name]
    assert not given or not takes_a_value(name)


def takes_a_value(name: str) -> bool:
    option = next(each for each in build.params if name in each.opts)
    return option.kind != "flag"


@pytest.mark.parametrize(
    "word",
    [
        "--provenance=false", "--sbom=false", "--builder=default", "--isolation=default", "--allow=network.host", "--rm",
        "--rm=true", "--force-rm", "--force-rm=false", "--compress", "--squash=false", "--disable-content-trust",
    ],
)  # fmt: skip
def test_what_happens_anyhow_may_be_asked_for(word: str, given: dict[str, Any]) -> None:
    run_click(["build", word, "."])
    assert given["context"] == "."


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--pull=false"], {"pull": False, "no_cache": False}),
        (["--pull", "--pull=false"], {"pull": False}),
        (["--pull=false", "--pull"], {"pull": True}),
        (["--no-cache=1", "--load=T"], {"no_cache": True, "load": True}),
        (["-q=true"], {"quiet": True}),
        (["-q", "--quiet=false"], {"quiet": False}),
        (["-t=web", "-f=web.Dockerfile", "-t", "x=y"], {"tags": ("web", "x=y"), "file": "web.Dockerfile"}),
        (["-o=type=tar,dest=-"], {"outputs": ("type=tar,dest=-",)}),
        (["--label=a=b", "--build-arg", "PULL=true"], {"labels": ("a=b",), "build_args": ("PULL=true",)}),
    ],
)
def test_options_are_written_as_dockers(words: list[str], expected: dict[str, Any], given: dict[str, Any]) -> None:
    run_click(["build", *words, "."])
    assert {name: given[name] for name in expected} == expected


@pytest.mark.parametrize("word", ["--pull=maybe", "--pull=", "-q=yes"])
def test_a_value_that_is_no_truth(word: str, given: dict[str, Any]) -> None:
    name, _, value = word.partition("=")
    with pytest.raises(UsageError, match=re.escape(f"{name} {value!r}: not true or false")):
        run_click(["build", word, "."])


def test_refused_options_are_not_in_the_help() -> None:
    shown = {name for each in build.params if not each.shown.get("hidden") for name in each.opts}
    assert not shown & {*REFUSED, *WITHOUT_EFFECT}
