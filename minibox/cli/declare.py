"""Declare a command's options and arguments, with click's decorators but without importing click, which takes 25 ms.

`clicked` makes click's command of a declaration: click has the help, completion, and the words for each error. `reader` reads
ordinary command lines by the same declaration, so that most commands do without click.
"""

from __future__ import annotations

from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol, TypeVar

    T = TypeVar("T")

    class Context(Protocol):
        """What a command is called with: click's context, or the `reader`'s."""

        @property
        def obj(self) -> Any: ...

        @property
        def info_name(self) -> str | None: ...

        @property
        def parent(self) -> Context | None: ...

        def find_root(self) -> Any: ...


@record
class Parameter:
    """An option or an argument.

    Attributes:
        name: the name of the callback's parameter.
        opts: an option's spellings, or an argument's name.
        secondary_opts: the spellings that turn a flag off.
        is_option: it is an option.
        kind: text, flag, int, bool, path, choice; truth is a bool in Docker's words, also after a short option: ``-p=false``.
        multiple: an option that may be repeated, or an argument that takes all remaining words.
        default: the value if it isn't given; () for ``multiple``.
        required: an argument that must be given.
        choices: of a choice.
        least: the lowest int.
        callback: called with click's context, the parameter and the value.
        expose_value: whether the command's callback is called with it.
        shown: what only help and completion use, by click's names.
    """

    name: str
    opts: tuple[str, ...]
    secondary_opts: tuple[str, ...] = ()
    is_option: bool = True
    kind: str = "text"
    multiple: bool = False
    default: Any = None
    required: bool = False
    choices: Sequence[str] = ()
    least: int | None = None
    callback: Callable[..., None] | None = None
    expose_value: bool = True
    shown: dict[str, Any] = {}


class Command:
    """A declared command: ``callback`` is called with a `Context` and the value of each parameter.

    Attributes:
        name: "" for the callback's name.
        help: the callback's docstring.
        interspersed: options may follow arguments.
        takes_unknown: unknown options are arguments.
        docker_flags: see `clicked.CommandWithFlags`.
        needs_click: the callback asks click's context for more than a `Context` has.
    """

    def __init__(
        self, name: str, callback: Callable[..., int | None], *, epilog: str = "", interspersed: bool = True,
        takes_unknown: bool = False, docker_flags: bool = False, needs_click: bool = False,
    ) -> None:  # fmt: skip
        self.name = name or callback.__name__
        self.callback = callback
        self.help = callback.__doc__ or ""
        self.params: list[Parameter] = list(reversed(callback.__dict__.pop(_PARAMETERS, [])))
        self.epilog = epilog
        self.interspersed = interspersed
        self.takes_unknown = takes_unknown
        self.docker_flags = docker_flags
        self.needs_click = needs_click


_PARAMETERS = "_declared"


def command(name: str = "", **given: Any) -> Callable[[Callable[..., int | None]], Command]:
    """Declare a command; see `Command`."""
    return lambda callback: Command(name, callback, **given)


def option(
    *names: str, metavar: str | None = None, help: str = "", is_flag: bool = False, multiple: bool = False,
    default: Any = None, kind: str = "text", choices: Sequence[str] = (), least: int | None = None,
    callback: Callable[..., None] | None = None, expose_value: bool = True, **shown: Any,
) -> Callable[[T], T]:  # fmt: skip
    """Declare an option: its names, and for a flag that can be turned off ``--name/--no-name``; see `Parameter`.

    A name without dashes is that of the callback's parameter; otherwise it is that of the first long name. A flag that can't
    be turned off is off by default.
    """
    opts, off, field = [], [], ""
    for name in names:
        if name[0] != "-":
            field = name
            continue
        on, _, other = name.partition("/")
        opts.append(on)
        off += [other] if other else []
    field = field or [each for each in opts if each[:2] == "--"][0][2:].replace("-", "_")
    if is_flag or off:
        kind, default = "flag", bool(off and default)
    elif choices:
        kind = "choice"
    return _adding(
        Parameter(
            field, tuple(opts), tuple(off), True, kind, multiple, () if multiple else default, False, choices, least,
            callback, expose_value, {"metavar": metavar, "help": help, **shown},
        )
    )  # fmt: skip


def argument(
    name: str, *, nargs: int = 1, required: bool | None = None, default: str | None = None, metavar: str | None = None,
    choices: Sequence[str] = (), **shown: Any,
) -> Callable[[T], T]:  # fmt: skip
    """Declare an argument: one word, or with ``nargs`` -1 all that remain; see `Parameter`."""
    multiple = nargs == -1
    if required is None:
        required = default is None and not multiple
    return _adding(
        Parameter(
            name, (name,), (), False, "choice" if choices else "text", multiple, () if multiple else default, required,
            choices, shown={"metavar": metavar, **shown},
        )
    )  # fmt: skip


def _adding(parameter: Parameter) -> Callable[[T], T]:
    def add(callback: T) -> T:
        callback.__dict__.setdefault(_PARAMETERS, []).append(parameter)
        return callback

    return add
