"""The restart policy of a container, ``--restart``: check it, and decide whether and when to start again."""

from __future__ import annotations

from minibox.engine.state import containers
from minibox.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.engine.spec.options import RunOptions

# Docker's delay between restarts. It doubles each time, and starts over once the container has run for a while.
FIRST_S, MOST_S, STABLE_S = 0.1, 60.0, 10.0


def check(options: RunOptions) -> None:
    """Check ``--restart``, before anything is made.

    Raises:
        UsageError: an option is invalid.
    """
    policy, colon, attempts = options.restart.partition(":")
    if policy not in ("", "no", "always", "unless-stopped", "on-failure") or (colon and policy != "on-failure"):
        raise UsageError(
            f"invalid restart policy {options.restart!r}", "use no, always, unless-stopped or on-failure[:N]"
        )
    if colon and not (attempts.isascii() and attempts.isdigit()):
        raise UsageError(
            f"invalid restart policy {options.restart!r}: the limit must be a number", "write it like on-failure:5"
        )
    if options.rm and policy not in ("", "no"):
        raise UsageError("--restart can't be used with --rm, which removes the container when it ends")


def delay_s(found: dict[str, Any]) -> float | None:
    """How long to wait before a restart, in seconds; None for no restart.

    Args:
        found: the state of the container, with how it ended.
    """
    options = found.get("Options") or {}
    policy, _, attempts = str(options.get("restart", "no")).partition(":")
    count = found.get("RestartCount") or 0
    if policy in ("", "no") or (policy == "on-failure" and not found["ExitCode"]):
        return None
    if (
        policy == "on-failure"
        and attempts
        and count >= int(attempts if attempts.isascii() and attempts.isdigit() else 0)
    ):
        return None
    if found["Finished"] - (found.get("Started") or 0) > STABLE_S:
        return FIRST_S
    return min(max(FIRST_S, 2 * float(found.get("RestartDelay") or 0)), MOST_S)


def starts_at_boot(found: dict[str, Any], *, stopped: bool) -> bool:
    """Return whether a container's policy starts it after a boot.

    Args:
        stopped: the user stopped it.
    """
    options = found.get("Options")
    policy = str(options.get("restart") or "no") if isinstance(options, dict) else "no"
    if found["Status"] in containers.ALIVE or not found.get("Started"):
        return False
    return policy == "always" or (policy == "unless-stopped" and not stopped)
