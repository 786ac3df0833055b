"""The functions that a template compiles to; see `cli.format.template`. Each takes a scope."""

from __future__ import annotations

from minibox.cli.format.template_functions import FUNCTIONS, NO_VALUE, Failure, Map, is_true, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, NoReturn

    #: A compiled expression returns its value in a scope; a compiled statement writes to the scope's output.
    Evaluate = Callable[["Scope"], Any]
    Fail = Callable[..., NoReturn]


class Scope:
    """The state of an action: the dot, the variables (innermost last), and the output so far."""

    __slots__ = ("dot", "out", "variables")

    def __init__(self, dot: Any, variables: list[tuple[str, Any]], out: list[str]) -> None:
        self.dot, self.variables, self.out = dot, variables, out

    def find(self, name: str) -> int:
        """Return the index of the innermost variable of that name. The parser has checked that it exists."""
        return max(at for at, (known, _) in enumerate(self.variables) if known == name)


class Break(Exception):
    pass


class Continue(Exception):
    pass


def dot(scope: Scope) -> Any:
    return scope.dot


def constant(value: Any) -> Evaluate:
    return lambda scope: value


def variable(name: str) -> Evaluate:
    return lambda scope: scope.variables[scope.find(name)][1]


def field(of: Evaluate, name: str, fail: Fail) -> Evaluate:
    def get(scope: Scope) -> Any:
        value = of(scope)
        if isinstance(value, Map):
            return value.get(name, NO_VALUE)
        if value is None or value is NO_VALUE:
            fail(f"nil has no field {name}")
        if not isinstance(value, dict):
            fail(f"can't evaluate field {name}: {say(value)[:40]!r} has no fields")
        if name not in value:
            fail(f"can't evaluate field {name}: no such field", f"the fields are {', '.join(map(str, value))}")
        return value[name]

    return get


def apply(name: str, arguments: Sequence[Evaluate], fail: Fail) -> Evaluate:
    function, least, most = FUNCTIONS[name]
    short_circuits = name in ("and", "or")

    def call(scope: Scope) -> Any:
        if not least <= len(arguments) <= most:
            fail(f"wrong number of arguments: {len(arguments)}, wants {least}{'' if least == most else ' or more'}")
        if short_circuits:
            value = None
            for argument in arguments:
                value = argument(scope)
                if is_true(value) == (name == "or"):
                    break
            return value
        values = [argument(scope) for argument in arguments]
        try:
            return function(*values)
        except Failure as error:
            fail(str(error))

    return call


def with_arguments(head: Evaluate, arguments: Sequence[Evaluate], fail: Fail) -> Evaluate:
    def call(scope: Scope) -> Any:
        method = head(scope)
        if not callable(method):
            fail("it is not a function and takes no arguments")
        try:
            return method(*(argument(scope) for argument in arguments))
        except (Failure, TypeError) as error:
            fail(str(error))

    return call


def write(text: str) -> Evaluate:
    return lambda scope: scope.out.append(text)


def show(pipeline: Evaluate) -> Evaluate:
    return lambda scope: scope.out.append(say(pipeline(scope)))


def sequence(nodes: Sequence[Evaluate]) -> Evaluate:
    def run(scope: Scope) -> None:
        for node in nodes:
            node(scope)

    return run


def leave(how: type[Exception]) -> Evaluate:
    def run(scope: Scope) -> None:
        raise how

    return run


def assign(names: Sequence[str], declares: bool, pipeline: Evaluate) -> Evaluate:
    def run(scope: Scope) -> None:
        _set(scope, names, declares, [pipeline(scope)])

    return run


def _set(scope: Scope, names: Sequence[str], declares: bool, values: Sequence[Any]) -> None:
    for name, value in zip(names, values):
        if declares:
            scope.variables.append((name, value))
        else:
            scope.variables[scope.find(name)] = (name, value)


def branch(
    names: Sequence[str], declares: bool, pipeline: Evaluate, body: Evaluate, otherwise: Evaluate, *, sets_dot: bool
) -> Evaluate:
    def run(scope: Scope) -> None:
        known = len(scope.variables)
        value = pipeline(scope)
        _set(scope, names, declares, [value])
        if is_true(value):
            body(Scope(value, scope.variables, scope.out) if sets_dot else scope)
        else:
            otherwise(scope)
        del scope.variables[known:]

    return run


def loop(
    names: Sequence[str], declares: bool, pipeline: Evaluate, body: Evaluate, otherwise: Evaluate, fail: Fail
) -> Evaluate:
    def run(scope: Scope) -> None:
        known = len(scope.variables)
        pairs = list(_pairs(pipeline(scope), fail))
        for key, value in pairs:
            _set(scope, names, declares, [key, value][-len(names) :] if names else ())
            try:
                body(Scope(value, scope.variables, scope.out))
            except Continue:
                pass
            except Break:
                break
            finally:
                del scope.variables[known:]
        if not pairs:
            otherwise(scope)

    return run


def _pairs(value: Any, fail: Fail) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        return iter(sorted(value.items()))
    if isinstance(value, (list, tuple)):
        return iter(enumerate(value))
    if value is None or value is NO_VALUE:
        return iter(())
    fail(f"can't range over {say(value)[:40]!r}")
