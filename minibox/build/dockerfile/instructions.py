"""The kinds of instructions, as records of what was written. Words are as written, before variables are substituted.

`minibox.build.dockerfile.expand` gives the same records with substituted words.
"""

from __future__ import annotations

from minibox.build.dockerfile.heredocs import Heredoc, heredoc_of
from minibox.build.dockerfile.lines import Line, Problem, Span
from minibox.build.dockerfile.mounts import Mount
from minibox.build.dockerfile.suggest import did_you_mean
from minibox.record import record

NETWORKS = ("default", "none", "host")
SECURITIES = ("sandbox", "insecure")


@record
class Command:
    """A command: ``shell`` for a text that the shell gets, which is then the only word; else the words of an argv."""

    words: tuple[str, ...]
    shell: bool


class Instruction:
    """What all kinds have: ``line``, where and how it was written."""

    line: Line

    @property
    def span(self) -> Span:
        """The first and last line of the file that belong to it, heredocs included."""
        return self.line.span

    @property
    def text(self) -> str:
        """The instruction as written, in one line, without heredocs."""
        return self.line.text

    @property
    def keyword(self) -> str:
        """The kind, in capitals."""
        return type(self).__name__.upper()


@record
class From(Instruction):
    """``FROM [--platform=P] IMAGE [AS NAME]``. ``name`` is in lower case, "" without one; ``platform`` likewise."""

    line: Line
    image: str
    name: str = ""
    platform: str = ""


@record
class Run(Instruction):
    """``RUN``. ``mount_flags`` are the values of --mount as written; ``mounts`` is empty until they are substituted."""

    line: Line
    command: Command
    heredocs: tuple[Heredoc, ...] = ()
    mount_flags: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    network: str = NETWORKS[0]
    security: str = SECURITIES[0]
    devices: tuple[str, ...] = ()

    def check_choices(self) -> None:
        """Refuse an unknown network or security; one with a variable is checked after that is substituted."""
        for name, value, known in (("network", self.network, NETWORKS), ("security", self.security, SECURITIES)):
            if value not in known and "$" not in value:
                raise Problem(f"unknown --{name} {value!r} of RUN", did_you_mean(value, known), at=f"--{name}={value}")

    @property
    def script(self) -> Heredoc | None:
        """The heredoc to run as a program of its own: the only word is a heredoc, and that begins with ``#!``."""
        alone = self._alone
        return alone if alone and alone.text.startswith("#!") else None

    @property
    def shell_text(self) -> str:
        """What the shell gets, for a command in shell form: the heredoc if that is all, else the line with its heredocs."""
        if self._alone:
            return self._alone.text
        return "".join([self.command.words[0], *(f"\n{each.content}{each.name}" for each in self.heredocs)])

    @property
    def _alone(self) -> Heredoc | None:
        alone = self.command.shell and self.heredocs and heredoc_of(self.command.words[0])
        return self.heredocs[0] if alone else None


@record
class Copy(Instruction):
    """``COPY``. ``from_name`` is a stage's name or number, an image or a named context; "" is the context.

    Sources that are heredocs are in ``heredocs``, the others in ``sources``. ``chmod`` is octal or symbolic.
    """

    line: Line
    sources: tuple[str, ...]
    destination: str
    heredocs: tuple[Heredoc, ...] = ()
    from_name: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()


@record
class Add(Instruction):
    """``ADD``. ``unpack`` is None unless said: then local archives are unpacked, and downloaded ones are not."""

    line: Line
    sources: tuple[str, ...]
    destination: str
    heredocs: tuple[Heredoc, ...] = ()
    checksum: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    keep_git_dir: bool | None = None
    unpack: bool | None = None
    exclude: tuple[str, ...] = ()


@record
class Env(Instruction):
    """``ENV``: names and values. ``legacy``: it was written ``ENV NAME VALUE``."""

    line: Line
    pairs: tuple[tuple[str, str], ...]
    legacy: bool = False


@record
class Label(Instruction):
    """``LABEL``: names and values. ``legacy``: it was written ``LABEL NAME VALUE``."""

    line: Line
    pairs: tuple[tuple[str, str], ...]
    legacy: bool = False


@record
class Arg(Instruction):
    """``ARG``: names and their defaults, None without one."""

    line: Line
    pairs: tuple[tuple[str, str | None], ...]


@record
class Cmd(Instruction):
    """``CMD``."""

    line: Line
    command: Command


@record
class Entrypoint(Instruction):
    """``ENTRYPOINT``."""

    line: Line
    command: Command


@record
class Shell(Instruction):
    """``SHELL``: the words before a command in shell form."""

    line: Line
    words: tuple[str, ...]


@record
class User(Instruction):
    """``USER``."""

    line: Line
    user: str


@record
class Workdir(Instruction):
    """``WORKDIR``."""

    line: Line
    path: str


@record
class Volume(Instruction):
    """``VOLUME``."""

    line: Line
    paths: tuple[str, ...]


@record
class Expose(Instruction):
    """``EXPOSE``: ports as written, such as ``80``, ``53/udp`` or ``8000-8010``."""

    line: Line
    ports: tuple[str, ...]


@record
class Stopsignal(Instruction):
    """``STOPSIGNAL``."""

    line: Line
    signal: str


@record
class Healthcheck(Instruction):
    """``HEALTHCHECK``; ``command`` is None for NONE. Times are in nanoseconds; 0 is the default."""

    line: Line
    command: Command | None
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@record
class Onbuild(Instruction):
    """``ONBUILD``: ``trigger`` is the text for the image's config, heredocs included; `parse_trigger` reads it again."""

    line: Line
    trigger: str
    instruction: Instruction


@record
class Maintainer(Instruction):
    """``MAINTAINER``: the image's author."""

    line: Line
    author: str


@record
class Dockerfile:
    """A parsed Dockerfile. ``directives`` has those that were given; ``source`` is its text, line by line."""

    name: str
    directives: tuple[tuple[str, str], ...]
    instructions: tuple[Instruction, ...]
    source: tuple[str, ...]

    @property
    def escape(self) -> str:
        """The escape character."""
        return dict(self.directives).get("escape", "\\")
