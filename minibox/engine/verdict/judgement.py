"""Judge the end of a container that the calling program ran itself."""

from __future__ import annotations

from minibox.engine.verdict import cause
from minibox.engine.verdict.end_kinds import RUNNING
from minibox.engine.verdict.failure_hints import signal_name
from minibox.outcome import Verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.engine.verdict.cause import Facts
    from minibox.outcome import Usage


def judge_end(container_id: str, name: str, facts: Facts | None, usage: Usage) -> Verdict:
    """The verdict on a container. It still runs if ``facts`` is None."""
    if facts is None:
        return Verdict(
            container_id, name, RUNNING, f"it has been running for {cause.span(usage.wall_s)}", ran_s=usage.wall_s
        )
    found = cause.by_limit(facts) or cause.by_signal(facts) or cause.by_itself(facts)
    return Verdict(
        container_id,
        name,
        found.kind,
        found.summary,
        status=facts.status,
        signal=signal_name(facts.signal) if facts.signal else "",
        sender=found.sender,
        ran_s=usage.wall_s,
        evidence=tuple(cause.evidence(facts, found.kind)),
        log=facts.log,
        hint=found.hint,
    )
