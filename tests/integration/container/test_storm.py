"""300 commands on 20 containers while everything is killed: nothing is left, and no command lies.

MINIBOX_STORMS=N brings N of the big ones, MINIBOX_STORM_SEED=S the one of that seed again, as far as
the machine's timing allows; else it is a small one.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.leaks import LEAK_PATIENCE_S, bridge_ports
from tests.probes import requires
from tests.storm import Storm, remains

pytestmark = requires("root", "command:nft")

STORMS = int(os.environ.get("MINIBOX_STORMS", "0"))
SEED = os.environ.get("MINIBOX_STORM_SEED", "")
COMMANDS, CONTAINERS = (300, 20) if STORMS else (100, 10)


@pytest.mark.parametrize("number", range(max(STORMS, 1)))
def test_storm(
    minibox_command: list[str], environment: dict[str, str], state: Path, number: int, minibox: object
) -> None:
    seed = int(SEED) + number if SEED else random.SystemRandom().randrange(1 << 32)
    print(f"MINIBOX_STORM_SEED={seed}")
    storm = Storm(minibox_command, environment, state, seed)
    try:
        storm.rage(COMMANDS, CONTAINERS)
        print(storm.counts)
        storm.call("ps", "-a")  # any command collects
        storm.check_list()
        check = storm.call("system", "check")
    finally:
        removed = storm.call("rm", "-f", "-a")
    problems = storm.untruths + remains(state) + [f"link {name}" for name in _links_of_containers()]
    assert not problems, "\n".join(problems)
    assert check.returncode == 0, check.stdout + check.stderr
    assert (removed.returncode, removed.stderr) == (0, "")
    assert storm.call("ps", "-aq").stdout == ""


def _links_of_containers() -> set[str]:
    """Ends of veth pairs that are on a bridge, once the kernel has had its time."""
    deadline = time.monotonic() + LEAK_PATIENCE_S
    while True:
        found = bridge_ports()
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.02)
