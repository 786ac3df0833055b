"""What only the virtual machine can show: `make vm-test` runs these tests, and no other run collects them.

They need cgroup v2 alone, the scheduler of packets, and a root that says which cgroup is whose.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import isolation
from tests.integration.conftest import box
from tests.leaks import CGROUP_ROOT, leak_check
from tests.oci_runtime import runtime

__all__ = ["box", "leak_check", "runtime"]

DELEGATED = "+cpuset +memory +pids"  # as systemd's user@.service but for cpu: what isn't given is part of the tests


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.kernel)


@pytest.fixture
def delegated() -> Iterator[Path]:
    """A cgroup that is the ordinary user's, and this process in a session below it. It must come back empty."""
    own = CGROUP_ROOT / Path("/proc/self/cgroup").read_text().strip().removeprefix("0::/")
    top = CGROUP_ROOT / f"test-{os.getpid()}.slice"
    service, session = top / "user.service", top / "user.service/session.scope"
    session.mkdir(parents=True)
    for directory in (CGROUP_ROOT, top, service):
        (directory / "cgroup.subtree_control").write_text(DELEGATED)
    for path in (service, session):
        for name in (".", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
            os.chown(path / name, isolation.USER_ID, isolation.USER_ID)
    (session / "cgroup.procs").write_text(str(os.getpid()))
    yield service
    (own / "cgroup.procs").write_text(str(os.getpid()))
    left = [path.name for path in service.iterdir() if path.is_dir() and path != session]
    for path in (session, *(service / name for name in left), service, top):
        path.rmdir()
    assert not left
