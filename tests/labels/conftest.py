"""On kernels that label processes: `make vm-labels` runs these tests, and no other run collects them."""

from __future__ import annotations

from tests.leaks import leak_check
from tests.oci_runtime import runtime

__all__ = ["leak_check", "runtime"]
