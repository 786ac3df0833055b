"""Who is kept from breaking into his own host."""

from __future__ import annotations

from pathlib import Path

import pytest

from minibox.base.home import Home
from minibox.errors import MiniboxError
from minibox.lab import real_host


def test_what_is_no_virtual_machine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu vme de hypervisor-like\n")
    monkeypatch.setattr(real_host, "CPUINFO", str(cpuinfo))
    with pytest.raises(MiniboxError, match="and this is no virtual machine"):
        real_host.RealHost(Home(str(tmp_path), str(tmp_path)))
