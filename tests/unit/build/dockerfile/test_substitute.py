"""Variables in words: every modifier, quotes and escapes, and that nothing else is touched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibox.build.dockerfile.lines import Problem
from minibox.build.dockerfile.substitute import HEREDOC, Style, expand, substitute

VARIABLES = {"A": "value", "E": "", "P": "/usr/lib/libfoo.so.1.2", "S": "a b  c", "D": "$A", "ü": "umlaut", "N1": "n"}


@pytest.mark.parametrize(
    ("word", "result"),
    [
        ("plain", "plain"),
        ("$A", "value"),
        ("x${A}y", "xvaluey"),
        ("$Ax", ""),
        ("$A.x", "value.x"),
        ("$N1", "n"),
        ("$1A", "A"),  # a number is a name of its own
        ("$ü", "umlaut"),
        ("$", "$"),
        ("a$", "a$"),
        ("$.", "$."),
        ("$$", ""),
        ("\\$A", "$A"),
        ("\\\\$A", "\\value"),
        ("a\\b", "ab"),
        ("a\\", "a"),
        ("'$A'", "$A"),
        ("'a\\'", "a\\"),
        ('"$A"', "value"),
        ('"\\$A"', "$A"),
        ('"a\\b"', "a\\b"),
        ('"a\\"b"', 'a"b'),
        ("\"'$A'\"", "'value'"),
        ("'\"'", '"'),
        ("$D", "$A"),
        ("${U}", ""),
        ("${A:-d}", "value"),
        ("${E:-d}", "d"),
        ("${E-d}", ""),
        ("${U-d}", "d"),
        ("${U:-}", ""),
        ("${U:-$A}", "value"),
        ("${U:-${E:-x}}", "x"),
        ('${U:-"a b"}', "a b"),
        ("${A:+d}", "d"),
        ("${E:+d}", ""),
        ("${E+d}", "d"),
        ("${U+d}", ""),
        ("${A?no}", "value"),
        ("${E?no}", ""),
        ("${P#*/}", "usr/lib/libfoo.so.1.2"),
        ("${P##*/}", "libfoo.so.1.2"),
        ("${P%.*}", "/usr/lib/libfoo.so.1"),
        ("${P%%.*}", "/usr/lib/libfoo"),
        ("${P%?}", "/usr/lib/libfoo.so.1."),
        ("${P#x}", "/usr/lib/libfoo.so.1.2"),
        ("${P/lib/LIB}", "/usr/LIB/libfoo.so.1.2"),
        ("${P//lib/LIB}", "/usr/LIB/LIBfoo.so.1.2"),
        ("${P/\\//-}", "-usr/lib/libfoo.so.1.2"),
        ("${P//\\//-}", "-usr-lib-libfoo.so.1.2"),
        ("${P//o/}", "/usr/lib/libf.s.1.2"),
        ("${P//*/x}", "x"),
        ("${A/?a/X}", "Xlue"),
        ("${A//$N1/x}", "value"),
        ("${U/a/b}", ""),
        ("${A#\\*}", "value"),
    ],
)
def test_a_word(word, result):
    assert expand(word, VARIABLES).text == result
    assert substitute(word, VARIABLES) == result


@pytest.mark.parametrize(
    "word",
    ["${", "${A", "${}", "${:-a}", "${{A}}", "${A:x}", "${A;b}", "${A:-", "'a", '"a', "${A/b}", "${A/b/c", "${A#\\a}"],
)
def test_what_is_refused(word):
    with pytest.raises(Problem):
        expand(word, VARIABLES)


def test_variables_may_be_nested_but_not_without_end():
    assert expand("${U:-" * 50 + "x" + "}" * 50, VARIABLES).text == "x"
    with pytest.raises(Problem, match="nested too deeply"):
        expand("${U:-" * 5000 + "}" * 5000, VARIABLES)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("${U?}", "U: is not allowed to be unset"),
        ("${E:?}", "E: is not allowed to be empty"),
        ("${U:?give U}", "U: give U"),
    ],
)
def test_a_variable_that_must_be_set(word, message):
    with pytest.raises(Problem, match=message):
        expand(word, VARIABLES)


def test_words_split_where_nothing_is_quoted():
    assert expand("80 $S", VARIABLES).words == ("80", "a", "b", "c")
    assert expand('"$S" x\\ y', VARIABLES).words == ("a b  c", "x y")


def test_which_variables_were_asked_for():
    found = expand("$A ${U:-x} '$N1'", VARIABLES)
    assert (sorted(found.used), sorted(found.unset)) == (["A"], ["U"])


def test_the_escape_may_be_a_backquote():
    assert expand("C:\\$A`$A", VARIABLES, Style(escape="`")).text == "C:\\value$A"


def test_in_a_heredoc_quotes_are_letters():
    assert expand('it\'s "$A" \\$A\n', VARIABLES, HEREDOC).text == 'it\'s "value" $A\n'


@given(st.text(alphabet="AEU${}:-+?#%/\\'\"* b", max_size=30))
def test_any_word_is_substituted_or_refused(word):
    try:
        expansion = expand(word, VARIABLES)
    except Problem:
        return
    assert "".join("".join(expansion.words).split()) == "".join(expansion.text.split())


@given(st.text(st.characters(blacklist_characters="$\\'\"", blacklist_categories=["Cs"])))
def test_a_word_without_variables_stays(word):
    assert substitute(word, VARIABLES) == expand(word, VARIABLES).text == word
