"""The global options: the directories, the storage driver, and whether to show tracebacks."""

from __future__ import annotations

from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from minibox.base.home import Home

COMPLETE_VARIABLE = "_MINIBOX_COMPLETE"
SHELLS = ("bash", "zsh", "fish")
WITH_VALUES = ("--root", "--runroot", "--storage-driver")


@record
class Settings:
    """The resolved global options; ``storage_driver`` is "" for the default."""

    home: Home
    debug: bool = False
    storage_driver: str = ""

    def claimed(self) -> Settings:
        """Return these settings after checking that minibox may use the directories.

        Raises:
            UnsafeDirectory: see `Home.claimed`.
        """
        self.home.claimed()
        return self


def make_settings(given: Mapping[str, str | bool | None], environ: Mapping[str, str]) -> Settings:
    """Make `Settings` from the global options; what isn't given comes from ``environ`` or config.toml.

    Raises:
        ConfigError: config.toml is invalid.
    """
    import os

    from minibox.base.home import find_home
    from minibox.config import load

    return Settings(
        find_home(str(given.get("root") or ""), str(given.get("runroot") or ""), environ, os.geteuid()),
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
