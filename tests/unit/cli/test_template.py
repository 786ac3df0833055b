"""Templates: what Go's text/template gives for the same text and data, and one error for all that is none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minibox.cli.format.template import Template
from minibox.cli.format.template_functions import FUNCTIONS, Map
from minibox.errors import UsageError

DATA = {
    "ID": "abc",
    "Size": 12,
    "Ratio": 1.5,
    "Running": True,
    "Nothing": None,
    "Tags": ["a:1", "b:2"],
    "Empty": [],
    "Config": {"Env": ["A=1", "B=2"], "Labels": Map({"x": "1", "a.b/c": "2"}), "User": ""},
    "Label": lambda key: {"x": "1"}.get(key, ""),
}


# What Go 1.22 prints, by its documentation.
@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("", ""),
        ("plain }} text", "plain }} text"),
        ("{{.ID}}", "abc"),
        ("{{ .ID }}\t{{.Size}}", "abc\t12"),
        ("{{.Config.Env}}", "[A=1 B=2]"),
        ("{{.Config.Labels}}", "map[a.b/c:2 x:1]"),
        ("{{.Config.Labels.x}} {{.Config.Labels.none}}", "1 <no value>"),
        ('{{index .Config.Labels "a.b/c"}}{{index .Config.Labels "none"}}', "2"),
        ("{{.Nothing}} {{.Running}} {{.Ratio}}", "<no value> true 1.5"),
        ("{{json .Tags}} {{json .ID}} {{json .Nothing}}", '["a:1","b:2"] "abc" null'),
        ("{{json .Config}}", '{"Env":["A=1","B=2"],"Labels":{"x":"1","a.b/c":"2"},"User":""}'),
        ("{{range .Tags}}<{{.}}>{{end}}", "<a:1><b:2>"),
        ("{{range $i, $t := .Tags}}{{$i}}={{$t}};{{end}}", "0=a:1;1=b:2;"),
        ("{{range $t := .Tags}}{{$t}}{{$.ID}}{{end}}", "a:1abcb:2abc"),
        ("{{range $k, $v := .Config.Labels}}{{$k}}:{{$v}} {{end}}", "a.b/c:2 x:1 "),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{range .Tags}}{{if eq . \"b:2\"}}{{continue}}{{end}}{{.}}{{end}}", "a:1"),
        ("{{range .Tags}}{{.}}{{break}}{{end}}", "a:1"),
        ("{{if .Running}}yes{{else}}no{{end}}", "yes"),
        ("{{if .Empty}}1{{else if .Running}}2{{else}}3{{end}}", "2"),
        ("{{if not .Running}}1{{end}}{{if and .ID .Size}}2{{end}}{{or .Empty .ID}}", "2abc"),
        ("{{with .Config}}{{.User}}{{len .Env}}{{$.ID}}{{end}}", "2abc"),
        ("{{with .Empty}}1{{else}}{{.ID}}{{end}}", "abc"),
        ("{{$x := .ID}}{{if true}}{{$x = \"new\"}}{{$y := 1}}{{end}}{{$x}}", "new"),
        ("{{if $n := .Size}}{{$n}}{{end}}", "12"),
        ("{{len .Tags}} {{len .ID}} {{len \"é\"}}", "2 3 2"),
        ("{{index .Tags 1}} {{slice .ID 1 2}} {{slice .Tags 1}}", "b:2 b [b:2]"),
        ('{{join .Tags ", "}} {{.ID | upper}} {{upper "a" | lower | printf "%s-%s" "x"}}', "a:1, b:2 ABC x-a"),
        ('{{split "a,b" ","}} {{title "one two"}} {{pad .ID 1 2}}|{{truncate .ID 2}}', "[a b] One Two  abc  |ab"),
        ("{{println .ID 1}}{{print 1 2 \"a\" 3 4}}", "abc 1\n1 2a3 4"),
        ('{{printf "%5d|%-5s|%05d|%.2f|%q|%x|%t|%v|%%" 42 "ab" -42 1.5 "q" 255 true .Tags}}',
         '   42|ab   |-0042|1.50|"q"|ff|true|[a:1 b:2]|%'),
        ('{{printf "%d %s" "x"}}{{printf "a" 1}}', "%!d(string=x) %!s(MISSING)a%!(EXTRA int=1)"),
        ("{{eq .Size 12}} {{ne .ID \"abc\"}} {{lt 1 2}} {{ge 2 2}} {{gt .Size 20}} {{eq .ID \"x\" \"abc\"}}",
         "true false true true false true"),
        ("{{(index .Tags 0)}} {{(.Config).User}}{{len (split .ID \"b\")}}", "a:1 2"),
        ("a {{- .ID -}} b {{- /* no */ -}} c", "aabcbc"),
        ("{{/* a comment */}}x", "x"),
        ("{{`raw \\n`}} {{\"a\\tb\\u00e9\\x41\"}} {{'a'}} {{-3}} {{0x10}} {{nil | json}}", "raw \\n a\tbéA 97 -3 16 null"),
        ('{{.Label "x"}}{{.Label "y"}}', "1"),
        ("{{html \"<a>\"}} {{urlquery \"a b\"}}", "&lt;a&gt; a+b"),
        ("{{1e3}} {{2.50}} {{1e30}}", "1000 2.5 1e+30"),
    ],
)  # fmt: skip
def test_a_template_gives_what_go_gives(template: str, text: str):
    assert Template(template).render(DATA) == text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{.ID", "1:1: the action has no }}"),
        ("{{}}", "1:1: the action is empty"),
        ("a\nbc{{.ID | frob}}", "2:11: function frob not defined"),
        ("{{.Nope}}", "1:3: at <.Nope>: can't evaluate field Nope: no such field"),
        ("{{.Config.Nope}}", "1:3: at <.Config.Nope>: can't evaluate field Nope: no such field"),
        ("{{.ID.Nope}}", "1:3: at <.ID.Nope>: can't evaluate field Nope: 'abc' has no fields"),
        ("{{.Nothing.Nope}}", "1:3: at <.Nothing.Nope>: nil has no field Nope"),
        ("{{if .ID}}x", "1:1: if has no {{end}}"),
        ("{{end}}", "1:3: unexpected {{end}}"),
        ("{{if .ID}}{{else}}{{else}}{{end}}", "1:19: if has a second {{else}}"),
        ("{{if .ID}}{{else if .ID}}{{else}}", "1:26: if has no {{end}}"),
        ("{{range .ID}}{{end}}", "1:3: at <range>: can't range over 'abc'"),
        ("{{break}}", "1:3: break outside range"),
        ("{{index .Tags 5}}", "1:3: at <index>: index 5 is out of range, the length is 2"),
        ("{{len 3}}", "1:3: at <len>: '3' has no length"),
        ("{{join .ID}}", "1:3: at <join>: wrong number of arguments: 1, wants 2"),
        ("{{.ID 3}}", "1:3: at <.ID>: it is not a function and takes no arguments"),
        ("{{.ID | .Size}}", "1:9: at <.Size>: it is not a function and takes no arguments"),
        ("{{$x}}", "1:3: undefined variable $x"),
        ("{{if true}}{{$x := 1}}{{end}}{{$x}}", "1:32: undefined variable $x"),
        ("{{\"a}}", "1:3: the string has no end"),
        ("{{1x}}", "1:3: not a number"),
        ("{{(.ID}}", "1:3: ( has no )"),
        ("{{.ID)}}", "1:6: unexpected )"),
        ("{{.ID |}}", "1:1: a value is missing"),
        ("{{%}}", "1:3: unexpected '%'"),
        ("{{/* x */ .ID}}", "1:11: a comment must be alone in its action"),
        ("{{define \"x\"}}{{end}}", "1:3: function define not defined"),
        ("{{" + "(" * 60 + "}}", "1:52: nested more than 50 deep"),
        ("{{if 1}}" * 60, "1:393: nested more than 50 deep"),
        ('{{printf "%9999d" 1}}', "1:3: at <printf>: printf: the width is larger than 1000"),
        ("{{lt .Tags 1}}", "1:3: at <lt>: lists and maps can't be compared"),
        ('{{.Label "x" "y"}}', "1:3: at <.Label>: "),
    ],
)  # fmt: skip
def test_an_error_says_where_and_why(template: str, message: str):
    with pytest.raises(UsageError) as caught:
        Template(template).render(DATA)
    assert str(caught.value).startswith(f"template: {message}")


def test_an_unknown_field_names_those_that_are_there():
    with pytest.raises(UsageError) as caught:
        Template("{{.Id}}").render({"ID": "1", "Size": "2"})
    assert caught.value.hint == "the fields are ID, Size"


WORDS = st.sampled_from(
    ["{{", "}}", "{{-", "-}}", " ", "if", "else", "end", "range", "with", "break", "continue", ".", ".ID", ".Tags",
     ".Config", ".Labels", ".Size", "$", "$x", ":=", "=", ",", "|", "(", ")", '"a%s"', "`b`", "'c'", "12", "-0x1f", "1.5",
     "true", "nil", "\n", "/*", "*/", "%", '"', "\\", "é", "\ud800", "0", "99", '"%v%d%5x%q%c%z%"', *FUNCTIONS]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(WORDS, max_size=14).map(" ".join) | st.lists(WORDS, max_size=14).map("".join) | st.text(max_size=30))
@settings(max_examples=400)
def test_no_text_gives_any_other_error(source: str):
    try:
        assert isinstance(Template(source).render(DATA), str)
    except UsageError as error:
        assert str(error).startswith("template: ")


@given(
    st.sampled_from(sorted(FUNCTIONS)),
    st.lists(VALUES, max_size=3),
)
@settings(max_examples=400)
def test_no_values_make_a_function_fail_otherwise(name: str, values: list[object]):
    words = " ".join(f"$a{number}" for number in range(len(values)))
    assigned = "".join(f"{{{{$a{number} := index . {number}}}}}" for number in range(len(values)))
    try:
        Template(f"{assigned}{{{{{name} {words}}}}}{{{{range .}}}}{{{{.}}}}{{{{json .}}}}{{{{end}}}}").render(values)
    except UsageError as error:
        assert str(error).startswith("template: ")
