"""Where minibox keeps its state, as the keywords ``root``, ``runroot`` and ``storage_driver`` say it."""

from __future__ import annotations

import os
from typing import TypedDict

from minibox.base.paths import absolute
from minibox.engine.interrupts import uninterrupted
from minibox.engine.roots import claim, default_root, default_runroot
from minibox.engine.streams import ClosedEnds
from minibox.record import record


class Places(TypedDict, total=False):
    """Keywords of whatever has its state somewhere; see `minibox.ContainerOptions`."""

    root: str | os.PathLike[str]
    runroot: str | os.PathLike[str]
    storage_driver: str


@record
class Place:
    """Where minibox keeps its state, and by what driver."""

    root: str
    runroot: str
    storage_driver: str


def place(options: Places) -> Place:
    """That of the options, else of the environment, as it is now, and of config.toml.

    Raises:
        ConfigError: of config.toml.
        UnsafeDirectory: somebody else could change what is kept there.
    """
    return uninterrupted(lambda: _place(options))


def _place(options: Places) -> Place:
    from minibox.config import load

    ClosedEnds()  # for good: a descriptor of ours that had such a number would be taken for the caller's stream
    root, runroot, driver = options.get("root"), options.get("runroot"), options.get("storage_driver")
    environ, uid = os.environ, os.geteuid()
    found = Place(
        absolute(os.fspath(root)) if root else default_root(environ, uid),
        absolute(os.fspath(runroot)) if runroot else default_runroot(environ, uid),
        driver or environ.get("MINIBOX_STORAGE_DRIVER") or load(environ).storage_driver,
    )
    claim(found.root, found.runroot)
    return found
