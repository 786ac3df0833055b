"""Read config.toml, the settings of a user or an administrator. docs/registries.md lists the keys.

Each start of a container reads it. Without a file that costs one failed open(2), and tomllib isn't imported.
"""

from __future__ import annotations

import os

from minibox.errors import ConfigError, kernel_says
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NoReturn

SYSTEM_PATH = "/etc/minibox/config.toml"


@record
class RegistryConfig:
    """One table ``[registries."HOST[:PORT]"]``.

    Attributes:
        location: the host to ask instead, ``HOST[:PORT][/PREFIX]``; "" for the host itself.
        mirrors: hosts to pull from first, in this order: ``[http[s]://]HOST[:PORT][/PREFIX]``.
        insecure: allow plain HTTP, and HTTPS without checking the certificate.
        ca_file: absolute path of a PEM file; its certificates are trusted for this host, besides the system's.
    """

    location: str = ""
    mirrors: tuple[str, ...] = ()
    insecure: bool = False
    ca_file: str = ""


@record
class Config:
    """The contents of config.toml.

    Attributes:
        path: the file that was read; "" if there is none.
        storage_driver: ``[storage] driver``; "" for the default.
        publish_address: ``[network] publish_address``; "" for all addresses of this host.
        registries: the tables by host, spelled as in an image reference: ``docker.io``, ``localhost:5000``.
    """

    path: str
    storage_driver: str
    registries: dict[str, RegistryConfig]
    publish_address: str = ""


def load(environ: Mapping[str, str]) -> Config:
    """Read the first of `paths` that exists; without any, return the defaults.

    Raises:
        ConfigError: the file can't be read, or is invalid.
    """
    candidates = paths(environ)
    for path in candidates:
        try:
            with open(path, "rb") as file:
                text = file.read()
        except OSError as error:
            if isinstance(error, (FileNotFoundError, NotADirectoryError)) and path != environ.get("MINIBOX_CONFIG"):
                continue
            raise ConfigError(f"read {path}: {kernel_says(error)}") from error
        return parse(text, path)
    return Config("", "", {})


def paths(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the paths to try: only ``$MINIBOX_CONFIG`` if it is set, else the user's file (not for root) and the system's."""
    if chosen := environ.get("MINIBOX_CONFIG"):
        return (chosen,)
    home = environ.get("XDG_CONFIG_HOME") or (environ["HOME"] + "/.config" if environ.get("HOME") else "")
    if os.geteuid() == 0 or not home:
        return (SYSTEM_PATH,)
    return f"{home}/minibox/config.toml", SYSTEM_PATH


def parse(text: bytes, path: str) -> Config:
    """Parse ``text``, the contents of the file ``path``.

    Raises:
        ConfigError: it is not valid TOML, a key is unknown, or a value is invalid.
    """
    import tomllib

    try:
        tables = tomllib.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    reader = _Reader(path)
    known = reader.table(tables, "", {"storage": dict, "network": dict, "registries": dict})
    storage = reader.table(known.get("storage", {}), "storage", {"driver": str})
    network = reader.table(known.get("network", {}), "network", {"publish_address": str})
    registries = {}
    for host, table in known.get("registries", {}).items():
        where = f'registries."{host}"'
        if not isinstance(table, dict):
            reader.fail(where, "is not a table")
        kinds = {name: type(getattr(RegistryConfig, name)) for name in RegistryConfig.__annotations__}
        values = reader.table(table, where, {**kinds, "mirrors": list})
        mirrors = values.get("mirrors", [])
        if not all(isinstance(mirror, str) and mirror for mirror in mirrors):
            reader.fail(f"{where}.mirrors", "is not a list of hosts")
        if values.get("ca_file", "/")[:1] != "/":
            reader.fail(f"{where}.ca_file", "is not an absolute path")
        registries[host] = RegistryConfig(**{**values, "mirrors": tuple(mirrors)})
    return Config(path, storage.get("driver", ""), registries, network.get("publish_address", ""))


class _Reader:
    """Check tables; errors name the file and the key."""

    def __init__(self, path: str) -> None:
        self._path = path

    def table(self, table: dict[str, Any], where: str, kinds: dict[str, type]) -> dict[str, Any]:
        """Return ``table`` if ``kinds`` has all its keys and the types of their values."""
        words = {str: "a string", bool: "true or false", list: "a list", dict: "a table"}
        for key, value in table.items():
            name = f"{where}.{key}" if where else key
            if key not in kinds:
                self.fail(name, "is unknown", f"known keys: {', '.join(kinds)}")
            if not isinstance(value, kinds[key]):
                self.fail(name, f"is not {words[kinds[key]]}")
        return table

    def fail(self, key: str, why: str, hint: str | None = None) -> NoReturn:
        raise ConfigError(f"{self._path}: {key} {why}", hint)
