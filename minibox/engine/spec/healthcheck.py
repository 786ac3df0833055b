"""How the health of a container is checked: its options, and what its image says."""

from __future__ import annotations

from minibox.engine.spec.image_config import image_process
from minibox.errors import ConfigError, UsageError
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.engine.spec.options import RunOptions

SHELL = ("/bin/sh", "-c")
# Docker's: in seconds, but for the retries.
INTERVAL, TIMEOUT, RETRIES, START_PERIOD, START_INTERVAL = 30.0, 30.0, 3, 0.0, 5.0
NANOSECONDS = ("Interval", "Timeout", "StartPeriod", "StartInterval")
SHORTEST_NS = 1_000_000


@record
class HealthCheck:
    """A check, with nothing left to be looked up.

    Attributes:
        command: what is executed in the container; healthy is who exits with 0.
        interval_s: from the end of one check to the next, and before the first.
        timeout_s: a check that takes longer is killed, and has failed.
        retries: so many that fail in a row make it unhealthy.
        start_period_s: after the start, in which a check that fails doesn't count.
        start_interval_s: the interval in that time, until one does well.
    """

    command: tuple[str, ...]
    interval_s: float = INTERVAL
    timeout_s: float = TIMEOUT
    retries: int = RETRIES
    start_period_s: float = START_PERIOD
    start_interval_s: float = START_INTERVAL


def healthcheck(options: RunOptions, image_config: dict[str, Any]) -> dict[str, Any]:
    """A container's Healthcheck in the words of an image's config: its user's, and for the rest its image's.

    Docker's rule: each time that the user leaves out is the image's. {} for none.

    Args:
        image_config: the image's config, whole.

    Raises:
        ConfigError, UsageError: one of the two says what can't be.
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
            raise UsageError("--no-healthcheck and other options on health exclude each other")
        return {"Test": ["NONE"]}
    _check(given, UsageError, "the health check's")
    images = image_process(image_config).get("Healthcheck")
    if images is not None:
        if not isinstance(images, dict):
            raise ConfigError("the image's Healthcheck is not an object", hint="--no-healthcheck runs it without")
        _check(images, ConfigError, "the image's Healthcheck's")
    merged = {**{key: value for key, value in (images or {}).items() if value}, **given}
    if given and not merged.get("Test"):
        raise UsageError("there is no health check to set times for", "name one with --health-cmd")
    return merged


def _check(found: dict[str, Any], error: type[ConfigError | UsageError], whose: str) -> None:
    test = found.get("Test") or []
    if not isinstance(test, list) or not all(isinstance(word, str) for word in test):
        raise error(f"{whose} Test is no list of words")
    if test and (test[0] not in ("NONE", "CMD", "CMD-SHELL") or (test[0] != "NONE" and len(test) < 2)):
        raise error(f"{whose} Test begins with {test[0]!r} and has {len(test) - 1} words behind it",
                    '["CMD", "word", ...], ["CMD-SHELL", "words"] or ["NONE"]')  # fmt: skip
    for key in (*NANOSECONDS, "Retries"):
        value = found.get(key) or 0
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
            raise error(f"{whose} {key} is no number, or less than 0, or too large")
        if key in NANOSECONDS and 0 < value < SHORTEST_NS:
            raise error(f"{whose} {key} is shorter than 1 ms")


def check_of(config: dict[str, Any]) -> HealthCheck | None:
    """The check of a container.

    Args:
        config: the container's, in the words of an image's; its Healthcheck is one of `healthcheck`'s.
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
