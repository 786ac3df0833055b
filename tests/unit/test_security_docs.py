"""docs/security.md names the test of each promise: they are there."""

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
PROMISES = TESTS.parent / "docs" / "security.md"


def test_the_tests_that_hold_a_promise_are_there():
    named = re.findall(r"`((?:unit|integration|hostile|vm)/test_\w+\.py)`", PROMISES.read_text())
    assert len(named) > 20
    assert [name for name in named if not (TESTS / name).is_file()] == []


def test_every_attacker_holds_a_promise():
    attackers = {f"hostile/{path.name}" for path in (TESTS / "hostile").glob("test_*.py")}
    assert attackers - set(re.findall(r"`([\w/]+\.py)`", PROMISES.read_text())) == set()
