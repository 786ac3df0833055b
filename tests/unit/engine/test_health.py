"""How a health check is put together of options and image, and what its results add up to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from minibox.engine.container import health
from minibox.engine.spec.healthcheck import HealthCheck, healthcheck, parse_healthcheck
from minibox.engine.spec.options import RunOptions
from minibox.errors import ConfigError, UsageError

ID = "c" * 64
IMAGES = {"Test": ["CMD", "curl", "-f", "localhost"], "Interval": 5_000_000_000, "Retries": 7}


def config(**found):
    return {"Healthcheck": found}


def test_nothing_is_asked_for():
    assert healthcheck(RunOptions("x"), {}) == {}
    assert (
        parse_healthcheck({})
        is parse_healthcheck({"Healthcheck": None})
        is parse_healthcheck({"Healthcheck": {"Test": ["NONE"]}})
        is None
    )


def test_the_options_alone_with_dockers_defaults():
    found = healthcheck(RunOptions("x", health_cmd="test -e /ok"), {})
    assert found == {"Test": ["CMD-SHELL", "test -e /ok"]}
    assert parse_healthcheck({"Healthcheck": found}) == HealthCheck(("/bin/sh", "-c", "test -e /ok"), 30, 30, 3, 0, 5)


def test_the_images_check_with_what_the_user_changes():
    options = RunOptions("x", health_interval_s=0.25, health_start_period_s=2, health_timeout_s=1.5)
    found = healthcheck(options, config(**IMAGES))
    assert parse_healthcheck({"Healthcheck": found}) == HealthCheck(("curl", "-f", "localhost"), 0.25, 1.5, 7, 2)


def test_the_users_command_has_the_images_times():
    check = parse_healthcheck({"Healthcheck": healthcheck(RunOptions("x", health_cmd="true"), config(**IMAGES))})
    assert check == HealthCheck(("/bin/sh", "-c", "true"), 5, 30, 7, 0)


def test_it_is_checked_more_often_while_it_starts():
    options = RunOptions("x", health_start_interval_s=0.5)
    check = parse_healthcheck({"Healthcheck": healthcheck(options, config(**IMAGES, StartPeriod=60_000_000_000))})
    assert check == HealthCheck(("curl", "-f", "localhost"), 5, 30, 7, 60, 0.5)


def test_the_images_shell():
    found = {"Healthcheck": {"Test": ["CMD-SHELL", "true"]}, "Shell": ["/bin/bash", "-ec"]}
    check = parse_healthcheck(found)
    assert check is not None and check.command == ("/bin/bash", "-ec", "true")


def test_no_healthcheck():
    assert healthcheck(RunOptions("x", no_healthcheck=True), config(**IMAGES)) == {"Test": ["NONE"]}
    with pytest.raises(UsageError, match="can't be combined with"):
        healthcheck(RunOptions("x", no_healthcheck=True, health_cmd="true"), {})


def test_times_without_a_check():
    with pytest.raises(UsageError, match="times are set, but there is no health check"):
        healthcheck(RunOptions("x", health_retries=2), {})


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ("true", "not an object"),
        ({"Test": "true"}, "not a list of strings"),
        ({"Test": ["CMD", 1]}, "not a list of strings"),
        ({"Test": ["SHELL", "true"]}, "begins with 'SHELL'"),
        ({"Test": ["CMD"]}, "followed by 0 words"),
        ({"Test": ["CMD", "true"], "Interval": "30s"}, "Interval is not a number"),
        ({"Test": ["CMD", "true"], "Retries": -1}, "Retries is not a number, is negative"),
        ({"Test": ["CMD", "true"], "Timeout": 5}, "Timeout is shorter than 1 ms"),
    ],
)
def test_an_image_that_says_what_cannot_be(found, words):
    with pytest.raises(ConfigError, match=words):
        healthcheck(RunOptions("x"), {"Healthcheck": found})


def results(*codes, retries=3, start_period_s=0.0, age_s=10.0):
    found = {"Status": health.STARTING, "FailingStreak": 0}
    seen = []
    for code in codes:
        found |= health._judge(found, HealthCheck(("x",), 1, 1, retries, start_period_s), {"ExitCode": code}, age_s)
        seen.append((found["Status"], found["FailingStreak"]))
    return seen


def test_results_add_up():
    starting, well, ill = health.STARTING, health.HEALTHY, health.UNHEALTHY
    assert results(1, 1, 1, 1, 0, 1) == [
        (starting, 1), (starting, 2), (ill, 3), (ill, 4), (well, 0), (well, 1)]  # fmt: skip
    assert results(0, -1, 2, 1) == [(well, 0), (well, 1), (well, 2), (ill, 3)]


def test_in_the_start_period_a_failure_does_not_count_and_a_success_does():
    assert results(1, 1, start_period_s=20) == [(health.STARTING, 0)] * 2
    assert results(1, 0, 1, retries=1, start_period_s=20) == [
        (health.STARTING, 0), (health.HEALTHY, 0), (health.UNHEALTHY, 1)]  # fmt: skip
    assert results(1, retries=1, start_period_s=5) == [(health.UNHEALTHY, 1)]


@pytest.mark.filterwarnings("ignore::minibox.errors.DamageWarning")
@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', '{"Started": 5}', '{"Started": 4, "Status": "healthy"}'])
def test_results_of_another_start_or_damaged_ones_are_none(tmp_path, text):
    directory = tmp_path / "containers/c"
    directory.mkdir(parents=True)
    (directory / "health.json").write_text(text)
    found = {"Id": "c", "Started": 5, "Config": {"Healthcheck": {"Test": ["CMD", "x"]}}}
    assert health.status(str(tmp_path), "c", found) == {"Status": "starting", "FailingStreak": 0, "Log": []}


def test_a_state_that_makes_no_sense_has_no_health(tmp_path):
    configs: list[object] = [None, [], {"Healthcheck": 3}, {"Healthcheck": {"Test": 3}}]
    for config_of_it in configs:
        assert health.status(str(tmp_path), "c", {"Id": "c", "Config": config_of_it}) is None


def test_the_last_five_are_kept(tmp_path):
    directory = tmp_path / "containers" / ID
    directory.mkdir(parents=True)
    found: dict[str, Any] = {"Id": ID, "Name": "c", "Status": "running", "Started": 5.25}
    found["Config"] = {"Healthcheck": {"Test": ["CMD", "x"]}}
    (directory / "state.json").write_text(json.dumps(found))
    for number in range(7):
        result = {"Start": "", "End": "", "ExitCode": 0, "Output": str(number)}
        health._record(str(tmp_path), found, HealthCheck(("x",)), result)
    recorded = health.status(str(tmp_path), ID)
    assert recorded is not None and [entry["Output"] for entry in recorded["Log"]] == ["2", "3", "4", "5", "6"]
    assert recorded["Status"] == "healthy"
