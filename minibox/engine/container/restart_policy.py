"""The restart policy of a container, ``--restart``: decide whether and when to start it again."""

from __future__ import annotations

from minibox.docker_words.life import RestartPolicy, parse_restart
from minibox.engine.state import containers
from minibox.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.engine.spec.options import RunOptions

# Docker's delay between restarts. It doubles each time, and starts over once the container has run for a while.
FIRST_S, MOST_S, STABLE_S = 0.1, 60.0, 10.0


def check(options: RunOptions) -> None:
    """Check that ``--restart`` and ``--rm`` go together, before anything is made.

    Raises:
        UsageError: they don't.
    """
    if options.rm and options.restart and options.restart.name != "no":
        raise UsageError("--restart can't be used with --rm, which removes the container when it ends")


def delay_s(found: dict[str, Any]) -> float | None:
    """How long to wait before a restart, in seconds; None for no restart.

    Args:
        found: the state of the container, with how it ended.
    """
    policy = _policy(found)
    if policy.name == "no" or (policy.name == "on-failure" and not found["ExitCode"]):
        return None
    if policy.attempts is not None and (found.get("RestartCount") or 0) >= policy.attempts:
        return None
    if found["Finished"] - (found.get("Started") or 0) > STABLE_S:
        return FIRST_S
    return min(max(FIRST_S, 2 * float(found.get("RestartDelay") or 0)), MOST_S)


def starts_at_boot(found: dict[str, Any], *, stopped: bool) -> bool:
    """Return whether a container's policy starts it after a boot.

    Args:
        stopped: the user stopped it.
    """
    policy = _policy(found).name
    if found["Status"] in containers.ALIVE or not found.get("Started"):
        return False
    return policy == "always" or (policy == "unless-stopped" and not stopped)


def _policy(found: dict[str, Any]) -> RestartPolicy:
    """The policy that a container's state has; none where it is damaged."""
    options = found.get("Options")
    word = options.get("restart") if isinstance(options, dict) else ""
    try:
        return parse_restart(str(word or ""))
    except UsageError:
        return parse_restart("")
