"""Which protection stops which attack: the search, against a world whose answer is known."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from minibox.cli.format.attacks import format_table
from minibox.errors import UsageError
from minibox.lab.attacks.attackers import main
from minibox.lab.attacks.catalog import ATTACKS
from minibox.lab.attacks.protections import BY_NAME, find
from minibox.lab.attacks.search import Finding, findings
from minibox.lab.attacks.table import Table

STOPPED_BY = {
    "alone": ("mask",),
    "twice": ("mask", "ids"),
    "thrice": ("filter", "ids", "limit"),
    "free": (),
}


class World:
    """Attacks that get through if all that stops them is left out."""

    def __init__(self, stopped_by: dict[str, tuple[str, ...]], *, misses: tuple[int, str] = (-1, "")) -> None:
        self.stopped_by, self._misses = stopped_by, misses
        self.tries = 0

    def through(self, left_out: Collection[str], attacks: Collection[str]) -> set[str]:
        self.tries += 1
        found = {each for each in attacks if set(self.stopped_by[each]) <= {*left_out}}
        return found - {self._misses[1]} if self.tries == self._misses[0] else found


def search(world: World, *wanted: str) -> list[Finding]:
    names = ("mask", "filter", "ids", "limit", "useless")
    return list(findings(names, list(world.stopped_by), wanted or names, world.through))


def test_each_attack_with_all_that_stop_it() -> None:
    assert {each.attack: set(each.stopped_by) for each in search(World(STOPPED_BY))} == {
        name: set(protections) for name, protections in STOPPED_BY.items()
    }


def test_only_what_a_wanted_protection_stops() -> None:
    assert {each.attack for each in search(World(STOPPED_BY), "limit")} == {"free", "thrice"}
    assert {each.attack for each in search(World(STOPPED_BY), "useless")} == {"free"}


@pytest.mark.parametrize("number", range(1, 8))
def test_an_attacker_that_fails_once_changes_nothing(number: int) -> None:
    """The kernel may be busy. What is put back too often is found needless."""
    found = search(World(STOPPED_BY, misses=(number, "twice")))
    assert {(each.attack, *sorted(each.stopped_by)) for each in found if each.attack == "twice"} == {
        ("twice", "ids", "mask")
    }


def test_protections_are_found_by_name_and_by_step() -> None:
    assert find("seccomp").name == "seccomp"
    assert find("pivot_root").name == "pivot-root"
    assert find("no_new_privs").name == "no-new-privileges"
    assert find("capset").name == "capabilities"


def test_a_wrong_name_gives_the_nearest_and_the_list() -> None:
    with pytest.raises(UsageError, match="no protection is called 'mask-paths'") as raised:
        find("mask-paths")
    assert str(raised.value.hint).startswith("did you mean masked-paths? one of seccomp, ")
    with pytest.raises(UsageError) as raised:
        find("zzz")
    assert str(raised.value.hint).startswith("one of seccomp, ") and all(
        name in str(raised.value.hint) for name in BY_NAME
    )


def test_attackers_have_their_programs() -> None:
    programs: dict[str, Any] = main.__globals__
    assert all(attack.program in programs and programs[attack.program].__doc__ for attack in ATTACKS)
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)


def table(left_out: tuple[str, ...], stopped_by: dict[str, tuple[str, ...]]) -> Table:
    does = {name: f"does {name}" for name in left_out}
    return Table(left_out, does, (), {name: f"tries {name}" for name in STOPPED_BY}, stopped_by, (), {})


def test_several_left_out_at_once() -> None:
    known = {name: STOPPED_BY[name] for name in ("alone", "twice")}
    text = format_table(table(("mask", "ids"), known), each=False, width=80)
    assert "Without mask and ids, these attacks get through:\n    alone: tries alone\n    twice: tries twice" in text


def test_a_covered_protection_says_by_what() -> None:
    text = format_table(table(("ids",), {"twice": STOPPED_BY["twice"]}), each=True, width=80)
    assert "twice: tries twice (with mask left out as well)" in text and "get through:" not in text


def test_a_useless_protection_is_told() -> None:
    assert "It stops none of these attacks." in format_table(table(("useless",), {}), each=True, width=80)
