"""Which protections stop which attack: found by trying, not by reasoning."""

from __future__ import annotations

from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    #: Tries attacks without some protections, all by name; returns those that got through.
    Try = Callable[[Collection[str], Collection[str]], Collection[str]]

TRIES = 2  # an attacker may fail because the machine is busy


@record
class Finding:
    """What was found out about an attack.

    Attributes:
        attack: its name.
        stopped_by: each of these protections stops it by itself, so it gets through if all of them are left out; in the
            order of the protections. None: nothing stops it.
        confirmed: it was tried without just these, and got through.
    """

    attack: str
    stopped_by: tuple[str, ...]
    confirmed: bool


def findings(
    protections: Collection[str], attacks: Collection[str], wanted: Collection[str], through: Try
) -> Iterator[Finding]:
    """Yield what was found out about the attacks that one of the wanted protections stops, or that nothing stops.

    Without any protection all attacks should get through; those that don't are not yielded. One protection alone is then
    put back, for each: what doesn't get through any more is what that one stops. What several stop was covered: it needs
    all of them left out, which is tried too, and that each of them is needed.
    """
    unstopped = set(through((), attacks))
    yield from (Finding(attack, (), True) for attack in attacks if attack in unstopped)
    possible = set(through(protections, [each for each in attacks if each not in unstopped]))
    if missing := [each for each in attacks if each not in unstopped | possible]:
        possible |= set(through(protections, missing))
    stops: dict[str, set[str]] = {}
    for name in sorted(protections, key=lambda name: name not in wanted):
        # What no wanted protection stops is of no interest.
        asked = possible if name in wanted else set().union(*(stops[each] for each in wanted))
        others = [each for each in protections if each != name]
        stops[name] = asked - set(through(others, [each for each in attacks if each in asked])) if asked else set()
    groups: dict[tuple[str, ...], list[str]] = {}
    for attack in attacks:
        stopped_by = tuple(name for name in protections if attack in stops[name])
        if not set(stopped_by).isdisjoint(wanted):
            groups.setdefault(stopped_by, []).append(attack)
    for stopped_by, group in groups.items():
        for attack, needed in _without_needless(stopped_by, group, through).items():
            confirmed = any(attack in through(needed, [attack]) for _ in range(TRIES))
            yield Finding(attack, needed, confirmed)


def _without_needless(stopped_by: tuple[str, ...], attacks: list[str], through: Try) -> dict[str, tuple[str, ...]]:
    """Put each of several protections back: each should stop the attacks. Return for each attack those that do."""
    needed = dict.fromkeys(attacks, stopped_by)
    for name in stopped_by if len(stopped_by) > 1 else ():
        for attack in through([each for each in stopped_by if each != name], attacks):
            needed[attack] = tuple(each for each in needed[attack] if each != name)
    return needed
