"""Names of containers: ``root/names/<name>`` is a symlink to the id. Making the symlink takes the name atomically."""

from __future__ import annotations

import os

from minibox.errors import NameTaken, UsageError, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
LENGTH_MAX = 128
ADJECTIVES = ("brave calm clever crisp eager early fair fast fine gentle glad grand happy keen kind lively lucky "
              "merry neat nimble noble proud quick quiet rapid sharp shiny silent smart snug solid steady sunny "
              "swift tidy warm wise witty young zesty").split()  # fmt: skip
NOUNS = ("badger beaver cedar comet coral crane daisy delta ember falcon fern finch fjord fox gecko harbor hazel "
         "heron iris island ivy jay juniper lark lemur linden lotus lynx maple marten meadow otter panda pine plover "
         "poppy quail raven reef robin sable sparrow spruce tern thistle tulip violet walnut willow wren").split()  # fmt: skip


def default_name(container_id: str) -> str:
    """Make up a container's name. It is a function of the id, so it needs no symlink."""
    seed = int(container_id[:8], 16)
    return f"{ADJECTIVES[seed % len(ADJECTIVES)]}_{NOUNS[seed // len(ADJECTIVES) % len(NOUNS)]}_{container_id[8:12]}"


def take(root: str, name: str, container_id: str, is_running: Callable[[str], bool]) -> None:
    """Give a container a name.

    Raises:
        UsageError: the name is invalid.
        NameTaken: another container has it.
        OSError: the symlink can't be made.
    """
    if not 2 <= len(name) <= LENGTH_MAX or not name[0].isalnum() or not CHARACTERS.issuperset(name):
        raise UsageError(
            f"invalid container name {name!r}",
            f"use 2 to {LENGTH_MAX} letters, digits, '_', '.' and '-', beginning with a letter or digit",
        )
    directory = f"{root}/names"
    os.makedirs(directory, 0o700, exist_ok=True)
    while True:
        try:
            os.symlink(container_id, f"{directory}/{name}")
            return
        except FileExistsError:
            found = _holder(directory, name, root)
        if found == container_id:
            return  # a command that was killed had already given it this name
        if found:
            force = "--force " if is_running(found) else ""
            raise NameTaken(
                f"the name {name!r} is taken by container {found[:12]}",
                f"choose another name, or remove that container: minibox rm {force}{name}",
            )


def holder(root: str, name: str) -> str:
    """The id of the container that was given this name; "" for none."""
    try:
        return os.readlink(f"{root}/names/{name}") if name and CHARACTERS.issuperset(name) else ""
    except OSError:
        return ""


def given(root: str, container_id: str) -> str:
    """The name that a container was given; "" for none."""
    with suppress(FileNotFoundError):
        for name in os.listdir(f"{root}/names"):
            if holder(root, name) == container_id:
                return name
    return ""


def of(root: str, container_id: str) -> str:
    """The name of a container, given or made up. It reads all names."""
    try:
        given = [name for name in os.listdir(f"{root}/names") if holder(root, name) == container_id]
    except FileNotFoundError:
        given = []
    return given[0] if given else default_name(container_id)


def is_gone(root: str, container_id: str) -> bool:
    """Is there no container with this id, neither running nor on disk?"""
    return not os.path.lexists(f"{root}/live/{container_id}") and not os.path.isdir(f"{root}/containers/{container_id}")


def drop(root: str, container_id: str, name: str) -> None:
    """Free a container's name.

    Args:
        name: freed only if it is this container's; "" frees whichever name it has.
    """
    directory = f"{root}/names"
    try:
        given = [name] if name else os.listdir(directory)
    except FileNotFoundError:
        return
    for each in given:
        try:
            if os.readlink(f"{directory}/{each}") == container_id:
                os.unlink(f"{directory}/{each}")
        except OSError:
            continue


def _holder(directory: str, name: str, root: str) -> str:
    """The id of the container that has a name. If that container is gone, free the name and return "".

    This needs a lock: between the check and the unlink another process may free the name and take it.
    """
    from minibox.base.lock import Lock

    with suppress(FileNotFoundError):
        with Lock(directory):
            found = os.readlink(f"{directory}/{name}")
            if not is_gone(root, found):
                return found
            os.unlink(f"{directory}/{name}")
    return ""
