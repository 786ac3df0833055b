"""The config and the history of an image that is being built, as BuildKit writes them.

Source: OCI image-spec 1.1, config.md; BuildKit's ``frontend/dockerfile/dockerfile2llb/convert.go`` for the texts in the
history, which other tools show and compare.
"""

from __future__ import annotations

import json
import posixpath

from minibox.image.platform import host_platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from minibox.image.platform import Platform

COMMENT = "buildkit.dockerfile.v0"
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL = ("/bin/sh", "-c")
#: Members of a base image's config that the new image keeps.
KEPT = ("architecture", "os", "os.version", "os.features", "variant")


class Draft:
    """An image that is being built. `copy` makes one for a stage that begins with another.

    Attributes:
        config: the execution part of the image config.
        history: the entries so far.
        shell: of SHELL, for commands in shell form.
    """

    def __init__(self, base: dict[str, Any] | None, epoch_s: int | None = None) -> None:
        """
        Args:
            base: the base image's config; None for ``scratch``.
            epoch_s: the time for the image and its history, in seconds since 1970; None for those of the lines.
        """
        self._is_fixed = epoch_s is not None
        self._created = time_text(epoch_s or 0)
        if base and not self._is_fixed and isinstance(base.get("created"), str):
            self._created = base["created"]
        self._cmd_is_ours = False
        self.author = ""
        self.shell: tuple[str, ...] = DEFAULT_SHELL
        if base is None:
            self.kept: dict[str, Any] = dict(host_platform().document())
            self.config: dict[str, Any] = {"Env": [DEFAULT_PATH], "WorkingDir": "/"}
            self.history: list[dict[str, Any]] = []
            return
        self.kept = {key: base[key] for key in KEPT if key in base}
        self.author = str(base.get("author") or "")
        self.config = json.loads(json.dumps(base.get("config") or {}))
        self.history = list(base.get("history") or ())
        count = sum(not each.get("empty_layer") for each in self.history)
        missing = len((base.get("rootfs") or {}).get("diff_ids") or ()) - count
        self.history[:0] = [{"created_by": "unknown"}] * missing  # readers count the layers
        if shell := self.config.pop("Shell", None):
            self.shell = tuple(shell)
            self.config["Shell"] = list(shell)

    def copy(self) -> Draft:
        """A draft that begins as this one is now."""
        made = Draft.__new__(Draft)
        made.__dict__ = {**self.__dict__, "config": json.loads(json.dumps(self.config)), "history": list(self.history)}
        made._cmd_is_ours = False
        return made

    def note(self, text: str, *, layer: bool = False) -> None:
        """Add an entry to the history."""
        entry: dict[str, Any] = {"created": self._created, "created_by": text, "comment": COMMENT}
        if self.author:
            entry["author"] = self.author
        if not layer:
            entry["empty_layer"] = True
        self.history.append(entry)

    def set_platform(self, platform: Platform) -> None:
        """The image is for this platform, whatever its base is for."""
        for key in ("architecture", "os", "variant"):
            self.kept.pop(key, None)
        self.kept.update(platform.document())

    def made_at(self, seconds: float) -> None:
        """A line was made at that time. So an image whose lines all come from the cache is the same image again."""
        if not self._is_fixed:
            self._created = time_text(seconds)

    # ---- what a line says -----------------------------------------------------------------------

    @property
    def env(self) -> dict[str, str]:
        return dict(entry.partition("=")[::2] for entry in self.config.get("Env") or [])

    @property
    def workdir(self) -> str:
        return self.config.get("WorkingDir") or "/"

    def set_env(self, pairs: Iterable[tuple[str, str]]) -> None:
        pairs = tuple(pairs)
        values = {**self.env, **dict(pairs)}
        self.config["Env"] = [f"{name}={value}" for name, value in values.items()]
        self.note("ENV " + " ".join(f"{name}={value}" for name, value in pairs))

    def set_labels(self, pairs: Iterable[tuple[str, str]], *, told: bool = True) -> None:
        pairs = tuple(pairs)
        self.config["Labels"] = {**(self.config.get("Labels") or {}), **dict(pairs)}
        if told:
            self.note("LABEL " + " ".join(f"{name}={value}" for name, value in pairs))

    def set_ports(self, ports: Sequence[str]) -> None:
        self.config["ExposedPorts"] = {**(self.config.get("ExposedPorts") or {}), **{port: {} for port in ports}}
        self.note(f"EXPOSE map[{' '.join(f'{port}:{{}}' for port in sorted(ports))}]")

    def set_command(self, command: Sequence[str], *, is_shell: bool) -> None:
        words = [*self.shell, *command] if is_shell else list(command)
        self.config["Cmd"] = words
        self._cmd_is_ours = True
        self.note(f"CMD {_go_quoted(words)}")

    def set_entrypoint(self, command: Sequence[str], *, is_shell: bool) -> None:
        words = [*self.shell, *command] if is_shell else list(command)
        self.config["Entrypoint"] = words
        if not self._cmd_is_ours:
            self.config.pop("Cmd", None)  # an inherited one was meant for another program
        self.note(f"ENTRYPOINT {_go_quoted(words)}")

    def set_shell(self, words: Sequence[str]) -> None:
        self.shell = tuple(words)
        self.config["Shell"] = list(words)
        self.note(f"SHELL [{' '.join(words)}]")

    def set_user(self, user: str) -> None:
        self.config["User"] = user
        self.note(f"USER {user}")

    def set_workdir(self, directory: str, *, layer: bool) -> None:
        self.config["WorkingDir"] = directory
        self.note(f"WORKDIR {directory}", layer=layer)

    def absolute(self, directory: str) -> str:
        """A path, relative to the working directory."""
        joined = posixpath.normpath(posixpath.join("/", self.workdir, directory))
        return "/" + joined.lstrip("/")

    def set_volumes(self, paths: Sequence[str]) -> None:
        self.config["Volumes"] = {**(self.config.get("Volumes") or {}), **{path: {} for path in paths}}
        self.note(f"VOLUME [{' '.join(paths)}]")

    def set_stop_signal(self, word: str) -> None:
        self.config["StopSignal"] = word
        self.note(f"STOPSIGNAL {word}")

    def set_healthcheck(self, check: dict[str, Any]) -> None:
        self.config["Healthcheck"] = check
        times = [check.get(key, 0) for key in ("Interval", "Timeout", "StartPeriod", "StartInterval")]
        told = " ".join(f'"{_go_duration(time)}"' for time in times)
        self.note(f"HEALTHCHECK &{{{_go_quoted(check['Test'])} {told} '\\x{check.get('Retries', 0):02x}'}}")

    def add_trigger(self, text: str) -> None:
        self.config["OnBuild"] = [*(self.config.get("OnBuild") or []), text]

    def take_triggers(self) -> tuple[str, ...]:
        """Return the base image's ONBUILD lines, which the new image doesn't have any more."""
        return tuple(self.config.pop("OnBuild", None) or ())

    def set_maintainer(self, name: str) -> None:
        self.author = name
        self.note(f"MAINTAINER {name}")

    def image_config(self, diff_ids: Sequence[str]) -> dict[str, Any]:
        """Return the whole image config."""
        return {
            **self.kept,
            **({"author": self.author} if self.author else {}),
            "created": self._created,
            "config": {key: value for key, value in self.config.items() if value or value == []},
            "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
            "history": self.history,
        }


def time_text(seconds: float) -> str:
    """Return a time since 1970 in RFC 3339."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _go_quoted(words: Sequence[str]) -> str:
    return f"[{' '.join(json.dumps(word, ensure_ascii=False) for word in words)}]"


def _go_duration(time_ns: int) -> str:
    """Write a duration as Go does: 1m30s."""
    if not time_ns:
        return "0s"
    seconds, rest = divmod(time_ns, 1_000_000_000)
    if not seconds:
        return f"{time_ns / 1_000_000:g}ms" if time_ns >= 1_000_000 else f"{time_ns / 1000:g}µs"
    hours, seconds = divmod(seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    fraction = f"{seconds + rest / 1e9:g}"
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{fraction}s"
