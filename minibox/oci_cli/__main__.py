"""Run ``python -m minibox.oci_cli`` if `minibox-oci` isn't installed."""

from __future__ import annotations

from minibox.oci_cli.main import program

if __name__ == "__main__":
    program()
