"""ARG and ENV: which variables have which values where.

An ARG before the first FROM counts in FROM, and in a stage that repeats it without a default. Within a stage, ARG and
ENV count from their line on, the later one wins; a stage FROM a stage begins with what that had at its end. The image
keeps only ENV.
"""

from __future__ import annotations

from minibox.build.dockerfile import instructions as kinds
from minibox.build.dockerfile.expand import Substitution, expand_instruction
from minibox.build.dockerfile.lines import Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def global_arguments(
    dockerfile: kinds.Dockerfile, build_args: Mapping[str, str], predefined: Mapping[str, str]
) -> dict[str, str]:
    """The variables that FROM can use: the ``predefined`` ones, and each ARG before the first FROM that has a value.

    Raises:
        DockerfileError: a default can't be substituted.
    """
    values = {name: build_args.get(name, value) for name, value in predefined.items()}
    for instruction in dockerfile.instructions:
        if not isinstance(instruction, kinds.Arg):
            break
        for name, default in instruction.pairs:
            try:
                value = default if default is None else Substitution(values, dockerfile.escape).text(default)
            except Problem as problem:
                raise instruction.line.error(dockerfile.name, problem) from None
            value = build_args.get(name, value)
            if value is not None:
                values[name] = value
    return values


def proxies(build_args: Mapping[str, str]) -> dict[str, str]:
    """What RUN gets of --build-arg without an ARG: the proxies, in capitals and not. They are no part of any cache key."""
    found = {}
    for name, value in build_args.items():
        if name.upper() in PROXIES:
            found[name.upper()] = found[name.lower()] = value
    return found


class Scope:
    """The variables of a stage, at one of its lines.

    Attributes:
        variables: what can be substituted, and what RUN gets, besides the proxies: ARG and ENV.
        env: what the image keeps.
        arguments: each ARG up to here, with its value; None if it has none.
        undefined: each instruction that used a variable that neither ARG nor ENV sets, with its name.
    """

    def __init__(
        self,
        dockerfile: kinds.Dockerfile,
        global_values: Mapping[str, str],
        build_args: Mapping[str, str],
        env: Iterable[tuple[str, str]],
        parent: Scope | None = None,
    ) -> None:
        """``env`` is what the base image, or the parent stage's image, has. ``parent``: the end of the stage FROM which
        this one is.
        """
        self.name, self.escape = dockerfile.name, dockerfile.escape
        self._globals, self._build_args = global_values, build_args
        self.env = dict(env)
        self.env.setdefault("PATH", DEFAULT_PATH)
        self.variables: dict[str, str] = {**parent.variables, **self.env} if parent else dict(self.env)
        self.arguments: dict[str, str | None] = dict(parent.arguments) if parent else {}
        self.undefined: list[tuple[kinds.Instruction, str]] = []

    def resolve(self, instruction: kinds.Instruction) -> kinds.Instruction:
        """Substitute the variables in an instruction, and take over what it sets.

        Raises:
            DockerfileError: a word can't be substituted, or what results is invalid.
        """
        try:
            if isinstance(instruction, kinds.Arg):
                return self._argument(instruction)
            by = Substitution(self.variables, self.escape)
            result = expand_instruction(instruction, by)
        except Problem as problem:
            raise instruction.line.error(self.name, problem) from None
        self._note(instruction, by)
        if isinstance(result, kinds.Env):
            self.env.update(result.pairs)
            self.variables.update(result.pairs)
        return result

    def _argument(self, instruction: kinds.Arg) -> kinds.Arg:
        found: list[tuple[str, str | None]] = []
        for name, default in instruction.pairs:
            value = self._build_args.get(name)
            if value is None and default is not None:
                by = Substitution(self.variables, self.escape)
                value = by.text(default)
                self._note(instruction, by)
            elif value is None:
                value = self._globals.get(name)
            if value is not None:
                self.variables[name] = value
            self.arguments[name] = value
            found.append((name, value))
        return kinds.Arg(instruction.line, tuple(found))

    def _note(self, instruction: kinds.Instruction, by: Substitution) -> None:
        self.undefined += [(instruction, name) for name in sorted(by.unset) if name not in self.arguments]
