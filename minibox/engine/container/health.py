"""Check a container's health, and act on the result.

The supervisor runs `check` in a new interpreter after each interval. The results are in
``root/containers/<id>/health.json``, in the format of Docker's State.Health.
"""

from __future__ import annotations

from time import time

from minibox.base import damage
from minibox.base.codec import FileKind, plain
from minibox.base.home import Home
from minibox.base.lock import Lock
from minibox.engine.container import lifecycle
from minibox.engine.spec.healthcheck import HealthCheck, parse_healthcheck
from minibox.engine.state import containers, events
from minibox.engine.state.log_file import log_time
from minibox.engine.state.sent_signals import HEALTH, note_signal
from minibox.errors import ContainerNotFound, ContainerNotRunning, MiniboxError, Unreadable
from minibox.linux.process import SIGKILL, send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"
LOG_ENTRIES, OUTPUT_BYTES = 5, 4096
NO_RESULT = -1  # the exit status of a check that was killed or couldn't be executed
HEALTH_FILE = FileKind(
    "health",
    {
        "Started": (float, None),
        "Status": str,
        "FailingStreak": int,
        "Log": [{"Start": str, "End": str, "ExitCode": int, "Output": str}],
    },
    before=plain,
)


def status(root: str, container_id: str, found: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """State.Health as in Docker's inspect: Status, FailingStreak, Log; None for a container without a health check.

    Args:
        found: its state, if you have read it already.
    """
    found = containers.read(root, container_id) if found is None else found
    try:
        has_check = parse_healthcheck(found.get("Config") or {}) is not None
    except (AttributeError, TypeError, ValueError, LookupError):  # the state wasn't written by minibox
        has_check = False
    return _results(root, found) if has_check else None


def _path(root: str, container_id: str) -> str:
    return f"{root}/containers/{container_id}/health.json"


def _results(root: str, found: dict[str, Any]) -> dict[str, Any]:
    """The results since the last start."""
    fresh: dict[str, Any] = {"Status": STARTING, "FailingStreak": 0, "Log": []}
    try:
        results = HEALTH_FILE.read(_path(root, found["Id"]))
    except OSError:
        return fresh
    except Unreadable as error:
        damage.tell(error)
        return fresh
    return {key: results[key] for key in fresh} if results["Started"] == found.get("Started") else fresh


def check(root: str, runroot: str, container_id: str) -> int:
    """Check once; see `run_check`. The supervisor runs this and uses the result as exit status: 0 for healthy."""
    try:
        return 0 if run_check(Home(root, runroot), container_id) else 1
    except MiniboxError:
        return 1  # it is ending right now, or is paused


def run_check(home: Home, name_or_id: str) -> bool:
    """Check a container once, write the result down and do what ``--health-on-failure`` says.

    Returns:
        Whether the check succeeded.

    Raises:
        ContainerNotFound, ContainerNotRunning
        MiniboxError: it has no health check, or is paused.
    """
    found = containers.find(home.root, name_or_id)
    health_check = parse_healthcheck(found.get("Config") or {})
    if health_check is None:
        raise MiniboxError(f"container {name_or_id} has no health check", "set one with minibox run --health-cmd")
    result = _check_once(found["Id"], health_check, home.root)
    before, now = _record(home.root, found, health_check, result)
    if before != now:
        events.note_container(home.runroot, found, f"health_status: {now}")
    if now == UNHEALTHY and result["ExitCode"]:
        _act(home, found)
    return not result["ExitCode"]


def _check_once(container_id: str, health_check: HealthCheck, root: str) -> dict[str, Any]:
    """Run the check and return the entry for the log."""
    from minibox.engine.container.exec import capture

    began = time()
    timeout_s = health_check.timeout_s
    try:
        done = capture(container_id, health_check.command, root=root, timeout_s=timeout_s, bytes_max=OUTPUT_BYTES)
        code, output = done.status, done.output.decode(errors="replace")
        if code == NO_RESULT:
            output = f"Health check exceeded timeout ({timeout_s:g}s)" + (f": {output}" if output else "")
    except (ContainerNotFound, ContainerNotRunning):
        raise
    except MiniboxError as error:
        if error.status == MiniboxError.status:
            raise
        code, output = NO_RESULT, str(error)  # the command is at fault
    return {"Start": log_time(began), "End": log_time(time()), "ExitCode": code, "Output": output}


def _record(root: str, found: dict[str, Any], health_check: HealthCheck, result: dict[str, Any]) -> tuple[str, str]:
    """Write a result down. Return the status before and now."""
    try:
        with Lock(f"{root}/containers/{found['Id']}"):
            if containers.read(root, found["Id"]).get("Started") != found.get("Started"):
                raise ContainerNotRunning(f"container {found['Id'][:12]} was restarted while it was checked")
            results = _results(root, found)
            before = results["Status"]
            results |= _judge(results, health_check, result, time() - float(found.get("Started") or 0))
            results["Log"] = [*results["Log"], result][-LOG_ENTRIES:]
            HEALTH_FILE.write(_path(root, found["Id"]), {"Started": found.get("Started"), **results})
    except FileNotFoundError:
        raise ContainerNotFound(f"container {found['Id'][:12]} was removed while it was checked") from None
    return before, results["Status"]


def _judge(results: dict[str, Any], health_check: HealthCheck, result: dict[str, Any], age_s: float) -> dict[str, Any]:
    """The new Status and FailingStreak after a result, by Docker's rules."""
    if not result["ExitCode"]:
        return {"Status": HEALTHY, "FailingStreak": 0}
    if results["Status"] == STARTING and age_s < health_check.start_period_s:
        return {}
    streak = results["FailingStreak"] + 1
    return {"FailingStreak": streak, **({"Status": UNHEALTHY} if streak >= health_check.retries else {})}


def _act(home: Home, found: dict[str, Any]) -> None:
    """Do what ``--health-on-failure`` says.

    After ``kill`` the restart policy decides whether it restarts. ``stop`` is final.
    """
    action, container_id = found.get("Options", {}).get("health_on_failure", "none"), found["Id"]
    if action == "none":
        return
    if action != "kill":
        note_signal(home.root, container_id, 0, HEALTH, -1)
    if action == "kill":
        with lifecycle.Process(home.root, container_id, "kill") as process:
            note_signal(home.root, container_id, SIGKILL, HEALTH, process.group.oom_kills())
            send_signal(process.pidfd, SIGKILL)
            process.group.thaw()  # with cgroup v1 frozen processes don't die
    elif action == "stop":
        lifecycle.stop(home, container_id)
    else:
        from minibox.engine.container import start

        start.restart(home, container_id)
