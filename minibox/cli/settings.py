"""The global options: the directories, the storage driver, and whether to show tracebacks."""

from __future__ import annotations

from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

COMPLETE_VARIABLE = "_MINIBOX_COMPLETE"
WITH_VALUES = ("--root", "--runroot", "--storage-driver")


@record
class Settings:
    """The resolved global options. Paths are absolute; ``storage_driver`` is "" for the default."""

    root: str
    runroot: str
    debug: bool = False
    storage_driver: str = ""

    def claimed(self) -> Settings:
        """Return these settings after checking that minibox may use the directories.

        Raises:
            UnsafeDirectory: see `engine.host.home.claim`.
        """
        from minibox.engine.host.home import claim

        claim(self.root, self.runroot)
        return self


def make_settings(given: Mapping[str, str | bool | None], environ: Mapping[str, str]) -> Settings:
    """Make `Settings` from the global options; what isn't given comes from ``environ`` or config.toml.

    Raises:
        ConfigError: config.toml is invalid.
    """
    import os

    from minibox.base.paths import absolute
    from minibox.config import load
    from minibox.engine.host.home import default_root, default_runroot

    root, runroot = given.get("root"), given.get("runroot")
    return Settings(
        root=absolute(str(root)) if root else default_root(environ, os.geteuid()),
        runroot=absolute(str(runroot)) if runroot else default_runroot(environ, os.geteuid()),
        debug=bool(given.get("debug")),
        storage_driver=str(
            given.get("storage_driver") or environ.get("MINIBOX_STORAGE_DRIVER") or load(environ).storage_driver
        ),
    )


def read_globals(words: list[str]) -> tuple[dict[str, str | bool | None], list[str]]:
    """Read the global options; return them, and the rest from the first word that isn't one."""
    given: dict[str, str | bool | None] = {}
    at = 0
    while at < len(words):
        name, equals, value = words[at].partition("=")
        if words[at] == "--debug":
            given["debug"] = True
        elif name in WITH_VALUES and equals:
            given[name[2:].replace("-", "_")] = value
        elif name in WITH_VALUES and at + 1 < len(words):
            at += 1
            given[name[2:].replace("-", "_")] = words[at]
        else:
            break
        at += 1
    return given, words[at:]
