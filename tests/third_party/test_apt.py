"""try apt-get: a package from the network is installed, used and discarded, and the host is as it was (`make long`)."""

from __future__ import annotations

import subprocess

from tests.conftest import Run
from tests.probes import requires

PACKAGE = "hello"
#: Where apt-get and dpkg write, and where the package's files would be.
PLACES = ("/etc", "/usr", "/var/cache/apt", "/var/lib/apt", "/var/lib/dpkg", "/var/log/apt", "/var/log/dpkg.log")
SCRIPT = (
    f"apt-get install -y --reinstall {PACKAGE} >/tmp/apt.log 2>&1 || {{ cat /tmp/apt.log >&2; exit 1; }}; {PACKAGE}"
)


def files() -> str:
    """Every file with its size, owner, mode and times; a compiled Python module may come at any time."""
    words = ["find", *PLACES, "-name", "__pycache__", "-prune", "-o", "-printf", "%p %s %U:%G %m %T@ %C@ %l\\n"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


@requires("root", "command:apt-get", "command:dpkg")
def test_a_package_is_installed_and_discarded(
    minibox_command: list[str], minibox: Run, host_netns: str, environment: dict[str, str]
) -> None:
    before = files()
    words = [
        "nsenter",
        f"--net={host_netns}",
        *minibox_command,
        "try",
        "--network",
        "host",
        "--discard",
        "sh",
        "-c",
        SCRIPT,
    ]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Hello, world!\n"
    for line in ("C /var/lib/dpkg/status", "C /var/log/dpkg.log", f" {PACKAGE}:"):
        assert line in done.stderr
    assert files() == before
    assert minibox("tried").stdout == ""
