"""Attackers as programs: each test lets a hostile container or neighbour try, and looks at what came of it.

CI runs a few rounds of each; ``make hostile ROUNDS=20`` that many times as many.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import (
    any_box,
    box,
    leak_check,
    minibox_here,
    orphans,
    place,
    root,
    runtime,
    storage,
    terminal,
    user_box,
)

__all__ = [
    "any_box", "box", "leak_check", "minibox_here", "orphans", "place", "root", "runtime", "storage", "terminal", "user_box"
]  # fmt: skip

TIMES = int(os.environ.get("MINIBOX_HOSTILE_ROUNDS", "1"))
PROGRAMS = Path(__file__).parent


@pytest.fixture
def rounds() -> Callable[[int], range]:
    """``for _ in rounds(5)``: five rounds in CI, that many times more when asked for."""
    return lambda in_ci: range(in_ci * TIMES)


@pytest.fixture(scope="session")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``attacker("exchange")``: tests/hostile/exchange.c as a static program that runs in any container."""
    built: dict[str, Path] = {}

    def build(name: str) -> Path:
        if name not in built:
            out = tmp_path_factory.mktemp("attacker") / name
            out.parent.chmod(0o755)
            subprocess.run(
                ["cc", "-static", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", out, PROGRAMS / f"{name}.c"],
                check=True,
            )
            built[name] = out
        return built[name]

    return build
