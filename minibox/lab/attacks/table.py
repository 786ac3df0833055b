"""The table of protections and attacks: what `minibox explain --without` shows."""

from __future__ import annotations

import itertools

from minibox.errors import Unsupported
from minibox.lab.attacks import protections
from minibox.lab.attacks.apart import apart
from minibox.lab.attacks.attempt import Attempts
from minibox.lab.attacks.catalog import ATTACKS
from minibox.lab.attacks.search import findings
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from typing import Any

    from minibox.base.home import Home
    from minibox.engine.spec.options import RunOptions

ALL = "all"


@record
class Table:
    """What was found out.

    Attributes:
        left_out: the names of the protections that were asked for.
        does: what each of them does, in words.
        absent: those that this start doesn't have.
        attacks: what each attack does, in words.
        stopped_by: the protections that stop an attack, each by itself, by its name; none if it gets through anyway.
        unconfirmed: attacks that don't get through without just those: it is not known what else stops them.
        not_tried: attacks that can't be tried here, and why.
    """

    left_out: tuple[str, ...]
    does: dict[str, str]
    absent: tuple[str, ...]
    attacks: dict[str, str]
    stopped_by: dict[str, tuple[str, ...]]
    unconfirmed: tuple[str, ...]
    not_tried: dict[str, str]

    def without(self, names: Collection[str]) -> list[str]:
        """Return the attacks that get through if these are left out, and not otherwise."""
        return [attack for attack, stopped_by in self.stopped_by.items() if stopped_by and set(stopped_by) <= {*names}]

    def covered(self, name: str) -> dict[str, tuple[str, ...]]:
        """Return the attacks that a protection stops, and others too; with those others."""
        return {
            attack: tuple(each for each in stopped_by if each != name)
            for attack, stopped_by in self.stopped_by.items()
            if name in stopped_by and len(stopped_by) > 1
        }


def without(
    home: Home, options: RunOptions, storage_driver: str, words: Sequence[str], on_try: Callable[[int], object]
) -> Table:
    """Find out which attacks the protections stop that ``words`` name, by starting containers without some of them.

    Args:
        options: of the container that is attacked from; its command isn't run.
        words: names of protections, or ``all``.
        on_try: called with the number of containers started so far.

    Raises:
        UsageError: a word is no protection.
        Unsupported: only root can start a container without it.
        MiniboxError: a container can't be started.
    """
    known = {each.name: each for each in protections.of_caller()}
    found = list(known.values()) if ALL in words else list(dict.fromkeys(map(protections.find, words)))
    for each in found:
        if each.name not in known:
            raise Unsupported(f"leave out {each.name}: only root can start a container without it")
    names = tuple(each.name for each in found)

    def make() -> Iterator[dict[str, Any]]:
        with Attempts(home, options, storage_driver) as attempts:
            compiled = attempts.compiled()
            by_name = {attack.name: attack for attack in attempts.tried}
            yield {"not_tried": attempts.lacking}
            yield {"absent": [each.name for each in found if not each.there(compiled)]}
            count = itertools.count(1)

            def through(left_out: Collection[str], attacks: Collection[str]) -> Collection[str]:
                on_try(next(count))
                return attempts.through([known[name] for name in left_out], [by_name[name] for name in attacks])

            for finding in findings(list(known), list(by_name), names, through):
                yield {"attack": finding.attack, "by": finding.stopped_by, "sure": finding.confirmed}

    facts: dict[str, Any] = {}
    stopped_by: dict[str, tuple[str, ...]] = {}
    unconfirmed = []
    for said in apart(make):
        if "attack" not in said:
            facts.update(said)
            continue
        stopped_by[said["attack"]] = tuple(said["by"])
        if not said["sure"]:
            unconfirmed.append(said["attack"])
    return Table(
        names,
        {each.name: each.does for each in found},
        tuple(facts["absent"]),
        {attack.name: attack.does for attack in ATTACKS},
        {attack.name: stopped_by[attack.name] for attack in ATTACKS if attack.name in stopped_by},
        tuple(unconfirmed),
        facts["not_tried"],
    )
