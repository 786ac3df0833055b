"""``--check``: apply the rules to a Dockerfile."""

from __future__ import annotations

import re
from posixpath import normpath

from minibox.build.dockerfile import instructions as kinds
from minibox.build.dockerfile import rules
from minibox.build.dockerfile.check_options import BUILD_ARG, CheckOptions, parse_check_options
from minibox.build.dockerfile.lines import Line, Problem
from minibox.build.dockerfile.ports import has_host_part, protocol
from minibox.build.dockerfile.rules import Finding, Rule
from minibox.build.dockerfile.scope import Scope, global_arguments
from minibox.build.dockerfile.stages import StageText, stages_of
from minibox.build.dockerfile.substitute import Expansion, Style, expand
from minibox.build.dockerfile.suggest import closest
from minibox.errors import DockerfileError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_RESERVED = ("context", "scratch")
_SECRET = re.compile(
    r"(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)", re.IGNORECASE
)
_NO_SECRET = re.compile(r"(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE)
_ONCE = (kinds.Cmd, kinds.Entrypoint, kinds.Healthcheck)
_SYSTEMS = ("linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "aix", "wasip1", "js")


def check(
    dockerfile: kinds.Dockerfile,
    *,
    build_args: Mapping[str, str],
    predefined: Mapping[str, str],
    env_of: Callable[[str], Mapping[str, str] | None],
    is_image: Callable[[str], bool],
    is_ignored: Callable[[str], bool] = lambda path: False,
) -> tuple[Finding, ...]:
    """Return what the rules find, in the order of lines.

    ``predefined`` are the arguments of the platform; ``env_of`` has an image's variables, None if it isn't known: then
    nothing in its stages counts as undefined. ``is_image`` tells whether a name can be an image's, ``is_ignored`` whether
    .dockerignore excludes a path.

    Raises:
        DockerfileError: a word can't be substituted, or the ``check`` directive is invalid.
    """
    checker = _Checker(dockerfile, check_options(dockerfile, build_args))
    checker.check_names()
    checker.check_casing()
    for instruction in dockerfile.instructions:
        checker.check_instruction(instruction)
    values = global_arguments(dockerfile, build_args, predefined)
    checker.check_bases(values, global_arguments(dockerfile, {}, predefined), is_image)
    _Stages(checker, values, build_args, env_of, is_ignored).check()
    return tuple(sorted(checker.findings, key=lambda found: (found.line, found.column, found.rule.name)))


def check_options(dockerfile: kinds.Dockerfile, build_args: Mapping[str, str]) -> CheckOptions:
    """The options for the whole Dockerfile. Raises DockerfileError."""
    text = build_args.get(BUILD_ARG, dict(dockerfile.directives).get("check", ""))
    try:
        return parse_check_options(text)
    except Problem as problem:
        line = next((i for i, text in enumerate(dockerfile.source, 1) if "check" in text), 0)
        raise DockerfileError(dockerfile.name, line, 0, problem.message, problem.hint) from None


class _Checker:
    """The rules that need only one instruction, or the names of all stages."""

    def __init__(self, dockerfile: kinds.Dockerfile, options: CheckOptions) -> None:
        self.dockerfile, self.options = dockerfile, options
        self.stages = stages_of(dockerfile)
        self.findings: list[Finding] = []

    def add(self, rule: Rule, line: Line, at: str | tuple[int, int] = "", **values: object) -> None:
        """Add a finding, unless the rule is off. ``at`` is the word to point at, or its line and column."""
        if self.options.with_comment(line.comments).applies(rule):
            place = line.find(at) if isinstance(at, str) else at
            self.findings.append(Finding(rule, rule.message.format(**values), *place, line.span.last))

    def check_names(self) -> None:
        seen: set[str] = set()
        for stage in self.stages:
            name, line = stage.head.name, stage.head.line
            if not name:
                continue
            *_, word, written = line.rest.split()
            if written != name:
                self.add(rules.STAGE_NAME_CASING, line, written, name=written)
            keyword = line.keyword
            if keyword.islower() != word.islower() or keyword.isupper() != word.isupper():
                if keyword.islower() or keyword.isupper():
                    self.add(rules.FROM_AS_CASING, line, word, word=word, keyword=keyword)
            if name in _RESERVED:
                self.add(rules.RESERVED_STAGE_NAME, line, written, name=name)
            if name in seen:
                self.add(rules.DUPLICATE_STAGE_NAME, line, written, name=name)
            seen.add(name)

    def check_casing(self) -> None:
        lines = [each.line for stage in self.stages for each in (stage.head, *stage.body)]
        lower = sum(line.keyword.islower() for line in lines)
        upper = sum(line.keyword.isupper() for line in lines)
        casing = "lowercase" if lower > upper else "uppercase"
        for line in lines:
            if not (line.keyword.islower() if lower > upper else line.keyword.isupper()):
                self.add(rules.CONSISTENT_INSTRUCTION_CASING, line, line.keyword, keyword=line.keyword, casing=casing)

    def check_instruction(self, instruction: kinds.Instruction) -> None:
        line = instruction.line
        if line.empty:
            self.add(rules.NO_EMPTY_CONTINUATION, line, (line.empty[0], 1))
        if isinstance(instruction, kinds.Maintainer):
            self.add(rules.MAINTAINER_DEPRECATED, line)
        elif isinstance(instruction, (kinds.Env, kinds.Label)) and instruction.legacy:
            self.add(rules.LEGACY_KEY_VALUE_FORMAT, line, instruction.pairs[0][0], keyword=line.keyword)
        elif isinstance(instruction, kinds.From) and instruction.name:
            self._check_description(line, "FROM", [instruction.name])
        elif isinstance(instruction, kinds.Arg):
            self._check_description(line, "ARG", [name for name, _ in instruction.pairs])

    def _check_description(self, line: Line, what: str, names: list[str]) -> None:
        if line.comments and line.comments[-1].split(" ")[0] not in names:
            name = names[0] if len(names) == 1 else "<arg_key>"
            self.add(rules.INVALID_DEFINITION_DESCRIPTION, line, what=what, name=name)

    def check_bases(
        self, values: Mapping[str, str], defaults: Mapping[str, str], is_image: Callable[[str], bool]
    ) -> None:
        for stage in self.stages:
            head = stage.head
            declared = {name for each in self.dockerfile.instructions[: self._first()] for name in _names(each)}
            words = [self._expand(head, word, values) for word in (head.image, head.platform)]
            for name in sorted((words[0].unset | words[1].unset) - declared):
                meant = _meant(name, [*declared, *values])
                self.add(rules.UNDEFINED_ARG_IN_FROM, head.line, _at(head, name), name=name, meant=meant)
            if not is_image(self._expand(head, head.image, defaults).text):
                self.add(rules.INVALID_DEFAULT_ARG_IN_FROM, head.line, head.image, image=head.image)
            if head.platform:
                self._check_platform(head, words[1], values)

    def _first(self) -> int:
        return self.dockerfile.instructions.index(self.stages[0].head)

    def _expand(self, head: kinds.From, word: str, values: Mapping[str, str]) -> Expansion:
        try:
            return expand(word, values, Style(escape=self.dockerfile.escape))
        except Problem as problem:
            raise head.line.error(self.dockerfile.name, problem) from None

    def _check_platform(self, head: kinds.From, found: Expansion, values: Mapping[str, str]) -> None:
        at = f"--platform={head.platform}"
        if found.used == {"TARGETPLATFORM"} and not found.unset and found.text == values.get("TARGETPLATFORM"):
            self.add(rules.REDUNDANT_TARGET_PLATFORM, head.line, at, platform=head.platform)
        if not found.used and not found.unset:
            words = found.text.lower().split("/")
            if len(words) == 1:
                own = (values.get("BUILDOS", "linux"), values.get("BUILDARCH", ""))
                words = [words[0], own[1]] if words[0] in _SYSTEMS else [own[0], words[0]]
            if not any(word and word in head.name for word in words[:2]):
                self.add(rules.FROM_PLATFORM_FLAG_CONST_DISALLOWED, head.line, at, platform=found.text)


class _Stages:
    """The rules that need to know what stood before: variables, the working directory, the shell."""

    def __init__(
        self,
        checker: _Checker,
        values: Mapping[str, str],
        build_args: Mapping[str, str],
        env_of: Callable[[str], Mapping[str, str] | None],
        is_ignored: Callable[[str], bool],
    ) -> None:
        self.checker, self.values, self.build_args = checker, values, build_args
        self.env_of, self.is_ignored = env_of, is_ignored
        self.scopes: dict[str, Scope] = {}
        self.facts: dict[str, tuple[bool, bool, bool]] = {}  # knows its variables, set a directory, set a shell

    def check(self) -> None:
        for stage in self.checker.stages:
            self._check_stage(stage)

    def _check_stage(self, stage: StageText) -> None:
        dockerfile = self.checker.dockerfile
        base = expand(stage.head.image, self.values, Style(escape=dockerfile.escape)).text
        parent = self.scopes.get(base.lower())
        known, directory, shell = self.facts.get(base.lower(), (True, False, False))
        env: Mapping[str, str] | None = parent.env if parent else {} if base == "scratch" else self.env_of(base)
        scope = Scope(dockerfile, self.values, self.build_args, (env or {}).items(), parent)
        known = known and env is not None
        last: dict[type[kinds.Instruction], kinds.Instruction] = {}
        for instruction in stage.body:
            self._check_repeated(instruction, last)
            resolved = scope.resolve(instruction)
            line = instruction.line
            if isinstance(resolved, kinds.Workdir):
                if not directory and not resolved.path.startswith("/"):
                    self.checker.add(rules.WORKDIR_RELATIVE_PATH, line, resolved.path, path=resolved.path)
                directory = True
            elif isinstance(resolved, kinds.Shell):
                shell = True
            elif isinstance(resolved, (kinds.Cmd, kinds.Entrypoint)):
                if resolved.command.shell and not shell:
                    self.checker.add(rules.JSON_ARGS_RECOMMENDED, line, keyword=line.keyword)
            self._check_line(instruction, resolved)
        if known:
            for instruction, name in scope.undefined:
                meant = _meant(name, scope.variables, "$")
                self.checker.add(rules.UNDEFINED_VAR, instruction.line, _at(instruction, name), name=name, meant=meant)
        if stage.head.name:
            self.scopes[stage.head.name] = scope
            self.facts[stage.head.name] = (known, directory, shell)

    def _check_repeated(
        self, instruction: kinds.Instruction, last: dict[type[kinds.Instruction], kinds.Instruction]
    ) -> None:
        if isinstance(instruction, _ONCE):
            before = last.get(type(instruction))
            if before:  # it is the one that is ignored
                keyword = instruction.line.keyword
                self.checker.add(rules.MULTIPLE_INSTRUCTIONS_DISALLOWED, before.line, keyword=keyword)
            last[type(instruction)] = instruction

    def _check_line(self, instruction: kinds.Instruction, resolved: kinds.Instruction) -> None:
        line, add = instruction.line, self.checker.add
        if isinstance(resolved, (kinds.Env, kinds.Arg)):
            for name, _ in resolved.pairs:
                if _SECRET.search(name) and not _NO_SECRET.search(name):
                    add(rules.SECRETS_USED_IN_ARG_OR_ENV, line, name, keyword=resolved.keyword, name=name)
        elif isinstance(resolved, kinds.Expose):
            for port in resolved.ports:
                if protocol(port) != protocol(port).lower():
                    add(rules.EXPOSE_PROTO_CASING, line, port, port=port)
                if has_host_part(port):
                    add(rules.EXPOSE_INVALID_FORMAT, line, port, port=port)
        elif isinstance(resolved, kinds.Add) or (isinstance(resolved, kinds.Copy) and not resolved.from_name):
            verb = "Add" if isinstance(resolved, kinds.Add) else "Copy"
            for source in resolved.sources:
                path = normpath(source).lstrip("/") or "."
                if "://" not in source and self.is_ignored(path):
                    add(rules.COPY_IGNORED_FILE, line, source, verb=verb, path=path)


def _names(instruction: kinds.Instruction) -> list[str]:
    return [name for name, _ in instruction.pairs] if isinstance(instruction, kinds.Arg) else []


def _meant(name: str, known: Iterable[str], sign: str = "") -> str:
    best = closest(name, known)
    return f" (did you mean {sign}{best}?)" if best else ""


def _at(instruction: kinds.Instruction, name: str) -> tuple[int, int]:
    """Where an instruction uses a variable: in its line, else in its heredocs, else where it begins."""
    use = re.compile(rf"\$(?:{re.escape(name)}(?!\w)|\{{{re.escape(name)}(?!\w))")
    found = use.search(instruction.line.text)
    return instruction.line.position(found.start() if found else 0)
