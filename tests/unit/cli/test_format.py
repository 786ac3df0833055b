"""Lists, sizes and times as Docker prints them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibox.cli.format.format import align, format_documents, format_rows
from minibox.cli.format.units import format_ago, format_rfc3339, format_size, format_span
from minibox.errors import UsageError

HEADINGS = {"ID": "IMAGE ID", "Tag": "TAG", "Size": "SIZE"}
ROWS = [{"ID": "abc", "Tag": "latest", "Size": "1MB"}, {"ID": "de", "Tag": "<none>", "Size": "12.3kB"}]


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("", "TAG       IMAGE ID\nlatest    abc\n<none>    de"),
        ("table", "TAG       IMAGE ID\nlatest    abc\n<none>    de"),
        (r"table {{.ID}}\t{{.Size}}", "IMAGE ID   SIZE\nabc        1MB\nde         12.3kB"),
        ("table {{upper .Tag}}", "TAG\nLATEST\n<NONE>"),
        ("{{.ID}}", "abc\nde"),
        (r"{{.ID}}\t{{.Size}}", "abc\t1MB\nde\t12.3kB"),
        ("json", '{"ID":"abc","Size":"1MB","Tag":"latest"}\n{"ID":"de","Size":"12.3kB","Tag":"<none>"}'),
        ("{{json .Tag}}", '"latest"\n"<none>"'),
        ("image", "image\nimage"),
    ],
)
def test_a_list_has_the_form_that_was_asked_for(form: str, text: str):
    assert format_rows(ROWS, form, HEADINGS, ("Tag", "ID")) == text


def test_an_empty_list_is_a_heading_or_nothing_and_its_template_is_checked_still():
    assert format_rows([], "", HEADINGS, ("Tag", "ID")) == "TAG       IMAGE ID"
    assert format_rows([], "{{.ID}}", HEADINGS, ("Tag",)) == ""
    for form in ("{{.Id}}", "table {{.Id}}", "{{.ID"):
        with pytest.raises(UsageError, match="template: 1:"):
            format_rows([], form, HEADINGS, ("Tag",))


def test_a_table_obeys_no_control_characters_and_a_template_gives_what_is_there():
    rows = [{"ID": "a\x1b[2Jb\nc", "Tag": "t", "Size": "s"}]
    assert format_rows(rows, "", HEADINGS, ("ID", "Tag")).splitlines()[1] == r"a\x1b[2Jb\nc   t"
    assert format_rows(rows, "{{.ID}}", HEADINGS, ("ID", "Tag")) == "a\x1b[2Jb\nc"


def test_half_a_pair_of_surrogates_can_be_printed():
    rows = [{"ID": "\ud800", "Tag": "t", "Size": "s"}]
    for form in ("", "json", "{{.ID}}"):
        format_rows(rows, form, HEADINGS, ("ID", "Tag")).encode()
    format_documents([{"a": "\ud800"}], "").encode()


def test_documents_are_one_array_or_a_line_each():
    assert format_documents([{"A": 1}, {"A": [2]}], "") == (
        '[\n    {\n        "A": 1\n    },\n    {\n        "A": [\n            2\n        ]\n    }\n]'
    )
    assert format_documents([{"A": 1}, {"A": 2}], "{{.A}}") == "1\n2"
    assert format_documents([{"A": 1}, {"A": "é"}], "json") == '[{"A":1},{"A":"é"}]'
    assert format_documents([], "") == "[]"


@given(st.lists(st.lists(st.text(max_size=12), min_size=1, max_size=4), max_size=4))
def test_columns_begin_where_the_heading_does(lines: list[list[str]]):
    aligned = align(lines)
    assert len(aligned) == len(lines)
    for line, cells in zip(aligned, lines):
        assert line == line.rstrip() and all(cell.rstrip() in line for cell in cells)


# What units.HumanSize and units.HumanDuration of github.com/docker/go-units say.
@pytest.mark.parametrize(
    ("size", "three", "four"),
    [(0, "0B", "0B"), (999, "999B", "999B"), (1000, "1kB", "1kB"), (1234, "1.23kB", "1.234kB"),
     (72_800_000, "72.8MB", "72.8MB"), (7_054_321, "7.05MB", "7.054MB"), (999_999, "1e+03kB", "1000kB"),
     (1 << 40, "1.1TB", "1.1TB"), (5 << 60, "5.76EB", "5.765EB")],
)  # fmt: skip
def test_sizes(size: int, three: str, four: str):
    assert (format_size(size), format_size(size, 4)) == (three, four)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "Less than a second"), (0.4, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"),
     (119, "About a minute"), (120, "2 minutes"), (3599, "59 minutes"), (3600, "About an hour"), (5399, "About an hour"),
     (5400, "2 hours"), (47 * 3600, "47 hours"), (48 * 3600, "2 days"), (13 * 86400, "13 days"), (14 * 86400, "2 weeks"),
     (59 * 86400, "8 weeks"), (60 * 86400, "2 months"), (729 * 86400, "24 months"), (730 * 86400, "2 years")],
)  # fmt: skip
def test_spans(seconds: float, text: str):
    assert format_span(seconds) == text


@pytest.mark.parametrize(
    ("zone", "text"), [("UTC", "2024-01-02T03:04:05Z"), ("XXX-05:30", "2024-01-02T08:34:05+05:30")]
)
def test_a_moment_of_an_images_history(zone: str, text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert format_rfc3339(1704164645) == text
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_moment_that_nobody_knows():
    assert format_ago(0) == format_rfc3339(0) == "N/A"
    assert format_ago(100, 400) == "5 minutes ago"
