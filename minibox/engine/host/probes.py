"""Find out what this host can do, by trying it in a process of its own: `minibox.linux.probe`.

There are three answers: it works, the kernel refuses, or the attempt itself failed. The last is an error, and never
taken for one of the others. A refusal concerns either the whole host or just this caller: privileges, a seccomp filter,
the root directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from errno import errorcode
from typing import NamedTuple

from minibox.base.paths import package_directory
from minibox.errors import ProbeFailed, kernel_says

DIRECTORIES = ("", "/lower", "/upper", "/work", "/merged", "/mapped")
TIMEOUT_S = 20
SOURCE = "import sys; sys.path[:] = sys.argv[3:]; from minibox.linux.probe import main; main(*sys.argv[1:3])"


class Answer(NamedTuple):
    """The answer of a probe.

    ``refusal``: why the kernel refuses, "" if it works. ``is_of_host``: any caller would get the same answer.
    """

    refusal: str
    is_of_host: bool


def ask(name: str, directory: str) -> Answer:
    """Try one of `probe.PROBES`.

    Args:
        directory: a directory on the file system in question; what is made in it is removed again.

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
        os.chmod(place, 0o755)  # a probe as another user must be able to look in
        for each in DIRECTORIES[1:]:
            os.mkdir(place + each)
        with open(f"{place}/lower/old", "wb"):
            pass
        return _asked(name, place)
    except OSError as error:
        raise _failed(name, f"{error.filename or 'run a process'}: {kernel_says(error)}") from error
    finally:
        if os.path.isdir(f"{place}/work/work"):
            os.chmod(f"{place}/work/work", 0o700)  # overlayfs made it with mode 0, which stops rmtree
        rmtree(place, ignore_errors=True)


def _asked(name: str, place: str) -> Answer:
    import subprocess
    import sys

    # Isolated, so that neither the working directory nor the environment can make it load someone else's code.
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
        "fix this and try again: minibox doesn't guess, since a container could be less isolated than you think",
    )


def _search_path() -> Iterator[str]:
    """Yield absolute paths, including the directory that minibox itself was imported from."""
    import sys

    yield from (os.path.abspath(entry) for entry in sys.path if entry)
    yield os.path.dirname(package_directory())
