"""The keywords ``root``, ``runroot`` and ``storage_driver``: where minibox keeps its state."""

from __future__ import annotations

import os
from typing import TypedDict

from minibox.base.paths import absolute
from minibox.engine.host.home import claim, default_root, default_runroot
from minibox.engine.host.interrupts import uninterrupted
from minibox.engine.process.streams import StandardDescriptors
from minibox.record import record


class Places(TypedDict, total=False):
    """The keywords for the place of minibox's state; see `minibox.ContainerOptions`."""

    root: str | os.PathLike[str]
    runroot: str | os.PathLike[str]
    storage_driver: str


@record
class Place:
    """The directories for minibox's state, and the storage driver."""

    root: str
    runroot: str
    storage_driver: str


def place(options: Places) -> Place:
    """Return the `Place` from the options, or else from the current environment and config.toml.

    Raises:
        ConfigError: config.toml is invalid.
        UnsafeDirectory: another user could change the state there.
    """
    from minibox.config import load

    _occupy_streams()
    root, runroot, driver = options.get("root"), options.get("runroot"), options.get("storage_driver")
    environ, uid = os.environ, os.geteuid()
    found = Place(
        absolute(os.fspath(root)) if root else default_root(environ, uid),
        absolute(os.fspath(runroot)) if runroot else default_runroot(environ, uid),
        driver or environ.get("MINIBOX_STORAGE_DRIVER") or load(environ).storage_driver,
    )
    claim(found.root, found.runroot)
    return found


def _occupy_streams() -> None:
    """A descriptor of ours with number 0, 1 or 2 would be taken for the caller's stream: open those that are closed."""
    try:
        for fd in range(3):
            os.fstat(fd)
    except OSError:
        uninterrupted(StandardDescriptors)  # never undone
