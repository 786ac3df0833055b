"""`make profile` counts what a program imports."""

from __future__ import annotations

import sys

from tools import profile_start


def test_what_a_program_imports() -> None:
    bare = profile_start.imports_of([sys.executable, "-I", "-S", "-X", "importtime", "-c", "pass"], {})
    found = profile_start.imports_of([sys.executable, "-I", "-S", "-X", "importtime", "-c", "import json.decoder"], {})
    assert {"json", "json.decoder"} <= found.keys() - bare.keys()
    assert all(us >= 0 for us in found.values())
