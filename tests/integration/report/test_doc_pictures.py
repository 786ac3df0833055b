"""The pictures of docs/ are what minibox draws today: `make pictures` draws them anew."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from minibox.cli.format import svg
from tests.conftest import CHECKOUT, Run
from tests.integration.report.test_docs import LESSON, normalised
from tests.probes import requires

SVG = "{http://www.w3.org/2000/svg}"
PICTURES = sorted((CHECKOUT / "docs/pictures").glob("*.svg"))
STYLE = re.compile(r"<style>.*?</style>", re.DOTALL)


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_a_picture_of_the_lesson_is_drawn_as_today(path: Path) -> None:
    text = path.read_text()
    [today] = STYLE.findall(svg.picture(1, 1, "", []))
    assert STYLE.findall(text) == [today], "its colours for light, dark and paper"
    assert f"(pictures/{path.name})" in LESSON.read_text()
    words = " ".join(" ".join(each.itertext()) for each in ElementTree.fromstring(text).iter(f"{SVG}text"))
    found = {match for match in re.findall(r"(?<![\w.])/(?:work|root|home|tmp)\b[/\w.-]*", words) if match != "/tmp"}
    assert not found, "of the machine on which it was drawn"


def test_there_are_a_timeline_and_a_map() -> None:
    assert [path.name for path in PICTURES] == ["map.svg", "start.svg"]


@requires("root", "idmap")
def test_the_steps_of_the_timeline_are_those_of_explain(minibox: Run, environment: dict[str, str]) -> None:
    done = minibox("explain", "--json", "run", "--rm", "--network", "none", "base", "echo", "hi")
    root = environment["MINIBOX_ROOT"]
    real = {normalised(step["does"], root) for step in json.loads(done.stdout)}
    picture = ElementTree.fromstring((CHECKOUT / "docs/pictures/start.svg").read_text())
    hints = (re.match(r"\d+ (.*): [\d.]+ µs\. ", each.text or "") for each in picture.iter(f"{SVG}title"))
    drawn = {hint.group(1) for hint in hints if hint and "cgroup" not in hint.group(1)}
    assert len(drawn) > 60
    assert not {step for step in drawn if normalised(step, "/var/lib/minibox") not in real}
