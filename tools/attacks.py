"""Write the table of protections and attacks into docs/security.md: `make attacks`, as root. A test fails where they
differ."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = CHECKOUT / "docs" / "security.md"
COMMAND = "explain --without all run --security-opt no-new-privileges -m 64m --pids-limit 64 --network none base"
BEGIN, END = f"```console\n# minibox {COMMAND}\n", "```\n"


def in_page() -> str:
    """The table that the page has."""
    _, _, rest = PAGE.read_text().partition(BEGIN)
    return rest.partition(END)[0]


def with_table(page: str, table: str) -> str:
    """The page with another table in place of the one it has."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table}{END}{after}"


if __name__ == "__main__":
    command = [str(CHECKOUT / ".venv/bin/minibox"), *shlex.split(COMMAND)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "COLUMNS": "80"})
    PAGE.write_text(with_table(PAGE.read_text(), done.stdout))
