"""Run the command line: ``python -m minibox``."""

from __future__ import annotations

from minibox.cli.main import program

if __name__ == "__main__":
    program()
