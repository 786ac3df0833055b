"""Which containers are started again: after their end, and after a boot."""

from __future__ import annotations

import pytest

from minibox.engine.container.restart_policy import delay_s, starts_at_boot


@pytest.mark.parametrize(
    ("policy", "status", "stopped", "expected"),
    [
        ("always", "exited", False, True),
        ("always", "exited", True, True),
        ("always", "running", False, False),
        ("unless-stopped", "exited", False, True),
        ("unless-stopped", "exited", True, False),
        ("on-failure", "exited", False, False),
        ("on-failure:3", "exited", False, False),
        ("no", "exited", False, False),
        ("", "exited", False, False),
    ],
)
def test_by_policy(policy, status, stopped, expected):
    found = {"Status": status, "Started": 1.0, "Options": {"restart": policy}}
    assert starts_at_boot(found, stopped=stopped) is expected


@pytest.mark.parametrize(
    "found",
    [
        {"Status": "damaged"},
        {"Status": "created", "Options": {"restart": "always"}},
        {"Status": "exited", "Options": 7},
    ],
)
def test_who_has_never_run_is_not_started(found):
    assert not starts_at_boot(found, stopped=False)


@pytest.mark.parametrize(
    ("policy", "status", "count", "expected"),
    [
        ("always", 0, 9, True),
        ("on-failure", 0, 0, False),
        ("on-failure", 1, 9, True),
        ("on-failure:3", 1, 2, True),
        ("on-failure:3", 1, 3, False),
        ("on-failure:0", 1, 3, False),
        ("no", 1, 0, False),
        ("", 1, 0, False),
        ("sometimes", 1, 0, False),
    ],
)
def test_after_an_end(policy, status, count, expected):
    found = {"Started": 1.0, "Finished": 2.0, "ExitCode": status, "RestartCount": count, "Options": {"restart": policy}}
    assert (delay_s(found) is not None) is expected
