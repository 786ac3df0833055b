"""Which containers are started after a boot."""

from __future__ import annotations

import pytest

from minibox.engine.container.restart_policy import starts_at_boot


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
