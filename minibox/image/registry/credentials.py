"""User names and passwords for registries, in the files that Docker and Podman use.

Sources: docker-login(1) (config.json, credential helpers), containers-auth.json(5). If ``$REGISTRY_AUTH_FILE`` is
set, we use only that file. Otherwise ``auth.json`` in ``$XDG_RUNTIME_DIR/containers`` (/run/containers/0 for root)
and in ``$XDG_CONFIG_HOME/containers``, then Docker's ``config.json`` in ``$DOCKER_CONFIG`` or ~/.docker.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from minibox.base.files import replace_file
from minibox.base.lines import lines_of
from minibox.errors import ConfigError, kernel_says, trying
from minibox.record import record

DOCKER_HUB_KEY = "https://index.docker.io/v1/"
DOCKER_HUB_NAMES = ("docker.io", "index.docker.io", "registry-1.docker.io")
IDENTITY_TOKEN_USER = "<token>"
HELPER_TIMEOUT_S = 120
NOT_FOUND = "credentials not found"


@record
class Credential:
    """A user name and its secret.

    Attributes:
        secret: a password; for the user name ``<token>`` an OAuth2 refresh token.
        source: the file or helper program that it came from.
    """

    username: str
    secret: str
    source: str = ""

    def __repr__(self) -> str:
        return f"Credential({self.username!r}, ..., {self.source!r})"


class CredentialStore:
    """The credentials of a user with this environment. Making this object reads nothing."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def get(self, host: str, repository: str = "") -> Credential | None:
        """Return the credential for a repository at a registry; None if there is none.

        Raises:
            ConfigError: a file is damaged, or a helper program failed.
        """
        for path in self._paths():
            document = _read(path)
            if helper := _helper(document, host):
                if found := self._ask(helper, host):
                    return found
            entries = {_normal(key): entry for key, entry in _auths(document).items()}
            for key in _keys(host, repository):
                if key in entries and (found := _decode(entries[key], path)):
                    return found
        return None

    def put(self, host: str, username: str, secret: str) -> str:
        """Store a credential; return the file or helper program that has it now.

        If there is one for ``host`` already, replace it there, since `get` would find it first.

        Raises:
            ConfigError: the file can't be read or written, or the helper program failed.
        """
        paths = self._paths()
        path = next((path for path in paths if _has(_read(path), host)), paths[-1])
        document = _read(path)
        if helper := _helper(document, host):
            answer = {"ServerURL": _server(host), "Username": username, "Secret": secret}
            self._run(helper, "store", json.dumps(answer))
            return f"docker-credential-{helper}"
        encoded = base64.b64encode(f"{username}:{secret}".encode()).decode()
        auths = _without(_auths(document), host)
        key = _server(host) if os.path.basename(path) == "config.json" else host
        _write(path, {**document, "auths": {**auths, key: {"auth": encoded}}})
        return path

    def remove(self, host: str) -> list[str]:
        """Remove the credentials for ``host``; return the files and helper programs that had one.

        Raises:
            ConfigError: a file can't be read or written, or a helper program failed.
        """
        had = []
        for path in self._paths():
            document = _read(path)
            if (helper := _helper(document, host)) and self._ask(helper, host):
                self._run(helper, "erase", _server(host))
                had.append(f"docker-credential-{helper}")
            auths = _auths(document)
            left = _without(auths, host)
            if len(left) != len(auths):
                _write(path, {**document, "auths": left})
                had.append(path)
        return had

    def _paths(self) -> list[str]:
        """Return the files that may have credentials, in order of precedence. Docker's own is the last."""
        environ = self._environ
        if chosen := environ.get("REGISTRY_AUTH_FILE"):
            return [chosen]
        home = environ.get("HOME") or "/"
        runtime = environ.get("XDG_RUNTIME_DIR")
        config_home = environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
        return [
            f"{runtime}/containers/auth.json" if runtime else f"/run/containers/{os.geteuid()}/auth.json",
            f"{config_home}/containers/auth.json",
            f"{environ.get('DOCKER_CONFIG') or home + '/.docker'}/config.json",
        ]

    def _ask(self, helper: str, host: str) -> Credential | None:
        text = self._run(helper, "get", _server(host))
        if text is None:
            return None
        try:
            answer = json.loads(text)
            return Credential(answer["Username"], answer["Secret"], f"docker-credential-{helper}")
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ConfigError(f"docker-credential-{helper} get {host}: the answer is not a credential") from None

    def _run(self, helper: str, action: str, text: str) -> str | None:
        """Run a helper program and return its output; None if it has no such credential."""
        import subprocess

        program = f"docker-credential-{helper}"
        try:
            done = subprocess.run([program, action], input=text, capture_output=True, text=True, check=False,
                                  env=dict(self._environ), timeout=HELPER_TIMEOUT_S)  # fmt: skip
        except OSError as error:
            hint = "install it, or remove credsStore and credHelpers from Docker's config.json"
            raise ConfigError(f"run {program}: {kernel_says(error)}", hint) from error
        except ValueError as error:
            raise ConfigError(f"invalid name of a credential helper: {helper!r}: {error}") from error
        except subprocess.TimeoutExpired:
            raise ConfigError(f"{program} {action}: no answer in {HELPER_TIMEOUT_S} seconds") from None
        if done.returncode == 0:
            return done.stdout
        said = lines_of(done.stdout.strip() or done.stderr.strip() or f"exit status {done.returncode}")[0]
        if NOT_FOUND in said:
            return None
        raise ConfigError(f"{program} {action}: {said}")


def _server(host: str) -> str:
    """Return Docker's name for a registry in its file and for helper programs."""
    return DOCKER_HUB_KEY if host in DOCKER_HUB_NAMES else host


def _normal(key: str) -> str:
    """Turn a key of ``auths`` into HOST[:PORT][/PATH], since Docker also writes URLs."""
    key = key.removeprefix("https://").removeprefix("http://").rstrip("/")
    for version in ("/v1", "/v2"):
        key = key.removesuffix(version)
    host, slash, path = key.partition("/")
    return ("docker.io" if host in DOCKER_HUB_NAMES else host) + slash + path


def _keys(host: str, repository: str) -> Iterator[str]:
    """Yield the keys that a credential may have, the most specific first (containers-auth.json(5))."""
    key = _normal(host) + (f"/{repository}" if repository else "")
    while key:
        yield key
        key = key.rpartition("/")[0]


def _has(document: dict[str, Any], host: str) -> bool:
    return bool(_helper(document, host)) or len(_without(_auths(document), host)) != len(_auths(document))


def _without(auths: dict[str, Any], host: str) -> dict[str, Any]:
    return {key: entry for key, entry in auths.items() if _normal(key) != _normal(host)}


def _auths(document: dict[str, Any]) -> dict[str, Any]:
    auths = document.get("auths")
    return auths if isinstance(auths, dict) else {}


def _helper(document: dict[str, Any], host: str) -> str:
    helpers = document.get("credHelpers")
    name = (
        {_normal(key): value for key, value in helpers.items()}.get(_normal(host)) if isinstance(helpers, dict) else ""
    )
    name = name or document.get("credsStore") or ""
    return name if isinstance(name, str) and "/" not in name else ""


def _decode(entry: Any, path: str) -> Credential | None:
    """Decode an entry of ``auths``; None for an empty one, which means that a helper program has the credential."""
    if not isinstance(entry, dict):
        return None
    if isinstance(token := entry.get("identitytoken"), str) and token:
        return Credential(IDENTITY_TOKEN_USER, token, path)
    encoded = entry.get("auth")
    if not isinstance(encoded, str) or not encoded:
        username, secret = entry.get("username"), entry.get("password")
        return Credential(username, secret, path) if isinstance(username, str) and isinstance(secret, str) else None
    try:
        username, colon, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        raise ConfigError(f"{path} is damaged: an 'auth' is not in base64", "minibox login writes it again") from None
    return Credential(username, secret.rstrip("\0"), path) if colon else None


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            document = json.loads(file.read() or b"{}")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigError(f"read {path}: {kernel_says(error)}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged: it is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path} is damaged: it is not a JSON object")
    return document


def _write(path: str, document: dict[str, Any]) -> None:
    """Replace the file in one step, readable only by its owner."""
    path = os.path.realpath(path)
    with trying(ConfigError, f"write {path}"):
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        replace_file(path, (json.dumps(document, indent="\t") + "\n").encode())
