"""The directory of the host for the tests of `minibox try`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import isolation
from tests.conftest import Run
from tests.probes import requires_root, requires_user
from tests.trial_host import Host


@pytest.fixture(params=[pytest.param("root", marks=requires_root), pytest.param("user", marks=requires_user)])
def host(request: pytest.FixtureRequest) -> Host:
    user = request.param == "user"
    run: Run = request.getfixturevalue("minibox_user" if user else "minibox")
    state: Path = request.getfixturevalue("user_state" if user else "state")
    return Host(run, state / "host", isolation.USER_ID if user else 0)


@pytest.fixture
def root_host(minibox: Run, state: Path) -> Host:
    return Host(minibox, state / "host", 0)
