"""On kernels that label processes: `make vm-labels` runs these tests, and no other run collects them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.leaks import leak_check
from tests.oci_runtime import Runtime

__all__ = ["leak_check"]


@pytest.fixture
def runtime(state: Path, minibox: Run) -> Iterator[Runtime]:
    """minibox-oci, with a bundle; its containers go with the test."""
    runtime = Runtime(state)
    yield runtime
    runtime.remove_all()
    assert runtime.left() == []
