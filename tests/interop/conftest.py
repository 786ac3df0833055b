"""Each test here is checked for what it leaves behind."""

from __future__ import annotations

from tests.leaks import leak_check

__all__ = ["leak_check"]
