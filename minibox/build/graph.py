"""The graph of stages: what each is based on and reads from, and which ones a target needs.

A name means, in this order: an earlier stage, a named context, an image. A named context with the name of a stage
replaces the stage.
"""

from __future__ import annotations

from minibox.build.dockerfile import instructions as kinds
from minibox.build.dockerfile.lines import Problem
from minibox.build.dockerfile.numbers import number_of
from minibox.build.dockerfile.parser import parse_trigger
from minibox.build.dockerfile.scope import PROXIES, Scope, global_arguments
from minibox.build.dockerfile.stages import StageText, references, stages_of
from minibox.build.dockerfile.substitute import Style, expand
from minibox.build.dockerfile.suggest import closest, did_you_mean
from minibox.errors import DockerfileError, MiniboxError
from minibox.image import reference
from minibox.image.platform import Platform, host_platform, parse_platform
from minibox.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

SCRATCH = "scratch"
FRONTENDS = ("docker/dockerfile:", "docker/dockerfile-upstream:")
_NEVER_CONTEXTS = (SCRATCH, "context")  # names that --build-context can't take over, as in Docker


@record
class Origin:
    """Where files come from: ``kind`` is "stage", "image", "context" or "scratch".

    ``name`` is the stage's label, the image's reference as written or the context's name; ``stage`` the stage's index.
    """

    kind: str
    name: str
    stage: int | None = None


@record
class Stage:
    """A stage to build. ``reads`` has for each name in its lines what it means; ``platform`` is None for the target's."""

    index: int
    name: str
    base: Origin
    head: kinds.From
    instructions: tuple[kinds.Instruction, ...]
    reads: tuple[tuple[str, Origin], ...] = ()
    platform: Platform | None = None

    @property
    def label(self) -> str:
        """How to call it: its name, else its number."""
        return self.name or str(self.index)

    @property
    def needs(self) -> tuple[int, ...]:
        """The indexes of the stages that must be built before it."""
        origins = (self.base, *(origin for _, origin in self.reads))
        return tuple(dict.fromkeys(origin.stage for origin in origins if origin.stage is not None))

    def origin(self, name: str) -> Origin:
        """What a name in its lines, from COPY --from or RUN --mount, means."""
        return dict(self.reads)[name]


class Graph:
    """All stages of a Dockerfile.

    Attributes:
        stages: by index.
        target: the index of the stage to build.
        globals: the values that FROM could use; a `Scope` needs them.
    """

    def __init__(
        self,
        dockerfile: kinds.Dockerfile,
        *,
        target: str = "",
        build_args: Mapping[str, str] | None = None,
        contexts: Collection[str] = (),
        platform: Platform | None = None,
        build_platform: Platform | None = None,
    ) -> None:
        """``target`` is a stage's name or number, "" for the last; ``contexts`` are the names of --build-context.

        Raises:
            DockerfileError: a stage doesn't exist, a FROM can't be substituted, or stages need each other.
        """
        self.dockerfile = dockerfile
        self.build_args = dict(build_args or {})
        self._contexts = {_familiar(name): name for name in contexts if name.lower() not in _NEVER_CONTEXTS}
        self._texts = stages_of(dockerfile)
        self.target = self._find_target(target)
        host = build_platform or host_platform()
        self._predefined = predefined_arguments(host, platform or host, target or self._texts[-1].head.name)
        self.globals = global_arguments(dockerfile, self.build_args, self._predefined)
        self.stages: list[Stage] = []
        for text in self._texts:
            self.stages.append(self._stage(text))

    def needed(self) -> tuple[Stage, ...]:
        """The stages that the target needs, each after all that it needs itself."""
        return self.needed_by(self.target)

    def needed_by(self, index: int) -> tuple[Stage, ...]:
        """The stages that one stage needs, and that stage, in order: a stage can only need earlier ones."""
        found, todo = set(), [index]
        while todo:
            if (each := todo.pop()) not in found:
                found.add(each)
                todo += self.stages[each].needs
        return tuple(self.stages[each] for each in sorted(found))

    def scope(self, stage: Stage, env: Iterable[tuple[str, str]], parent: Scope | None = None) -> Scope:
        """The variables at the beginning of a stage; ``env`` is its base's, ``parent`` the end of its base stage."""
        return Scope(self.dockerfile, self.globals, self.build_args, env, parent)

    def notices(self) -> list[str]:
        """What a user should know of the Dockerfile before it is built: what is in it, but has no effect."""
        found = []
        syntax = dict(self.dockerfile.directives).get("syntax", "").split(" ")[0]
        if syntax and not f"{_familiar(syntax.partition('@')[0])}:".startswith(FRONTENDS):
            found.append(f"{self.dockerfile.name}: syntax={syntax} has no effect: minibox reads Docker's own language")
        declared = {name for each in self.dockerfile.instructions for name in _declared(each)}
        for name in self.build_args:
            if name not in declared and name.upper() not in PROXIES and name not in self._predefined:
                if not name.startswith("BUILDKIT_") and name != "SOURCE_DATE_EPOCH":
                    hint = did_you_mean(name, declared) if closest(name, declared) else f"no ARG {name} takes it"
                    found.append(f"--build-arg {name} has no effect: {hint}")
        return found

    def add_triggers(self, index: int, triggers: Iterable[str]) -> Stage:
        """Put the ONBUILD triggers of its base image before a stage's own instructions.

        The stage that results is in ``stages``, too; see `needed` for the stages that it needs now.

        Raises:
            DockerfileError: a trigger is invalid, or reads from a stage that isn't earlier.
        """
        stage = self.stages[index]
        parsed = tuple(parse_trigger(text, stage.head.line, self.dockerfile.name) for text in triggers)
        reads = dict(self._reads(index, parsed)) | dict(stage.reads)
        stage = replace(stage, instructions=(*parsed, *stage.instructions), reads=tuple(reads.items()))
        self.stages[index] = stage
        return stage

    def _find_target(self, target: str) -> int:
        if not target:
            return len(self._texts) - 1
        for text in reversed(self._texts):
            if text.head.name == target.lower():
                return text.index
        number = number_of(target, len(self._texts))
        if number is not None:
            return number
        names = [text.label for text in self._texts]
        raise DockerfileError(self.dockerfile.name, 0, 0, f"it has no stage {target!r}", did_you_mean(target, names))

    def _stage(self, text: StageText) -> Stage:
        head = text.head
        if head.name and _familiar(head.name) in self._contexts:
            return Stage(text.index, head.name, Origin("context", self._contexts[_familiar(head.name)]), head, ())
        image = self._substituted(head, head.image, "the image")
        base = self._origin(text.index, image, head, is_base=True)
        platform = None
        if head.platform:
            try:
                platform = parse_platform(self._substituted(head, head.platform, "the platform"))
            except MiniboxError as error:
                if isinstance(error, DockerfileError):
                    raise
                raise self._error(head, str(error), error.hint, head.platform) from None
        body = text.body
        if base.stage is not None:
            body = (*self._inherited(base.stage, head), *body)
            platform = platform or self.stages[base.stage].platform
        return Stage(text.index, head.name, base, head, body, self._reads(text.index, body), platform)

    def _inherited(self, parent: int, head: kinds.From) -> list[kinds.Instruction]:
        """What the stage FROM which another is wants to be done there: its ONBUILD instructions."""
        own = (each for each in self.stages[parent].instructions if isinstance(each, kinds.Onbuild))
        return [parse_trigger(each.trigger, head.line, self.dockerfile.name) for each in own]

    def _substituted(self, head: kinds.From, word: str, what: str) -> str:
        try:
            expansion = expand(word, self.globals, Style(escape=self.dockerfile.escape))
        except Problem as problem:
            raise head.line.error(self.dockerfile.name, problem) from None
        if expansion.text:
            return expansion.text
        hint = None
        if expansion.unset:
            name = min(expansion.unset)
            hint = f"give {name} a value: ARG {name}=VALUE before the first FROM, or --build-arg {name}=VALUE"
        raise self._error(head, f"{what} in FROM is empty: {word}", hint, word)

    def _reads(self, index: int, body: Iterable[kinds.Instruction]) -> tuple[tuple[str, Origin], ...]:
        return tuple({name: self._origin(index, name, each) for each in body for name in references(each)}.items())

    def _origin(self, index: int, name: str, where: kinds.Instruction, *, is_base: bool = False) -> Origin:
        """What a name means in a stage; ``is_base``: in its FROM, where a number is an image, as is the name of a later
        stage.
        """
        for text in reversed(self._texts[:index]):
            if text.head.name == name.lower():
                return Origin("stage", text.label, text.index)
        if not is_base:
            self._refuse_later(index, name, where)
            if (number := number_of(name, index)) is not None:
                return Origin("stage", self._texts[number].label, number)
        if name == SCRATCH:
            return Origin("scratch", name)
        if context := self._contexts.get(_familiar(name)):
            return Origin("context", context)
        try:
            reference.parse(name)
        except MiniboxError as error:
            raise self._error(where, f"{name!r} is neither a stage nor an image: {error}", error.hint, name) from None
        return Origin("image", name)

    def _refuse_later(self, index: int, name: str, where: kinds.Instruction) -> None:
        """Refuse the stage itself, a later one, and a number that no stage has."""
        for text in self._texts[index:]:
            if name.lower() != text.head.name and number_of(name, len(self._texts)) != text.index:
                continue
            if circle := self._circle(index, text.index):
                raise self._error(
                    where, f"stages need each other: {' -> '.join(circle)}", "copy in one direction", name
                )
            own = self._texts[index].label
            hint = f"move it before stage {own!r}"
            raise self._error(where, f"stage {text.label!r} is defined after stage {own!r}, which reads it", hint, name)
        if name.isascii() and name.isdigit() and number_of(name, index) is None:
            raise self._error(where, f"there is no stage {name}", f"the last one is {len(self._texts) - 1}", name)

    def _circle(self, index: int, later: int) -> list[str]:
        """The labels of stages from one over a ``later`` one back to it, or none if that doesn't need it."""
        paths, seen = [[index, later]], {later}
        while paths:
            path = paths.pop(0)
            if path[-1] == index:
                return [self._texts[each].label for each in path]
            for following in self._named(path[-1]):
                if following not in seen:
                    seen.add(following)
                    paths.append([*path, following])
        return []

    def _named(self, index: int) -> list[int]:
        """The indexes of all stages that a stage's text names."""
        text = self._texts[index]
        names = {name.lower() for each in text.body for name in references(each)}
        named = [other.index for other in self._texts if other.head.name in names or str(other.index) in names]
        base = [other.index for other in self._texts[:index] if other.head.name == text.head.image.lower()]
        return named + base[-1:]

    def _error(self, where: kinds.Instruction, reason: str, hint: str | None, at: str) -> DockerfileError:
        return where.line.error(self.dockerfile.name, Problem(reason, hint, at))


def plan(
    dockerfile: kinds.Dockerfile,
    *,
    target: str = "",
    build_args: Mapping[str, str] | None = None,
    contexts: Collection[str] = (),
    platform: Platform | None = None,
) -> tuple[Stage, ...]:
    """The stages that a target needs, each after all that it needs itself; see `Graph`."""
    graph = Graph(dockerfile, target=target, build_args=build_args, contexts=contexts, platform=platform)
    return graph.needed()


def predefined_arguments(build: Platform, target: Platform, stage: str) -> dict[str, str]:
    """The ARGs that exist without a line: the platform the build runs on, the one it is for, and the target's name."""
    values = {}
    for prefix, platform in (("BUILD", build), ("TARGET", target)):
        values[f"{prefix}PLATFORM"] = str(platform)
        values[f"{prefix}OS"] = platform.os
        values[f"{prefix}ARCH"] = platform.architecture
        values[f"{prefix}VARIANT"] = platform.variant
    return {**values, "TARGETSTAGE": stage or "default"}


def _declared(instruction: kinds.Instruction) -> list[str]:
    """The names of an ARG, also of one in a trigger."""
    if isinstance(instruction, kinds.Onbuild):
        instruction = instruction.instruction
    return [name for name, _ in instruction.pairs] if isinstance(instruction, kinds.Arg) else []


def _familiar(name: str) -> str:
    """An image's name as users write it, without ":latest"; other names as they are."""
    try:
        return reference.parse(name).familiar.removesuffix(":latest")
    except MiniboxError:
        return name.lower()
