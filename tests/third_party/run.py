"""Run the test suite of pg8000, a PostgreSQL client from PyPI, on databases in sandboxes: `make third-party`.

Its own tests as they are released, all but those of a server's authentication methods (each wants another pg_hba.conf),
of its README and of benchmarks, and three that race with themselves. Needs root, the package index and Debian's mirror; a few minutes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))

from tests import isolation  # noqa: E402
from tests.integration.api.test_embedding import POSTGRES  # noqa: E402

RELEASE = "pg8000==1.31.6"
# They write to a server process that was just told to end, and expect the end of the connection: with one that has
# unread data the kernel resets it. On a PostgreSQL of Debian's on loopback, without minibox, 26 of 45 failed as well.
RACING = tuple(f"test/{kind}/test_connection.py::test_broken_pipe_read" for kind in ("native", "dbapi", "legacy"))
LEFT_OUT = ("auth", "test_benchmarks.py", "test_readme.py", "stress.py")


def main() -> int:
    if os.geteuid() != 0:
        print("this needs root", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="minibox-third-party-") as name:
        directory = Path(name)
        state = {"MINIBOX_ROOT": f"{directory}/root", "MINIBOX_RUNROOT": f"{directory}/run"}
        source = fetch(directory)
        subprocess.run(
            [CHECKOUT / "rootfs/debian/make", "bookworm"],
            env={**os.environ, **POSTGRES, **state, "TMPDIR": name},
            check=True,
        )
        (directory / "isolated").mkdir()
        isolation.enter(directory / "isolated")
        libraries = f"{directory}/libraries:{CHECKOUT}"
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.third_party.database",
                 "-n", str(os.cpu_count()), "--dist", "loadfile", "--minibox-missing=fail", *sys.argv[1:],
                 *(f"--deselect={each}" for each in RACING), *(f"--ignore-glob=*/{each}" for each in LEFT_OUT), "test"]  # fmt: skip
        return subprocess.run(words, cwd=source, env={**os.environ, **state, "PYTHONPATH": libraries}).returncode


def fetch(directory: Path) -> Path:
    """The package and what its suite needs, and the source with its tests."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    libraries = f"{directory}/libraries"
    subprocess.run([*pip, "install", "--target", libraries, RELEASE, "pytz", "pytest-mock", "pytest-benchmark", "hatchling",
                    "versioningit"], check=True)  # fmt: skip
    subprocess.run([*pip, "download", "--no-binary", ":all:", "--no-deps", "--no-build-isolation", "-d", directory, RELEASE],
                   env={**os.environ, "PYTHONPATH": libraries}, check=True)  # fmt: skip
    (archive,) = directory.glob("*.tar.gz")
    subprocess.run(["tar", "-xf", archive, "-C", directory], check=True)
    return archive.with_name(archive.name.removesuffix(".tar.gz"))


if __name__ == "__main__":
    sys.exit(main())
