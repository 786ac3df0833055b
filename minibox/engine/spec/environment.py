"""The environment of the process: Docker's precedence and its ``--env-file`` format."""

from __future__ import annotations

from minibox.errors import UsageError, kernel_says

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from minibox.docker_words.pairs import Variable

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment(
    image_env: Iterable[str],
    user_env: Iterable[Variable],
    caller: Mapping[str, str],
    *,
    hostname: str,
    home: str,
    tty: bool,
) -> list[str]:
    """Return ``process.env`` with each name once: the defaults, overridden by the image, overridden by the user.

    A variable without a value takes the caller's. If the caller doesn't have it, the variable is removed, even one
    from the image, as in Docker. ``HOME`` defaults to the user's home directory.
    """
    result = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    if tty:
        result["TERM"] = "xterm"
    for entry in image_env:
        name, equals, value = entry.partition("=")
        if name and equals and "\0" not in entry:
            result[name] = value
    for each in user_env:
        own = caller.get(each.name) if each.value is None else each.value
        if own is None:
            result.pop(each.name, None)
        else:
            result[each.name] = own
    if not result.get("HOME"):
        result["HOME"] = home
    return [f"{name}={value}" for name, value in result.items()]


def read_env_files(paths: Iterable[str], read: Callable[[str], bytes], caller: Mapping[str, str]) -> list[Variable]:
    """Read all ``--env-file``s and return their variables.

    Args:
        read: returns the content of a file.

    Raises:
        UsageError: a file can't be read or parsed; see `parse_env_file`.
    """
    found: list[Variable] = []
    for path in paths:
        try:
            data = read(path)
        except (OSError, ValueError) as error:
            said = kernel_says(error) if isinstance(error, OSError) else str(error)
            raise UsageError(f"read env-file {path!r}: {said}") from error
        found += parse_env_file(data, path, caller)
    return found


def parse_env_file(data: bytes, path: str, caller: Mapping[str, str]) -> list[Variable]:
    """Parse an ``--env-file`` as Docker does: one ``NAME=value`` or ``NAME`` a line.

    Blank lines and lines that begin with ``#`` are ignored. Nothing is unquoted, and the value keeps its spaces. A bare
    NAME takes its value from the caller's environment; if the caller doesn't have it, it is skipped.

    Raises:
        UsageError: not UTF-8, no name, or white space in a name. The message has the line number.
    """
    from minibox.docker_words.pairs import Variable

    found = []
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            line = raw.removesuffix(b"\r").decode().lstrip()
        except UnicodeDecodeError as error:
            raise UsageError(f"read {path}: line {number} is not UTF-8") from error
        if not line or line[0] == "#":
            continue
        name, equals, value = line.partition("=")
        if not name or "\0" in line:
            raise UsageError(f"read {path}: no variable name on line {number}")
        if len(name.split()) > 1 or name != name.strip():
            raise UsageError(f"read {path}: variable {name!r} on line {number} contains white space")
        if equals or name in caller:
            found.append(Variable(name, value if equals else caller[name]))
    return found
