"""minibox in a container of minibox's: one error tells all that it takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from minibox.api import interpreter
from tests.conftest import CHECKOUT, Run
from tests.probes import requires

pytestmark = requires("root", "command:nft")

Nested = Callable[..., "CompletedProcess[str]"]


@pytest.fixture
def nested(minibox: Run, minibox_command: list[str]) -> Nested:
    """``nested("-v", "inner:/var/lib/minibox", inner=["base", "true"])``: run it, with this checkout, in a container."""

    seen = {path for path, _, _ in interpreter.mounts()}
    wanted = [CHECKOUT, Path(minibox_command[0]).absolute().parents[1]]
    seen |= {str(path) for path in wanted if not any(path.is_relative_to(other) for other in seen)}
    mounts = [word for path in sorted(seen) for word in ("-v", f"{path}:{path}:ro")]
    environment = ["env", "-u", "MINIBOX_ROOT", "-u", "MINIBOX_RUNROOT", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]

    def run(*options: str, inner: list[str]) -> CompletedProcess[str]:
        words = [*environment, *minibox_command, "run", "--rm", *inner]
        return minibox("run", "--rm", "--privileged", *mounts, *options, "base", *words)

    return run


NO_NFT = ("-v", "/dev/null:/usr/sbin/nft:ro")


def test_with_a_volume_for_its_root(nested: Nested) -> None:
    done = nested("-v", "inner:/var/lib/minibox", inner=["base", "echo", "hi"])
    assert (done.returncode, done.stdout) == (0, "hi\n"), done.stderr


def test_what_is_missing_is_told_at_once(nested: Nested) -> None:
    done = nested(*NO_NFT, inner=["base", "true"])
    hint = done.stderr.splitlines()[-1]
    assert done.returncode == 125 and "it is on overlay, which can't be overlayfs's upperdir" in done.stderr
    assert "-v minibox:/var/lib/minibox" in hint and "--storage-driver copy" in hint
    assert "its network needs nft, too: apt install nftables; or use --network none" in hint


def test_what_is_not_needed_is_not_asked_for(nested: Nested) -> None:
    done = nested(*NO_NFT, inner=["--network", "none", "base", "true"])
    assert done.returncode == 125 and "nft" not in done.stderr
