"""With systemd as first process: `make vm-systemd` runs these tests, as root and as an ordinary user."""

from __future__ import annotations

from tests.leaks import leak_check

__all__ = ["leak_check"]
