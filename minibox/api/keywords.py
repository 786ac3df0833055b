"""Types of the keywords of `run`, `Sandbox.run`, `Sandbox.popen` and their `minibox.aio` versions; for type checkers only.

Each function has three sets of keywords, by the type of its streams: ``AsText``, ``AsBytes``, and ``AsGiven`` for
all other calls. The functions themselves document the keywords.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal, Required, TypedDict

from minibox.api.options import ContainerOptions
from minibox.api.process import Stream


class CommandOptions(TypedDict, total=False):
    """Options of a command in a sandbox. ``env`` adds variables; what isn't given is taken from the sandbox."""

    env: Mapping[str, str] | None
    cwd: str | os.PathLike[str] | None
    user: str | int | None


class Waited(TypedDict, total=False):
    stdin: Stream
    timeout: float | None
    check: bool


class AsText(Waited, total=False):
    input: str | None
    capture_output: Required[Literal[True]]
    text: Required[Literal[True]]
    encoding: str | None
    errors: str | None


class AsBytes(Waited, total=False):
    input: bytes | None
    capture_output: Required[Literal[True]]
    text: Literal[False] | None


class AsGiven(Waited, total=False):
    input: str | bytes | None
    stdout: Stream
    stderr: Stream
    capture_output: bool
    text: bool | None
    encoding: str | None
    errors: str | None


class RunAsText(AsText, ContainerOptions, total=False): ...


class RunAsBytes(AsBytes, ContainerOptions, total=False): ...


class RunAsGiven(AsGiven, ContainerOptions, total=False): ...


class CommandAsText(AsText, CommandOptions, total=False): ...


class CommandAsBytes(AsBytes, CommandOptions, total=False): ...


class CommandAsGiven(AsGiven, CommandOptions, total=False): ...


class Opened(CommandOptions, total=False):
    stdin: Stream
    stdout: Stream
    stderr: Stream
    bufsize: int


class PopenAsText(Opened, total=False):
    text: Required[Literal[True]]
    encoding: str | None
    errors: str | None


class PopenAsBytes(Opened, total=False):
    text: Literal[False] | None


class PopenAsGiven(Opened, total=False):
    text: bool | None
    encoding: str | None
    errors: str | None
