"""What this host can do, found out by trying it in a process that is thrown away: `minibox.linux.probe`.

There are three answers: it works; the kernel says no; and nobody knows, which is an error and never taken for one of the
others. A no is either the host's, to everybody, or one to this caller: what he may, his seccomp filter, his root directory.
"""

from __future__ import annotations

import os
from errno import errorcode
from typing import NamedTuple

from minibox.base.paths import package_directory
from minibox.errors import ProbeFailed, kernel_says

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORIES = ("", "/lower", "/upper", "/work", "/merged", "/mapped")
TIMEOUT_S = 20
SOURCE = "import sys; sys.path[:] = sys.argv[3:]; from minibox.linux.probe import main; main(*sys.argv[1:3])"


class Answer(NamedTuple):
    """``refusal``: what the kernel says against it, "" when it works. ``is_of_host``: everybody would be told the same."""

    refusal: str
    is_of_host: bool


def ask(name: str, directory: str) -> Answer:
    """Try one of `probe.PROBES`.

    Args:
        directory: of the file system that it is asked for; what is made in it is removed.

    Raises:
        ProbeFailed: it could not be tried.
    """
    from shutil import rmtree
    from tempfile import mkdtemp

    try:
        place = mkdtemp(prefix=".minibox-probe-", dir=directory)
    except OSError as error:
        raise _failed(name, f"make a directory in {directory}: {kernel_says(error)}") from error
    try:
        os.chmod(place, 0o755)  # another user's probe looks in
        for each in DIRECTORIES[1:]:
            os.mkdir(place + each)
        with open(f"{place}/lower/old", "wb"):
            pass
        return _asked(name, place)
    except OSError as error:
        raise _failed(name, f"{error.filename or 'run a process'}: {kernel_says(error)}") from error
    finally:
        if os.path.isdir(f"{place}/work/work"):
            os.chmod(f"{place}/work/work", 0o700)  # overlayfs made it 0, which keeps rmtree out
        rmtree(place, ignore_errors=True)


def _asked(name: str, place: str) -> Answer:
    import subprocess
    import sys

    # Isolated: neither the working directory nor the environment may have it load what is somebody else's.
    command = [sys.executable, "-I", "-S", "-B", "-c", SOURCE, name, place, *_search_path()]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise _failed(name, f"it took more than {TIMEOUT_S} s") from None
    kind, _, rest = done.stdout.partition(" ")
    step, _, number = rest.rpartition(": ")
    if done.stdout == "works":
        return Answer("", is_of_host=True)
    words = f"{step}: {kernel_says(int(number))}" if number.isdigit() and int(number) in errorcode else rest
    if kind in ("lacking", "refused"):
        return Answer(words, is_of_host=kind == "lacking")
    last = (done.stderr.strip().split("\n"))[-1]
    raise _failed(name, words if kind == "failed" else last or f"its process ended with status {done.returncode}")


def _failed(name: str, why: str) -> ProbeFailed:
    return ProbeFailed(
        f"find out whether this host has {name.replace('_', ' ')}: {why}",
        "mend that and try again: nothing is taken for granted, so that no container is less isolated than you think",
    )


def _search_path() -> Iterator[str]:
    """Absolute, and with what leads to minibox itself, whoever has found it here."""
    import sys

    yield from (os.path.abspath(entry) for entry in sys.path if entry)
    yield os.path.dirname(package_directory())
