"""run --svg and --html, explain --html: a start as a picture and as a page."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

from minibox.cli.format.plan import legible
from tests.container_box import Box
from tests.probes import requires

SVG = "{http://www.w3.org/2000/svg}"


class Reader(HTMLParser):
    """Notes the elements of a page, and checks that each is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag != "meta":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


@requires("root")
def test_a_picture_has_a_bar_for_each_step_in_the_lane_and_in_its_row(box: Box, tmp_path: Path) -> None:
    done = box("run", "--rm", "--network", "none", "--trace", "--svg", str(tmp_path / "start.svg"), "base", "true")
    assert done.returncode == 0, done.stderr
    steps = [line for line in done.stderr.splitlines() if re.match(r" *\d+ +(\d+|-)  ", line)]
    picture = ElementTree.fromstring((tmp_path / "start.svg").read_text())
    bars = [each for each in picture.iter(f"{SVG}rect") if each.get("class") != "page"]
    assert len(bars) == 2 * len(steps)
    words = ["".join(each.itertext()) for each in picture.iter(f"{SVG}text")]
    assert {"parent", "init", "mounter"} <= {*words}
    width = float(picture.get("width") or 0)
    for each in bars:
        x, wide = float(each.get("x") or 0), float(each.get("width") or 0)
        assert 0 <= x and x + wide <= width, "all processes are on one clock"


@requires("root")
def test_a_failed_step_is_marked(box: Box, tmp_path: Path) -> None:
    svg, html = tmp_path / "start.svg", tmp_path / "start.html"
    words = ("--rm", "--network", "none", "--svg", str(svg), "--html", str(html))
    assert box("run", *words, "-w", "/etc/passwd", "base", "true").returncode == 125
    assert any(each.get("class") == "bad" for each in ElementTree.fromstring(svg.read_text()).iter(f"{SVG}rect"))
    page = Reader(html.read_text())
    assert "failed: " in page.text
    assert [attributes["id"] for name, attributes in page.elements if name == "details" and "open" in attributes]


def test_a_page_has_all_that_explain_says_and_needs_no_script(any_box: Box, tmp_path: Path) -> None:
    command = ("run", "--rm", "--network", "none", "base", "sh", "-c", "<script>alert('&')</script>")
    html = any_box.directory / "start.html"
    any_box.ok("explain", "--html", str(html), *command)
    rows = json.loads(any_box.ok("explain", "--json", *command))
    text = html.read_text()
    page = Reader(text)
    assert page.count("details") == page.count("summary") == len(rows)
    assert page.count("script") == page.count("img") == page.count("link") == 0
    assert "prefers-color-scheme:dark" in text and "@media print" in text
    for row in rows:
        assert legible(row["why"]) in page.text and row["manual"] in page.text
    assert page.count("pre") == sum(bool(row["shell"]) for row in rows)


@requires("root")
def test_a_page_of_a_run_has_its_times(box: Box, tmp_path: Path) -> None:
    box.ok("run", "--rm", "--network", "none", "--html", str(tmp_path / "start.html"), "base", "true")
    page = Reader((tmp_path / "start.html").read_text())
    assert page.text.count(" µs") == page.count("details") - 1, "the last one, exec, does not return"


def test_what_cannot_be_written_is_told(box: Box) -> None:
    done = box("explain", "--html", "/no/such/page.html", "run", "base", "true")
    assert done.returncode == 125
    assert done.stderr.startswith("minibox: write /no/such/page.html: No such file or directory")
    assert box("explain", "--html", "x", "--json", "run", "base", "true").returncode == 125
