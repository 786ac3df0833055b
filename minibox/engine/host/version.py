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


def version_document() -> dict[str, dict[str, str]]:
    """Return what ``docker version`` tells, as far as minibox has it: no server, and no versions of an API."""
    import os
    import platform

    from minibox.image.platform import host_platform

    own = {"Version": version_text(), "Os": "linux", "Arch": host_platform().architecture}
    return {
        "Client": {**own, "PythonVersion": platform.python_version()},
        "Server": {**own, "KernelVersion": os.uname().release},
    }
