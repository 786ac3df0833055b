"""The version of minibox."""

from __future__ import annotations

import os
import sys

from minibox.errors import suppress


def version_text() -> str:
    """Return the version of the installed package, or of the checkout."""
    for directory in sys.path:  # as importlib does, which takes longer to import than Python to start
        with suppress(OSError):
            for name in os.listdir(directory or "."):
                if name.startswith("minibox-") and name.endswith(".dist-info"):
                    with open(f"{directory or '.'}/{name}/METADATA", encoding="utf-8") as file:
                        found = [line for line in file if line.startswith("Version: ")]
                    if found:
                        return found[0].split()[1]
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed_version

    try:
        return installed_version("minibox")
    except PackageNotFoundError:
        return "(not installed)"


def version_document() -> dict[str, dict[str, str]]:
    """Return what ``docker version`` tells, as far as minibox has it: no server, and no versions of an API."""
    import platform

    from minibox.image.platform import host_platform

    own = {"Version": version_text(), "Os": "linux", "Arch": host_platform().architecture}
    return {
        "Client": {**own, "PythonVersion": platform.python_version()},
        "Server": {**own, "KernelVersion": os.uname().release},
    }
