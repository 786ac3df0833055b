"""Templates for `--format`: the part of Go's text/template that Docker's users need.

There are actions with fields, variables, pipelines, parentheses and literals; if, range, with, else, break and
continue; and the functions of `template_functions`. There is no define, template or block.

Values are as in JSON. A dict is a struct, where a missing field is an error. A `Map` is a Go map, where a missing key
gives ``<no value>``. A function is a method; its arguments follow its name.

Source: https://pkg.go.dev/text/template, https://docs.docker.com/engine/cli/formatting/.
"""

from __future__ import annotations

import re

from minibox.cli.format import template_nodes as nodes
from minibox.cli.format.template_functions import FUNCTIONS
from minibox.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from minibox.cli.format.template_nodes import Evaluate, Fail

NESTED_MAX = 50
TOKENS = re.compile(
    r"""(?P<space>\s+) | (?P<string>"(?:[^"\\\n]|\\.)*") | (?P<raw>`[^`]*`) | (?P<char>'(?:[^'\\\n]|\\.)+')
    | (?P<number>[+-]?(?:0[xX][0-9a-fA-F]{1,16}|[0-9]{1,18}(?:\.[0-9]{1,18})?(?:[eE][+-]?[0-9]{1,2})?)(?![\w.]))
    | (?P<field>\.[^\W\d]\w*) | (?P<dot>\.) | (?P<variable>\$\w*) | (?P<word>[^\W\d]\w*) | (?P<sign>:=|=|\||\(|\)|,)""",
    re.VERBOSE,
)
CLOSING = re.compile(r"(?:(?<=\s)(?P<trim>-))?\}\}")
OPENING_TRIMS = re.compile(r"\{\{-\s")
COMMENT = re.compile(r"\s*/\*.*?\*/\s*", re.DOTALL)
SPACE = " \t\r\n"
ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[0-7]{3}|.)", re.DOTALL)
ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
CONSTANTS = {"true": True, "false": False, "nil": None}
LITERALS = ("string", "raw", "char", "number")


class Template:
    """A parsed template."""

    def __init__(self, source: str) -> None:
        """Parse ``source``.

        Raises:
            UsageError: the template is invalid; the message says where (line:column) and why.
        """
        self._body = _Parser(source).whole()

    def render(self, data: Any) -> str:
        """Return the text for ``data``.

        Raises:
            UsageError: ``data`` lacks a field, or a function can't handle its arguments.
        """
        scope = nodes.Scope(data, [("$", data)], [])
        self._body(scope)
        return "".join(scope.out)


class _Token:
    __slots__ = ("at", "kind", "spaced", "text")

    def __init__(self, kind: str, text: str, at: int, spaced: bool) -> None:
        self.kind, self.text, self.at, self.spaced = kind, text, at, spaced


class _Parser:
    """Reads a template from left to right and compiles it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.at = 0
        self.start = 0  # where the current action begins
        self.tokens: list[_Token] = []  # the unread tokens of the current action
        self.trims_text = False
        self.variables = ["$"]
        self.depth = 0
        self.loops = 0

    # ---- text and actions -----------------------------------------------------------------------

    def whole(self) -> Evaluate:
        return self.body("")[0]

    def body(self, inside: str) -> tuple[Evaluate, str]:
        """Compile up to the action that ends this body, and return which it was: "end", "else", or "" for the end."""
        opened, known = self.start, len(self.variables)
        self.deeper(self.start)
        found: list[Evaluate] = []
        ended_by = ""
        while not ended_by:
            if text := self.read_text():
                found.append(nodes.write(text))
            if self.at >= len(self.source):
                if inside:
                    self.fail(opened, f"{inside} has no {{{{end}}}}")
                break
            self.read_action()
            if self.tokens and self.tokens[0].text in ("end", "else"):
                first = self.tokens.pop(0)
                if not inside:
                    self.fail(first.at, f"unexpected {{{{{first.text}}}}}")
                ended_by = first.text
            elif self.tokens:
                found.append(self.action(self.tokens[0]))
        self.depth -= 1
        del self.variables[known:]
        return nodes.sequence(found), ended_by

    def read_text(self) -> str:
        """Read the text up to the next action."""
        end = self.source.find("{{", self.at)
        end = len(self.source) if end < 0 else end
        text = self.source[self.at : end]
        self.at = end
        if self.trims_text:
            text = text.lstrip(SPACE)
        return text.rstrip(SPACE) if OPENING_TRIMS.match(self.source, end) else text

    def read_action(self) -> None:
        """Read the tokens of an action; a comment has none."""
        self.start = self.at
        self.at += 3 if OPENING_TRIMS.match(self.source, self.at) else 2
        self.tokens = []
        comment = COMMENT.match(self.source, self.at)
        self.at = comment.end() if comment else self.at
        spaced = True
        while not (closing := CLOSING.match(self.source, self.at)):
            match = TOKENS.match(self.source, self.at)
            if match is None or comment:
                self.fail_to_read("a comment must be alone in its action" if comment else "")
            if match.lastgroup != "space":
                self.tokens.append(_Token(str(match.lastgroup), match[0], self.at, spaced))
            spaced = match.lastgroup == "space"
            self.at = match.end()
        self.at = closing.end()
        self.trims_text = bool(closing["trim"])
        if not self.tokens and not comment:
            self.fail(self.start, "the action is empty")

    def fail_to_read(self, why: str) -> NoReturn:
        rest = self.source[self.at : self.at + 1]
        if not rest:
            self.fail(self.start, "the action has no }}")
        if rest in "\"'`":
            self.fail(self.at, "the string has no end")
        self.fail(self.at, why or ("not a number" if rest in "+-0123456789" else f"unexpected {ascii(rest)}"))

    def action(self, first: _Token) -> Evaluate:
        if first.kind == "word" and first.text in ("if", "with", "range"):
            return self.block(self.tokens.pop(0))
        if first.kind == "word" and first.text in ("break", "continue"):
            self.tokens.pop(0)
            self.finished()
            if not self.loops:
                self.fail(first.at, f"{first.text} outside range")
            return nodes.leave(nodes.Break if first.text == "break" else nodes.Continue)
        names, declares = self.assignment(1)
        pipeline = self.pipeline()
        self.finished()
        if names:
            self.variables += names if declares else []
            return nodes.assign(names, declares, pipeline)
        return nodes.show(pipeline)

    def block(self, first: _Token) -> Evaluate:
        """Compile an if, with or range, from its condition to its end."""
        kind, known = first.text, len(self.variables)
        names, declares = self.assignment(2 if kind == "range" else 1)
        pipeline = self.pipeline()
        self.finished()
        self.variables += names if declares else []
        self.loops += kind == "range"
        body, ended_by = self.body(kind)
        self.loops -= kind == "range"
        otherwise = nodes.sequence(())
        if ended_by == "else" and kind != "range" and self.tokens and self.tokens[0].text == kind:
            otherwise = self.block(self.tokens.pop(0))  # its end also ends this block
        elif ended_by == "else":
            self.finished()
            otherwise, ended_by = self.body(kind)
            if ended_by == "else":
                self.fail(self.start, f"{kind} has a second {{{{else}}}}")
            self.finished()
        self.finished()
        del self.variables[known:]
        if kind == "range":
            return nodes.loop(names, declares, pipeline, body, otherwise, self.fail_at(first))
        return nodes.branch(names, declares, pipeline, body, otherwise, sets_dot=kind == "with")

    def finished(self) -> None:
        if self.tokens:
            self.fail(self.tokens[0].at, f"unexpected {self.tokens[0].text}")

    # ---- expressions ----------------------------------------------------------------------------

    def assignment(self, names_max: int) -> tuple[list[str], bool]:
        """Read ``$a, $b :=`` at the start of a pipeline: the names, and whether they are new."""
        texts = [token.text for token in self.tokens[:4]]
        count = 1 if texts[1:2] in ([":="], ["="]) else 2 if texts[1:2] == [","] and texts[3:] in ([":="], ["="]) else 0
        names = texts[: 2 * count : 2]
        if not count or count > names_max or any(token.kind != "variable" for token in self.tokens[: 2 * count : 2]):
            return [], False
        declares = texts[2 * count - 1] == ":="
        for token in self.tokens[: 2 * count : 2]:
            if not declares:
                self.check_variable(token)
        del self.tokens[: 2 * count]
        return names, declares

    def check_variable(self, token: _Token) -> None:
        if token.text not in self.variables:
            self.fail(token.at, f"undefined variable {token.text}")

    def pipeline(self) -> Evaluate:
        """Compile commands joined by ``|``: each gets the result of the previous one as its last argument."""
        value = self.command(None)
        while self.tokens and self.tokens[0].text == "|":
            self.tokens.pop(0)
            value = self.command(value)
        return value

    def command(self, piped: Evaluate | None) -> Evaluate:
        token = self.tokens[0] if self.tokens else None
        function = self.function()
        head = None if function else self.operand()
        assert token is not None
        arguments = []
        while self.tokens and self.tokens[0].text not in ("|", ")"):
            arguments.append(self.operand())
        if piped:
            arguments.append(piped)
        fail = self.fail_at(token)
        if function:
            return nodes.apply(function, arguments, fail)
        assert head is not None
        return nodes.with_arguments(head, arguments, fail) if arguments else head

    def function(self) -> str:
        """Read the name of a function if it comes next, else return ""."""
        if not self.tokens or self.tokens[0].kind != "word" or self.tokens[0].text in CONSTANTS:
            return ""
        token = self.tokens.pop(0)
        if token.text not in FUNCTIONS:
            self.fail(token.at, f"function {token.text} not defined")
        return token.text

    def operand(self) -> Evaluate:
        """Compile a term and the fields that follow it."""
        if not self.tokens:
            self.fail(self.start, "a value is missing")
        token = self.tokens[0]
        function = self.function()
        if function:
            return nodes.apply(function, [], self.fail_at(token))
        self.tokens.pop(0)
        value: Evaluate = nodes.dot
        if token.kind == "field":
            value = nodes.field(nodes.dot, token.text[1:], self.fail_at(token))
        elif token.kind == "variable":
            self.check_variable(token)
            value = nodes.variable(token.text)
        elif token.text == "(":
            self.deeper(token.at)
            value = self.pipeline()
            if not self.tokens or self.tokens.pop(0).text != ")":
                self.fail(token.at, "( has no )")
            self.depth -= 1
        elif token.kind != "dot":
            value = nodes.constant(self.literal(token))
        while self.tokens and self.tokens[0].kind == "field" and not self.tokens[0].spaced:
            field = self.tokens.pop(0)
            if token.kind in LITERALS:
                self.fail(field.at, f"unexpected {field.text}")
            token = _Token(token.kind, token.text + field.text, token.at, token.spaced)
            value = nodes.field(value, field.text[1:], self.fail_at(token))
        return value

    def literal(self, token: _Token) -> Any:
        text = token.text
        if token.kind in ("string", "raw"):
            return _unquote(text[1:-1]) if token.kind == "string" else text[1:-1]
        if token.kind == "char" and len(_unquote(text[1:-1])) == 1:
            return ord(_unquote(text[1:-1]))
        if token.kind == "number":
            hexadecimal = text.lstrip("+-")[:2] in ("0x", "0X")
            return int(text, 16) if hexadecimal else int(text) if text.lstrip("+-").isdigit() else float(text)
        if token.kind == "word":
            return CONSTANTS[text]
        self.fail(token.at, f"unexpected {text}")

    # ---- errors ---------------------------------------------------------------------------------

    def deeper(self, at: int) -> None:
        self.depth += 1
        if self.depth > NESTED_MAX:
            self.fail(at, f"nested more than {NESTED_MAX} deep")

    def fail(self, at: int, why: str) -> NoReturn:
        raise UsageError(f"template: {self.place(at)}: {why}", 'for example: --format "{{.ID}} {{json .}}"')

    def fail_at(self, token: _Token) -> Fail:
        """Return a function that raises the error of an action that fails while it runs."""

        def fail(why: str, hint: str | None = None) -> NoReturn:
            raise UsageError(f"template: {self.place(token.at)}: at <{token.text}>: {why}", hint)

        return fail

    def place(self, at: int) -> str:
        return f"{self.source.count(chr(10), 0, at) + 1}:{at - self.source.rfind(chr(10), 0, at)}"


def _unquote(text: str) -> str:
    def character(match: re.Match[str]) -> str:
        code = match[1]
        if len(code) == 1:
            return ESCAPED.get(code, code)
        return chr(int(code[1:], 16)) if code[0] in "xu" else chr(int(code, 8))

    return ESCAPE.sub(character, text)
