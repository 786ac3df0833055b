"""`python -m minibox.oci_cli`, where no `minibox-oci` is installed."""

from __future__ import annotations

from minibox.oci_cli.main import program

if __name__ == "__main__":
    program()
