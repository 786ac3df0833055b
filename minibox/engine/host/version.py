"""The version of minibox."""

from __future__ import annotations


def version_text() -> str:
    """Return the version of the installed package, or of the checkout."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed_version

    try:
        return installed_version("minibox")
    except PackageNotFoundError:
        return "(not installed)"
