"""Make click's commands of what `declare` has."""

from __future__ import annotations

import click

from minibox.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.cli.declare import Command, Parameter

    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType  # not generic in click 8.1


class RefusedValue(click.BadParameter):
    """An invalid value, with minibox's own message and a hint that says what to write instead."""

    advice: str | None = None


class CommandWithFlags(click.Command):
    """A command whose options are written as Docker's: flags take a value, as in ``--pull=false`` and ``-q=true``, and the
    last one counts; a value may come after ``=`` also for a short option, as in ``-t=web``.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        flags = {
            name: each for each in self.params if isinstance(each, click.Option) and each.is_flag for name in each.opts
        }
        short = {name for each in self.params if isinstance(each, click.Option) for name in each.opts if len(name) == 2}
        words: list[str] = []
        for position, word in enumerate(args):
            if word == "--":
                words += args[position:]
                break
            name, equals, value = word.partition("=")
            if equals and name in flags:
                words = [each for each in words if each not in flags[name].opts]
                word = name if _truth(name, value) else "".join(flags[name].secondary_opts[:1])
            elif equals and name in short:
                word = f"{name}{value}"
            words += [word] if word or not equals else []
        return super().parse_args(ctx, words)


def _truth(name: str, value: str) -> bool:
    from minibox.base.values import truth

    try:
        return truth(value)
    except ValueError as error:
        raise UsageError(f"{name} {value!r}: {error}") from None


class Truth(ParamType):
    """A boolean as Docker writes it, also after a short option: ``-p=false``."""

    name = "bool"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bool:
        from minibox.base.values import truth

        if isinstance(value, bool):
            return value
        try:
            return truth(str(value).removeprefix("="))
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


def clicked(declared: Command) -> click.Command:
    """Return click's command of a declaration."""
    made = CommandWithFlags if declared.docker_flags else click.Command
    return made(
        declared.name,
        callback=click.pass_context(declared.callback),
        params=[_option(each) if each.is_option else _argument(each) for each in declared.params],
        help=declared.help,
        epilog=declared.epilog or None,
        context_settings={
            "allow_interspersed_args": declared.interspersed,
            "ignore_unknown_options": declared.takes_unknown,
        },
    )


def _option(each: Parameter) -> click.Option:
    on = [*each.opts]
    for at, off in enumerate(reversed(each.secondary_opts), 1):
        on[-at] += f"/{off}"
    given: dict[str, Any] = {"expose_value": each.expose_value, "callback": each.callback, **each.shown}
    if each.kind == "flag":
        return click.Option([each.name, *on], is_flag=True, default=each.default, **given)
    if each.multiple:
        return click.Option([each.name, *on], multiple=True, type=_type(each), **given)
    return click.Option([each.name, *on], type=_type(each), **given, **_default(each))


def _argument(each: Parameter) -> click.Argument:
    return click.Argument(
        [each.name], nargs=-1 if each.multiple else 1, required=each.required, type=_type(each), **each.shown,
        **({} if each.multiple else _default(each)),
    )  # fmt: skip


def _default(each: Parameter) -> dict[str, Any]:
    return {} if each.default is None else {"default": each.default}


def _type(each: Parameter) -> Any:
    if each.kind == "choice":
        return click.Choice(each.choices)
    if each.kind == "int":
        return click.INT if each.least is None else click.IntRange(min=each.least)
    return {"text": click.STRING, "bool": click.BOOL, "path": click.Path(), "truth": Truth()}[each.kind]
