"""From the text of a Dockerfile to its instructions.

Source: the Dockerfile reference of frontend 1.20. Variables are left as they are; see `expand`.
"""

from __future__ import annotations

import re

from minibox.base.values import parse_duration_ns
from minibox.build.dockerfile import instructions as kinds
from minibox.build.dockerfile.chmod import parse_chmod
from minibox.build.dockerfile.heredocs import Heredoc, heredoc_of, heredocs_in
from minibox.build.dockerfile.lines import SPACES, Line, Problem, Source
from minibox.build.dockerfile.mounts import fields_of, from_of, parse_mount
from minibox.build.dockerfile.numbers import number_of
from minibox.build.dockerfile.suggest import did_you_mean
from minibox.build.dockerfile.words import BLANKS, Flags, json_list, pairs, quoted_words, split, split_flags
from minibox.errors import DockerfileError
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*\Z")
_HEREDOCS = ("RUN", "COPY", "ADD")
_TIMES = ("interval", "timeout", "start-period", "start-interval")
_LEAST_NS = 10**6  # Docker refuses a shorter time of a health check


@record
class Args:
    """The arguments of one instruction: ``flags``, what follows them, and the heredocs with their content."""

    line: Line
    flags: list[str]
    rest: str
    heredocs: tuple[Heredoc, ...]
    escape: str

    @property
    def keyword(self) -> str:
        """The kind, in capitals."""
        return self.line.keyword.upper()

    def read_flags(self, *texts: str, several: tuple[str, ...] = (), switches: tuple[str, ...] = ()) -> Flags:
        """Read the flags: those with one text, those that may be there ``several`` times, and those without a value."""
        kinds_of = dict.fromkeys(texts, "text") | dict.fromkeys(several, "texts") | dict.fromkeys(switches, "switch")
        return Flags(self.keyword, self.flags, kinds_of)


def parse(text: bytes | str, name: str = "Dockerfile") -> kinds.Dockerfile:
    """Parse a Dockerfile. Bytes that aren't UTF-8 are kept, as surrogates; ``name`` is for errors.

    Raises:
        DockerfileError: a mistake, with its line, its column and what was meant.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if "\0" in text:
        number = text.count("\n", 0, text.index("\0")) + 1
        raise DockerfileError(name, number, 0, "it has a NUL byte, so it is no text", "save it as UTF-8")
    source = Source(text.removeprefix("\ufeff"), name)
    found = []
    for line, contents in source.instructions(lambda line: _heredoc_ends(line, source.name)):
        found.append(_parse_line(line, contents, source.escape, name))
    if not found:
        raise DockerfileError(name, 0, 0, "it has no instructions", "begin with FROM IMAGE")
    _check_order(found, name)
    return kinds.Dockerfile(name, tuple(source.directives.items()), tuple(found), tuple(source.raw))


def parse_trigger(trigger: str, line: Line, name: str) -> kinds.Instruction:
    """Parse a trigger of ONBUILD, which runs at ``line``, the FROM of the stage that inherits it.

    Raises:
        DockerfileError: a mistake in it, or an instruction that can't be a trigger.
    """
    try:
        found = list(Source(trigger, name).instructions(lambda each: _heredoc_ends(each, name)))
        if len(found) != 1:
            raise Problem("it isn't one instruction")
        parsed = _parse(*found[0], "\\")
        _check_trigger(parsed.keyword)
    except (DockerfileError, Problem) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise DockerfileError(
            name, *line.find(""), f"the base image's ONBUILD {trigger!r}: {reason}", error.hint
        ) from None
    fields = {field: getattr(parsed, field) for field in type(parsed).__annotations__}
    fields["line"] = Line(parsed.line.keyword, parsed.line.text, line.span, ())
    return type(parsed)(**fields)


def _heredoc_ends(line: Line, name: str) -> list[tuple[str, bool]]:
    """The words that end the heredocs of a line, and whether tabs before them are dropped."""
    try:
        return [(each.name, each.chomp) for each in _heredocs(line)]
    except Problem as problem:
        raise line.error(name, problem) from None


def _heredocs(line: Line) -> tuple[Heredoc, ...]:
    if "<<" not in line.text:
        return ()
    keyword, rest = line.keyword, line.rest
    if keyword.upper() == "ONBUILD":
        keyword, rest = _first_word(rest)
    if keyword.upper() not in _HEREDOCS or json_list(split_flags(rest)[1]) is not None:
        return ()
    return heredocs_in(line.text)


def _first_word(rest: str) -> tuple[str, str]:
    """The first word, and what follows it."""
    word, *more = BLANKS.split(rest, maxsplit=1)
    return word, more[0] if more else ""


def _parse_line(line: Line, contents: tuple[str, ...], escape: str, name: str) -> kinds.Instruction:
    try:
        return _parse(line, contents, escape)
    except Problem as problem:
        raise line.error(name, problem) from None


def _parse(line: Line, contents: tuple[str, ...], escape: str) -> kinds.Instruction:
    keyword = line.keyword.upper()
    parser = _PARSERS.get(keyword)
    if parser is None:
        if not keyword:
            raise Problem("a line is continued, but nothing follows", "remove the escape at its end")
        hint = did_you_mean(keyword, _PARSERS)
        raise Problem(f"unknown instruction {line.keyword!r}", hint, at=line.keyword)
    flags, rest = split_flags(line.rest)
    heredocs = tuple(
        Heredoc(each.name, content, each.expand, each.chomp) for each, content in zip(_heredocs(line), contents)
    )
    return parser(Args(line, flags, rest.strip(SPACES), heredocs, escape))


def _check_order(found: list[kinds.Instruction], name: str) -> None:
    """Before the first FROM, there is only ARG."""
    for each in found:
        if isinstance(each, kinds.From):
            return
        if not isinstance(each, kinds.Arg):
            problem = Problem(
                f"{each.keyword} stands before the first FROM", "begin with FROM IMAGE; only ARG may precede"
            )
            raise each.line.error(name, problem)
    raise DockerfileError(name, 0, 0, "it has no FROM", "add FROM IMAGE")


def _one_argument(args: Args, example: str) -> str:
    args.read_flags()
    if not args.rest:
        raise Problem(f"{args.keyword} needs an argument", f"write {args.keyword} {example}")
    return args.rest


def _from(args: Args) -> kinds.From:
    flags = args.read_flags("platform")
    words = split(args.rest)
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].lower() != "as"):
        hint = "write FROM IMAGE or FROM IMAGE AS NAME"
        raise Problem(
            f"FROM takes an image, and a name after AS, not {args.rest!r}", hint, at=words[1] if words[1:] else ""
        )
    name = words[2].lower() if len(words) == 3 else ""
    if name and not _STAGE_NAME.match(name):
        hint = "begin it with a letter; letters, digits, -, _ and . may follow"
        raise Problem(f"invalid stage name {words[2]!r}", hint, at=words[2])
    return kinds.From(args.line, words[0], name, flags.text("platform"))


def _command(args: Args) -> kinds.Command:
    words = json_list(args.rest)
    return kinds.Command((args.rest,), shell=True) if words is None else kinds.Command(words, shell=False)


def _run(args: Args) -> kinds.Run:
    flags = args.read_flags("network", "security", several=("mount", "device"))
    command = _command(args)
    if not any(command.words):
        raise Problem("RUN needs a command", 'write RUN COMMAND, or RUN ["PROGRAM", "ARGUMENT"]')
    for mount in flags.all("mount"):
        if "$" in mount:
            fields_of(mount)
            from_of(mount)
        else:
            parse_mount(mount, str)
    run = kinds.Run(
        args.line,
        command,
        args.heredocs,
        flags.all("mount"),
        network=flags.text("network", kinds.NETWORKS[0]),
        security=flags.text("security", kinds.SECURITIES[0]),
        devices=flags.all("device"),
    )
    run.check_choices()
    return run


def _sources(args: Args) -> tuple[tuple[str, ...], str, tuple[Heredoc, ...]]:
    listed = json_list(args.rest)
    words = split(args.rest) if listed is None else listed
    if len(words) < 2:
        what = "a source and a destination" if not words else "a destination after the source"
        raise Problem(f"{args.keyword} needs {what}", f"write {args.keyword} SOURCE... DESTINATION", at=args.rest)
    *sources, destination = words
    contents = {each.name: each for each in args.heredocs}
    heredocs, others = [], []
    for word in sources:
        begun = heredoc_of(word) if listed is None else None
        if begun:
            heredocs.append(contents.get(begun.name, begun))
        else:
            others.append(word)
    if len(heredocs) < len(args.heredocs) and not (listed is None and heredoc_of(destination)):
        hint = "write <<WORD without a space, and without one in WORD"
        raise Problem(f"a heredoc of {args.keyword} has a space in its word, or before it", hint, at="<<")
    if listed is None and heredoc_of(destination):
        raise Problem(f"{args.keyword} can't have a heredoc as the destination", "add a path after it", at=destination)
    return tuple(others), destination, tuple(heredocs)


def _checked_chmod(flags: Flags) -> str:
    chmod = flags.text("chmod")
    if chmod and "$" not in chmod:
        parse_chmod(chmod)
    return chmod


def _copy(args: Args) -> kinds.Copy:
    flags = args.read_flags("from", "chown", "chmod", several=("exclude",), switches=("link", "parents"))
    from_name = flags.text("from")
    if "$" in from_name[:-1]:
        hint = "define a stage with FROM and that variable, and name the stage"
        raise Problem(f"--from={from_name} can't use a variable", hint, at=f"--from={from_name}")
    return kinds.Copy(
        args.line,
        *_sources(args),
        from_name=from_name,
        chown=flags.text("chown"),
        chmod=_checked_chmod(flags),
        link=bool(flags.switch("link")),
        parents=bool(flags.switch("parents")),
        exclude=flags.all("exclude"),
    )


def _add(args: Args) -> kinds.Add:
    switches = ("link", "keep-git-dir", "unpack")
    flags = args.read_flags("checksum", "chown", "chmod", several=("exclude",), switches=switches)
    return kinds.Add(
        args.line,
        *_sources(args),
        checksum=flags.text("checksum"),
        chown=flags.text("chown"),
        chmod=_checked_chmod(flags),
        link=bool(flags.switch("link")),
        keep_git_dir=flags.switch("keep-git-dir"),
        unpack=flags.switch("unpack"),
        exclude=flags.all("exclude"),
    )


def _env(args: Args) -> kinds.Env:
    args.read_flags()
    return kinds.Env(args.line, *pairs(args.rest, "ENV", args.escape))


def _label(args: Args) -> kinds.Label:
    args.read_flags()
    return kinds.Label(args.line, *pairs(args.rest, "LABEL", args.escape))


def _arg(args: Args) -> kinds.Arg:
    args.read_flags()
    found: list[tuple[str, str | None]] = []
    for word in quoted_words(args.rest, args.escape):
        name, equals, value = word.partition("=")
        if not name:
            raise Problem(f"{word!r} in ARG has no name", "write ARG NAME=DEFAULT", at=word)
        found.append((name, value if equals else None))
    if not found:
        raise Problem("ARG needs a name", "write ARG NAME or ARG NAME=DEFAULT")
    return kinds.Arg(args.line, tuple(found))


def _cmd(args: Args) -> kinds.Cmd:
    args.read_flags()
    return kinds.Cmd(args.line, _command(args))


def _entrypoint(args: Args) -> kinds.Entrypoint:
    args.read_flags()
    return kinds.Entrypoint(args.line, _command(args))


def _shell(args: Args) -> kinds.Shell:
    args.read_flags()
    words = json_list(args.rest)
    if not words:
        raise Problem("SHELL needs a JSON list of words", 'write SHELL ["/bin/bash", "-c"]', at=args.rest)
    return kinds.Shell(args.line, words)


def _user(args: Args) -> kinds.User:
    return kinds.User(args.line, _one_argument(args, "NAME"))


def _workdir(args: Args) -> kinds.Workdir:
    return kinds.Workdir(args.line, _one_argument(args, "/PATH"))


def _stopsignal(args: Args) -> kinds.Stopsignal:
    return kinds.Stopsignal(args.line, _one_argument(args, "SIGTERM"))


def _maintainer(args: Args) -> kinds.Maintainer:
    return kinds.Maintainer(args.line, _one_argument(args, "NAME"))


def _volume(args: Args) -> kinds.Volume:
    args.read_flags()
    listed = json_list(args.rest)
    paths = tuple(path.strip(SPACES) for path in (split(args.rest) if listed is None else listed))
    if not all(paths) or not paths:
        raise Problem("VOLUME needs a path", "write VOLUME /PATH")
    return kinds.Volume(args.line, paths)


def _expose(args: Args) -> kinds.Expose:
    args.read_flags()
    if not args.rest:
        raise Problem("EXPOSE needs a port", "write EXPOSE 80 or EXPOSE 53/udp")
    return kinds.Expose(args.line, split(args.rest))


def _healthcheck(args: Args) -> kinds.Healthcheck:
    kind, rest = _first_word(args.rest)
    if kind.upper() == "NONE":
        args.read_flags()
        if rest:
            raise Problem("HEALTHCHECK NONE takes no arguments", "remove what follows NONE", at=rest)
        return kinds.Healthcheck(args.line, None)
    if kind.upper() != "CMD":
        raise Problem(f"HEALTHCHECK has no {kind!r}", "write HEALTHCHECK CMD COMMAND, or HEALTHCHECK NONE", at=kind)
    flags = args.read_flags(*_TIMES, "retries")
    command = _command(Args(args.line, [], rest, (), args.escape))
    if not any(command.words):
        raise Problem("HEALTHCHECK CMD needs a command", "write HEALTHCHECK CMD COMMAND")
    text = flags.text("retries")
    retries = number_of(text or "0", 1 << 31)
    if retries is None:
        raise Problem(f"invalid --retries {text!r} of HEALTHCHECK", "write a number", at=f"--retries={text}")
    interval, timeout, start_period, start_interval = (_time(flags, name) for name in _TIMES)
    return kinds.Healthcheck(args.line, command, interval, timeout, start_period, start_interval, retries)


def _time(flags: Flags, name: str) -> int:
    text = flags.text(name) or "0"
    try:
        time_ns = parse_duration_ns(text)
    except ValueError as error:
        raise Problem(f"invalid --{name} {text!r} of HEALTHCHECK: {error}", at=f"--{name}={text}") from None
    if 0 < time_ns < _LEAST_NS:
        raise Problem(f"--{name} {text} of HEALTHCHECK is too short", "write at least 1ms", at=f"--{name}={text}")
    return time_ns


def _onbuild(args: Args) -> kinds.Onbuild:
    args.read_flags()
    keyword = _first_word(args.rest)[0]
    if not keyword:
        raise Problem("ONBUILD needs an instruction", "write ONBUILD RUN COMMAND")
    _check_trigger(keyword)
    begin = args.line.text.find(args.rest, len("ONBUILD"))
    marks = [(offset - begin, line, column) for offset, line, column in args.line.marks if offset > begin]
    line = Line(keyword, args.rest, args.line.span, ((0, *args.line.position(begin)), *marks))
    contents = tuple(each.content for each in args.heredocs)
    trigger = "".join([args.rest, *(f"\n{each.content}{each.name}" for each in args.heredocs)])
    return kinds.Onbuild(args.line, trigger, _parse(line, contents, args.escape))


def _check_trigger(keyword: str) -> None:
    if keyword.upper() in ("ONBUILD", "FROM", "MAINTAINER"):
        raise Problem(
            f"{keyword.upper()} can't be a trigger of ONBUILD", "write it in the Dockerfile that needs it", at=keyword
        )


_PARSERS: dict[str, Callable[[Args], kinds.Instruction]] = {
    "ADD": _add,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": _copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
