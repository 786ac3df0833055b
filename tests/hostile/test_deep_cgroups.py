"""A container makes cgroups below its own, as deep as it likes: the host looks at them, and removes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.container_box import Box
from tests.probes import requires

pytestmark = requires("root", "cgroup")

DEEP = """
cd /sys/fs/cgroup/memory 2>/dev/null || cd /sys/fs/cgroup
count=0
while [ $count -lt {count} ] && mkdir {name} && cd {name}; do count=$((count + 1)); done 2>/dev/null
echo ready; exec sleep 1000
"""


def left(container_id: str) -> list[Path]:
    places = (Path("/sys/fs/cgroup"), *(path for path in Path("/sys/fs/cgroup").iterdir() if path.is_dir()))
    return [place / f"minibox-{container_id}" for place in places if (place / f"minibox-{container_id}").exists()]


@pytest.mark.parametrize(("count", "name"), [(1200, "a"), (100, "b" * 60)], ids=["deep", "long"])
def test_they_cost_nothing_and_go_with_it(box: Box, count: int, name: str) -> None:
    """Deeper than Python's stack; with a path longer than any that the kernel takes."""
    container_id = box.start("cc", DEEP.format(count=count, name=name), "--privileged")
    box.until_logged("cc", "ready")
    assert left(container_id)
    row = json.loads(box.ok("stats", "--no-stream", "--format", "json", "cc"))
    assert row["Name"] == "cc"
    assert box.ok("exec", "cc", "echo", "goes on") == "goes on"
    assert box.ok("top", "cc").split("\n")
    box.ok("pause", "cc")
    box.ok("unpause", "cc")
    box.ok("rm", "-f", "cc")
    assert left(container_id) == []
