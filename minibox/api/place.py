"""The keywords ``root``, ``runroot`` and ``storage_driver``: where minibox keeps its state."""

from __future__ import annotations

import os
import sys
from typing import TypedDict

from minibox.api.inside import refuse_in_loading
from minibox.base.home import Home, find_home
from minibox.engine.host.interrupts import uninterrupted
from minibox.engine.process.streams import StandardDescriptors
from minibox.record import record


class Places(TypedDict, total=False):
    """The keywords for the place of minibox's state; see `minibox.ContainerOptions`."""

    root: str | os.PathLike[str] | None
    runroot: str | os.PathLike[str] | None
    storage_driver: str | None


@record
class Place:
    """The directories for minibox's state, and the storage driver."""

    home: Home
    storage_driver: str


def place(options: Places) -> Place:
    """Return the `Place` from the options, or else from the current environment and config.toml.

    Raises:
        ConfigError: config.toml is invalid.
        UnsafeDirectory: another user could change the state there.
    """
    from minibox.config import load

    refuse_in_loading("make a sandbox")
    if "gevent.monkey" in sys.modules or "eventlet.patcher" in sys.modules:
        from minibox.api import greenlets

        greenlets.use()
    _occupy_streams()
    environ = os.environ
    home = find_home(options.get("root"), options.get("runroot"), environ, os.geteuid())
    driver = options.get("storage_driver") or environ.get("MINIBOX_STORAGE_DRIVER") or load(environ).storage_driver
    return Place(home.claimed(), driver)


def _occupy_streams() -> None:
    """A descriptor of ours with number 0, 1 or 2 would be taken for the caller's stream: open those that are closed."""
    try:
        for fd in range(3):
            os.fstat(fd)
    except OSError:
        uninterrupted(StandardDescriptors)  # never undone
