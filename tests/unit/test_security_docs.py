"""docs/security.md names the test of each promise: they are there."""

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
PROMISES = TESTS.parent / "docs" / "security.md"


def test_the_tests_that_hold_a_promise_are_there():
    named = re.findall(r"`((?:unit|integration|hostile|vm)/[\w/]*test_\w+\.py)`", PROMISES.read_text())
    assert len(named) > 20
    assert [name for name in named if not (TESTS / name).is_file()] == []


def test_every_promise_names_a_test():
    """Those in lists, up to where it is said how all is tested."""
    text = PROMISES.read_text().partition("\n## How it is tested")[0]
    promises = [each.partition("\n\n")[0] for each in re.split(r"^- ", text, flags=re.MULTILINE)[1:]]
    assert len(promises) > 15
    assert [each for each in promises if not re.search(r"`[\w/]+/test_\w+\.py`\)$", each.strip())] == []


def test_every_attacker_holds_a_promise():
    attackers = {f"hostile/{path.name}" for path in (TESTS / "hostile").glob("test_*.py")}
    assert attackers - set(re.findall(r"`([\w/]+\.py)`", PROMISES.read_text())) == set()
