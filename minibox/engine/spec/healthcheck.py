"""The health check of a container: its options and the image's settings."""

from __future__ import annotations

from minibox.errors import ConfigError, UsageError
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.engine.spec.options import RunOptions

SHELL = ("/bin/sh", "-c")
# Docker's defaults, in seconds (except for the retries).
INTERVAL, TIMEOUT, RETRIES, START_PERIOD, START_INTERVAL = 30.0, 30.0, 3, 0.0, 5.0
NANOSECONDS = ("Interval", "Timeout", "StartPeriod", "StartInterval")
SHORTEST_NS = 1_000_000


@record
class HealthCheck:
    """A health check with all defaults filled in.

    Attributes:
        command: executed in the container; exit status 0 means healthy.
        interval_s: pause before the first check and after each check.
        timeout_s: a check that takes longer is killed and counts as failed.
        retries: the number of failures in a row that make the container unhealthy.
        start_period_s: how long after the start failures don't count.
        start_interval_s: the interval during the start period, until a check succeeds.
    """

    command: tuple[str, ...]
    interval_s: float = INTERVAL
    timeout_s: float = TIMEOUT
    retries: int = RETRIES
    start_period_s: float = START_PERIOD
    start_interval_s: float = START_INTERVAL


def healthcheck(options: RunOptions, config: dict[str, Any]) -> dict[str, Any]:
    """Merge the user's options into the image's Healthcheck, in the format of an image config; {} for none.

    As in Docker, what the user leaves out is taken from the image.

    Args:
        config: the image's, from `checked_config`.

    Raises:
        ConfigError: the image's Healthcheck is invalid.
        UsageError: the options are invalid.
    """
    given: dict[str, Any] = {}
    if options.health_cmd:
        given["Test"] = ["CMD-SHELL", options.health_cmd]
    for key, value in (
        ("Interval", options.health_interval_s),
        ("Timeout", options.health_timeout_s),
        ("StartPeriod", options.health_start_period_s),
        ("StartInterval", options.health_start_interval_s),
    ):
        if value:
            given[key] = round(value * 1e9)
    if options.health_retries:
        given["Retries"] = options.health_retries
    if options.no_healthcheck:
        if given:
            raise UsageError("--no-healthcheck can't be combined with other health options")
        return {"Test": ["NONE"]}
    _check(given, UsageError, "the health check's")
    images = config.get("Healthcheck")
    if images is not None:
        if not isinstance(images, dict):
            raise ConfigError("the image's Healthcheck is not an object", hint="ignore it with --no-healthcheck")
        _check(images, ConfigError, "the image's Healthcheck's")
    merged = {**{key: value for key, value in (images or {}).items() if value}, **given}
    if given and not merged.get("Test"):
        raise UsageError("times are set, but there is no health check", "add --health-cmd")
    return merged


def _check(found: dict[str, Any], error: type[ConfigError | UsageError], whose: str) -> None:
    test = found.get("Test") or []
    if not isinstance(test, list) or not all(isinstance(word, str) for word in test):
        raise error(f"{whose} Test is not a list of strings")
    if test and (test[0] not in ("NONE", "CMD", "CMD-SHELL") or (test[0] != "NONE" and len(test) < 2)):
        raise error(f"{whose} Test begins with {test[0]!r}, followed by {len(test) - 1} words",
                    '["CMD", "word", ...], ["CMD-SHELL", "words"] or ["NONE"]')  # fmt: skip
    for key in (*NANOSECONDS, "Retries"):
        value = found.get(key) or 0
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
            raise error(f"{whose} {key} is not a number, is negative, or is too large")
        if key in NANOSECONDS and 0 < value < SHORTEST_NS:
            raise error(f"{whose} {key} is shorter than 1 ms")


def parse_healthcheck(config: dict[str, Any]) -> HealthCheck | None:
    """Return the health check of a container; None if it has none.

    Args:
        config: the container's config in the format of an image config; its Healthcheck comes from `healthcheck`.
    """
    found = config.get("Healthcheck") or {}
    kind, *words = found.get("Test") or ["NONE"]
    if kind == "NONE" or not words:
        return None
    shell = config.get("Shell")
    shell = shell if isinstance(shell, list) and shell and all(isinstance(each, str) for each in shell) else SHELL
    command = (*shell, words[0]) if kind == "CMD-SHELL" else tuple(words)
    return HealthCheck(
        command,
        found.get("Interval", 0) / 1e9 or INTERVAL,
        found.get("Timeout", 0) / 1e9 or TIMEOUT,
        found.get("Retries", 0) or RETRIES,
        found.get("StartPeriod", 0) / 1e9 or START_PERIOD,
        found.get("StartInterval", 0) / 1e9 or START_INTERVAL,
    )
