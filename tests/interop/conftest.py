"""Each test here is checked for what it leaves behind; crun gets the cgroup hierarchies that it insists on."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests import isolation
from tests.leaks import leak_check

__all__ = ["crun_hierarchies", "leak_check"]


@pytest.fixture(scope="session", autouse=True)
def crun_hierarchies() -> Iterator[None]:
    """Before the leak check of any test, so that it is none of theirs."""
    if os.geteuid() != 0:
        yield
        return
    with isolation.hugetlb_hierarchy():
        yield
