"""Projects on Debian in the shape of well-known ones, built and run.

They need the network and minutes: ``make build-projects``. Those on busybox are in CI, and are compared with what Docker
and buildah make of them, by ``tests/interop/test_build_projects.py``. MINIBOX_DEBIAN is an archive of the image debian:12, where one is there already.
"""

from __future__ import annotations

import os
import ssl
import subprocess
from pathlib import Path

import pytest

from tests.probes import requires
from tests.projects.project import PROJECTS

pytestmark = requires("root", "internet", "command:mmdebstrap")

MAKE = Path(__file__).parents[2] / "rootfs/debian/make"
ON_DEBIAN = ("debian-service", "python-web", "node-app", "go-tool", "c-static", "capable-tool")
#: What each prints: options and words of `run`, and the output's end.
RUNS: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "debian-service": (
        (),
        ("sh", "-c", "su app -c 'sudo -n id -u'; mkdir -p /run/sshd; /usr/sbin/sshd -t && stat -c '%a %U' /srv/app"),
        "0\n2750 app\n",
    ),
    "python-web": ((), ("check",), "hello from flask\n"),
    "node-app": ((), (), "1.3.0 /usr/bin/sh\n"),
    "go-tool": ((), (), "tool dev 65534\n"),
    "c-static": ((), (), "hello from C\n"),
    "capable-tool": (("--entrypoint", "sh"), ("-c", "probe -q -c 1 127.0.0.1 | grep -o '1 received'"), "1 received\n"),
}


class Minibox:
    """The command in the network namespace that this session came from."""

    def __init__(self, enter: list[str], command: list[str], directory: Path) -> None:
        self._command = [*enter, *command]
        self._environment = {
            **os.environ, "MINIBOX_ROOT": f"{directory}/root", "MINIBOX_RUNROOT": f"{directory}/run",
            "TMPDIR": str(directory),
        }  # fmt: skip

    def __call__(self, *words: object) -> str:
        done = subprocess.run(
            [*self._command, *map(str, words)], env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout


@pytest.fixture(scope="module")
def enter(host_netns: str) -> list[str]:
    return ["nsenter", f"--net={host_netns}"]


@pytest.fixture(scope="module")
def box(session_directory: Path, enter: list[str], minibox_command: list[str]) -> Minibox:
    """A store that has Debian."""
    directory = session_directory / "projects"
    directory.mkdir()
    box = Minibox(enter, minibox_command, directory)
    if given := os.environ.get("MINIBOX_DEBIAN"):
        box("load", "-i", given)
    else:
        environment = {**os.environ, "MINIBOX_ROOT": f"{directory}/root", "TMPDIR": str(directory)}
        subprocess.run([*enter, MAKE, "bookworm"], env=environment, check=True)
    return box


@pytest.mark.parametrize("name", ON_DEBIAN)
def test_a_project_on_debian(name: str, box: Minibox) -> None:
    words: list[object] = ["--network", "host"]
    certificates = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    if certificates:
        words += ["--secret", f"id=certificates,src={certificates}"]
    box("build", "-t", name, *words, PROJECTS / name)
    options, run, end = RUNS[name]
    assert box("run", "--rm", "--network", "none", *options, name, *run).endswith(end)
