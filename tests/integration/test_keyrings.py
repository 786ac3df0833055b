"""Session keyrings: each start has one of its own, also where its user may have no more keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.container_box import Box
from tests.keys import begin_session, no_more_keys
from tests.oci_runtime import Runtime
from tests.probes import requires

pytestmark = [requires("root"), pytest.mark.kernel]

HOST_ID = 1_234_500_000  # nobody else's: keys are counted by user
MAP = [{"containerID": 0, "hostID": HOST_ID, "size": 65536}]
REFUSAL = "join a new session keyring: Disk quota exceeded (EDQUOT from session-keyring(7)"


@pytest.fixture
def runtime(state: Path, minibox: Run) -> Iterator[Runtime]:
    runtime = Runtime(state)
    yield runtime
    left = runtime.left()
    runtime.remove_all()
    assert left == []


def test_a_start_without_one_fails(runtime: Runtime) -> None:
    runtime.write(runtime.bundle.with_ids(runtime.bundle.shell("true"), MAP))
    run = ("run", "--bundle", str(runtime.bundle.path))
    with no_more_keys(HOST_ID):
        assert REFUSAL in runtime.error(*run, "c1", preexec_fn=begin_session)
        runtime.ok(*run, "--no-new-keyring", "c2", preexec_fn=begin_session)
    runtime.ok(*run, "c3", preexec_fn=begin_session)


@pytest.mark.parametrize(
    ("container", "options", "is_refused"),
    [
        (("--security-opt=seccomp=unconfined",), (), True),
        ((), ("--privileged",), True),
        ((), (), False),
    ],
)
def test_so_does_a_command_in_a_container_that_could_reach_the_callers(
    box: Box, container: tuple[str, ...], options: tuple[str, ...], is_refused: bool
) -> None:
    """The default filter denies every call on keys: under it there is nothing to reach."""
    box.start("c1", "sleep 1000", *container)
    uid = int(Path(f"/proc/{box.live('c1')[0]}/uid_map").read_text().split()[1])
    with no_more_keys(uid):
        done = box("exec", *options, "c1", "echo", "hi", preexec_fn=begin_session)
    if is_refused:
        assert (done.returncode, done.stdout) == (125, "")
        assert REFUSAL in done.stderr and "kernel.keys.maxkeys" in done.stderr
    else:
        assert (done.returncode, done.stdout, done.stderr) == (0, "hi\n", "")
